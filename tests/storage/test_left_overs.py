"""What killed processes have left is swept away by the next one that has a folder, or a part of it, to itself."""

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fmlm_cli import storage

KIND = storage.Kind("cake", "bake", ("recipe.txt", "part"))


def leave(folder: Path) -> None:
    """A file and a folder half-written, a folder that was about to be replaced, and one of another's making."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".recipe.txt.12.partial").write_text("fl")
    for name in (".icing.partial", ".dough.replaced", ".own"):
        (folder / name).mkdir()
        (folder / name / "half").touch()


def names(folder: Path) -> set[str]:
    """But of what says whose it is, or that somebody is there."""
    found = {path.name for path in folder.iterdir() if path.suffix != ".lease"}
    return found - {storage.MARKER, ".lock"}


SWEPT = {"dough", ".own"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with storage.owned_folder(tmp_path / "a", KIND):
        (tmp_path / "a" / "recipe.txt").write_text("flour")
    return tmp_path / "a"


@pytest.mark.parametrize(
    ("enter", "place"),
    [
        (lambda root: storage.owned_folder(root, KIND, resume=True), ""),
        (storage.work_in, ""),
        (lambda root: storage.owned_folder(root, KIND, resume=True), "part"),
        (storage.work_in, "part"),
        (lambda root: storage.sole_owner(root / "part"), "part"),
    ],
    ids=["all of it", "work in it", "all, below", "work in it, below", "a part"],
)
def test_who_has_it_alone_sweeps(
    root: Path, enter: Callable[[Path], AbstractContextManager[object]], place: str
) -> None:
    leave(root / place)
    with enter(root):
        assert names(root / place) - {"recipe.txt", "part"} == SWEPT
    assert (root / place / "dough" / "half").exists()


def test_what_is_half_removed_has_no_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds a folder by its name finds all of it."""
    (root / "part").mkdir()
    (root / "part" / "half").touch()
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr("shutil.rmtree", lambda _: signal.raise_signal(signal.SIGINT))
        storage.remove(root / "part")
    assert names(root) == {"recipe.txt", ".part.partial"}
    with storage.work_in(root):
        assert names(root) == {"recipe.txt"}


def test_who_shares_it_leaves_what_others_may_be_writing(root: Path) -> None:
    leave(root)
    before = names(root)
    with storage.owned_folder(root, KIND, resume=True, shared=True):
        assert names(root) == before
    with storage.sole_owner(root / "part"):  # nor outside of the part that is one's own
        assert names(root) - {"part"} == before

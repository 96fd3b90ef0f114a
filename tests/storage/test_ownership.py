import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli import storage
from fmlm_cli.errors import Interrupted, UserError

FLAGS = ("", "overwrite", "resume")
WAYS_TO_END = (ValueError("bad"), KeyboardInterrupt(), SystemExit(3), Interrupted("SIGTERM", 143))
WAYS_OUT = tuple(type(end) for end in WAYS_TO_END)


def raising(error: BaseException) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


def contents(folder: Path) -> dict[str, str | None]:
    """Everything below a folder, hidden things too; but leases, by which who is at work there is known."""
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else None
        for path in folder.rglob("*")
        if path.suffix != ".lease"
    }


KIND = storage.Kind("cake", "bake", ("recipe.txt", "layers"))
OTHER = storage.Kind("pie", "bake-pie", ("recipe.txt",))


def made(path: Path, kind: storage.Kind = KIND) -> None:
    with storage.owned_folder(path, kind):
        (path / "recipe.txt").write_text("flour")


def nothing(path: Path) -> None:
    pass


def empty(path: Path) -> None:
    path.mkdir()


def ours(path: Path) -> None:
    made(path)


def ours_begun(path: Path) -> None:
    made(path)
    (path / "recipe.txt").rename(path / ".recipe.txt.123.partial")


def killed_at_once(path: Path) -> None:
    path.mkdir()
    (path / storage.MARKER).touch()


def others(path: Path) -> None:
    made(path, OTHER)


def with_notes(path: Path) -> None:
    made(path)
    (path / "notes.md").write_text("precious")


def of_the_future(path: Path) -> None:
    made(path)
    (path / storage.MARKER).write_text('{"kind": "cake", "version": 99}')


def hidden(path: Path) -> None:
    path.mkdir()
    (path / ".bashrc").write_text("precious")


def hidden_folder(path: Path) -> None:
    (path / ".ssh").mkdir(parents=True)


def half_written_by_another_tool(path: Path) -> None:
    path.mkdir()
    (path / ".download.partial").write_text("precious")


def our_names_by_chance(path: Path) -> None:
    path.mkdir()
    for name in ("config.yaml", "plan.json", "token_counts.npy", "manifest.json", "recipe.txt"):
        (path / name).write_text("{}")


def marker_of_another_tool(path: Path) -> None:
    path.mkdir()
    (path / storage.MARKER).write_text("[1]")
    (path / "recipe.txt").write_text("precious")


def file(path: Path) -> None:
    path.write_text("precious")


def broken_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize(
    ("there", "flags", "message"),
    [
        *((there, flag, None) for there in (nothing, empty, ours_begun, killed_at_once) for flag in FLAGS),
        (
            ours,
            "",
            "is not empty: pass --resume to keep what is finished, --overwrite to replace it, or choose",
        ),
        (ours, "overwrite", None),
        (ours, "resume", None),
        (ours, "overwrite resume", "exclude each other"),
        *((others, flag, "is a pie, not a cake") for flag in FLAGS),
        *((of_the_future, flag, "was made by a newer fmlm") for flag in FLAGS),
        (with_notes, "overwrite", r"also holds what fmlm did not make \(notes\.md\): move it away"),
        (with_notes, "resume", None),
        *(
            (there, flag, r"fmlm did not make it \(it has no \.fmlm\.json\)")
            for there in (
                hidden,
                hidden_folder,
                half_written_by_another_tool,
                our_names_by_chance,
                marker_of_another_tool,
            )
            for flag in FLAGS
        ),
        *((file, flag, "is a file, not a folder") for flag in FLAGS),
        *((broken_link, flag, "is a link to nothing") for flag in FLAGS),
    ],
)
def test_claims(tmp_path: Path, there: Callable[[Path], None], flags: str, message: str | None) -> None:
    target = tmp_path / "out"
    there(target)
    was = contents(tmp_path)

    def claim() -> None:
        asked = {"overwrite": "overwrite" in flags, "resume": "resume" in flags}
        storage.check_claim(target, KIND, **asked)
        with storage.owned_folder(target, KIND, **asked):
            pass

    if message is None:
        claim()
        return
    with pytest.raises(UserError, match=message) as caught:
        claim()
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == was  # nothing is touched


WITHOUT_LOCKS = """
import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = flock
"""


class TestOwnedFolder:
    def test_is_marked_before_anything_else(self, tmp_path: Path) -> None:
        with storage.owned_folder(tmp_path / "a" / "b", KIND) as folder:
            assert contents(tmp_path / "a" / "b").keys() == {storage.MARKER}
            assert storage.kind_of(folder.root) == "cake"
            assert folder.is_empty

    @pytest.mark.parametrize("end", [None, *WAYS_TO_END])
    @pytest.mark.parametrize("there", [False, True])
    def test_goes_again_when_nothing_was_put_in(
        self, tmp_path: Path, end: BaseException | None, there: bool
    ) -> None:
        target = tmp_path / "a" / "b"
        if there:
            target.mkdir(parents=True)
        was = contents(tmp_path)
        with contextlib.suppress(*WAYS_OUT), storage.owned_folder(target, KIND):
            if end:
                raise end
        assert contents(tmp_path) == was

    def test_what_was_put_in_stays_whatever_ends_it(self, tmp_path: Path) -> None:
        with contextlib.suppress(ValueError), storage.owned_folder(tmp_path / "a", KIND):
            (tmp_path / "a" / "recipe.txt").write_text("flour")
            raise ValueError
        assert contents(tmp_path / "a").keys() == {storage.MARKER, "recipe.txt"}

    def test_clearing_leaves_the_marker_and_what_links_point_to(self, tmp_path: Path) -> None:
        target, elsewhere = tmp_path / "a", tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "precious").write_text("x")
        made(target)
        (target / "layers" / "deep").mkdir(parents=True)
        (target / "layers" / "link").symlink_to(elsewhere)
        with storage.owned_folder(target, KIND, overwrite=True) as folder:
            folder.clear()
            assert contents(target).keys() == {storage.MARKER}
        assert contents(elsewhere) == {"precious": "x"}

    def test_what_fmlm_did_not_make_is_not_cleared(self, tmp_path: Path) -> None:
        made(tmp_path / "a")
        (tmp_path / "a" / "notes.md").write_text("precious")
        with storage.owned_folder(tmp_path / "a", KIND, resume=True) as folder:
            with pytest.raises(UserError, match=r"did not make \(notes\.md\)"):
                folder.clear()
            assert contents(tmp_path / "a").keys() == {storage.MARKER, "recipe.txt", "notes.md"}

    def test_an_interrupted_clearing_can_be_repeated(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made(tmp_path / "a")
        (tmp_path / "a" / "layers" / "one").mkdir(parents=True)
        with monkeypatch.context() as killed, contextlib.suppress(KeyboardInterrupt):
            killed.setattr(shutil, "rmtree", raising(KeyboardInterrupt()))
            with storage.owned_folder(tmp_path / "a", KIND, overwrite=True) as folder:
                folder.clear()
        with storage.owned_folder(tmp_path / "a", KIND, overwrite=True) as folder:
            folder.clear()
            assert contents(tmp_path / "a").keys() == {storage.MARKER}

    def test_what_killed_processes_left_is_swept_away(self, tmp_path: Path) -> None:
        made(tmp_path / "a")
        checkpoints = tmp_path / "a" / "layers"
        for left in (
            ".config.yaml.77.partial",
            ".final.partial",
            "layers/.step-1.partial",
            "layers/.x.replaced",
        ):
            (tmp_path / "a" / left).mkdir(parents=True)
        (checkpoints / ".old.replaced").mkdir()
        (checkpoints / "old").mkdir()
        (checkpoints / ".download.partial").write_text("another tool's file")
        with storage.owned_folder(tmp_path / "a", KIND, resume=True):
            assert contents(tmp_path / "a").keys() == {
                *(storage.MARKER, "recipe.txt", "layers"),
                *(
                    "layers/.download.partial",
                    "layers/old",
                    "layers/x",
                ),  # x had been put aside, and nothing was put in its place
            }

    def test_others_are_kept_out(self, tmp_path: Path) -> None:
        def enter(*, shared: bool = False, overwrite: bool = False) -> None:
            asked = {"resume": not overwrite, "overwrite": overwrite, "shared": shared}
            with storage.owned_folder(tmp_path / "a", KIND, **asked) as inner:
                inner.clear()

        in_use = pytest.raises(UserError, match="is in use by another fmlm process")
        with storage.owned_folder(tmp_path / "a", KIND) as folder:
            (tmp_path / "a" / "recipe.txt").write_text("flour")
            for call in ({}, {"shared": True}, {"overwrite": True}):
                with in_use:
                    enter(**call)
            folder.share()
            with in_use:
                enter(overwrite=True)
            assert (tmp_path / "a" / "recipe.txt").exists()
            enter(shared=True)
        enter(overwrite=True)

    @pytest.mark.parametrize("locks", [True, False])
    def test_of_many_that_begin_together_one_gets_it(self, tmp_path: Path, locks: bool) -> None:
        """Also on a file system without locks. Those that come while another leaves may be refused, but never are two in at once."""
        script = (
            "import sys, time\nfrom pathlib import Path\nfrom fmlm_cli import storage\n"
            "from fmlm_cli.errors import UserError\n"
            "kind, root = storage.Kind('cake', 'bake', ()), Path(sys.argv[1])\n"
            f"{'' if locks else WITHOUT_LOCKS}"
            "for turn in range(200):\n"
            "    try:\n"
            "        with storage.owned_folder(root / 'a', kind):\n"
            "            (root / 'inside').touch(exist_ok=False)\n"
            "            (root / 'inside').unlink()\n"
            "    except UserError:\n"
            "        pass\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path)]
        running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
        said = [process.communicate()[1] for process in running]
        assert [process.returncode for process in running] == [0] * 4, said
        assert contents(tmp_path) in ({}, {"a": None})  # whoever found it there leaves it there


class TestReplacedFolder:
    @pytest.mark.parametrize("flags", [{"overwrite": True}, {"resume": True}])
    def test_what_fmlm_did_not_make_is_not_replaced(self, tmp_path: Path, flags: dict[str, bool]) -> None:
        made(tmp_path / "a")
        (tmp_path / "a" / "notes.md").write_text("precious")
        before = contents(tmp_path)
        with (
            pytest.raises(UserError, match=r"did not make \(notes\.md\)"),
            storage.replaced_folder(tmp_path / "a", KIND, **flags),
        ):
            pass
        assert contents(tmp_path) == before

    def test_what_killed_processes_left_beside_it(self, tmp_path: Path) -> None:
        for name in ("a", ".a.partial", ".a.replaced"):
            made(tmp_path / name)
        with (
            storage.work_in(tmp_path / ".a.partial"),
            pytest.raises(UserError, match="/a is in use"),
        ):
            storage.clear_left_overs(tmp_path / "a")
        storage.clear_left_overs(tmp_path / "a")
        assert contents(tmp_path).keys() == {"a", "a/recipe.txt", f"a/{storage.MARKER}"}
        (tmp_path / ".a.partial").write_text("another's")
        storage.clear_left_overs(tmp_path / "a")
        assert (tmp_path / ".a.partial").exists()

    def test_two_at_once(self, tmp_path: Path) -> None:
        with storage.replaced_folder(tmp_path / "a", KIND) as first:
            (first / "recipe.txt").write_text("first")
            with (
                pytest.raises(UserError, match="/a is in use by another fmlm process"),
                storage.replaced_folder(tmp_path / "a", KIND) as second,
            ):
                (second / "recipe.txt").write_text("second")
        assert contents(tmp_path / "a")["recipe.txt"] == "first"
        assert contents(tmp_path).keys() == {"a", "a/recipe.txt", f"a/{storage.MARKER}"}

    def test_what_came_meanwhile_is_not_replaced(self, tmp_path: Path) -> None:
        with (
            pytest.raises(UserError, match="fmlm did not make it"),
            storage.replaced_folder(tmp_path / "a", KIND) as building,
        ):
            (building / "recipe.txt").write_text("new")
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / "precious").write_text("x")
        assert contents(tmp_path) == {"a": None, "a/precious": "x"}

    @pytest.mark.parametrize("end", [None, *WAYS_TO_END])
    def test_the_old_one_stays_until_the_new_one_is_whole(
        self, tmp_path: Path, end: BaseException | None
    ) -> None:
        made(tmp_path / "a")
        with (
            contextlib.suppress(*WAYS_OUT),
            storage.replaced_folder(tmp_path / "a", KIND, overwrite=True) as building,
        ):
            (building / "recipe.txt").write_text("new")
            assert contents(tmp_path / "a")["recipe.txt"] == "flour"
            if end:
                raise end
        assert contents(tmp_path / "a")["recipe.txt"] == ("flour" if end else "new")
        assert contents(tmp_path).keys() == {"a", "a/recipe.txt", f"a/{storage.MARKER}"}

    def test_a_folder_that_is_read_and_written_in_is_not_replaced(self, tmp_path: Path) -> None:
        made(tmp_path / "a")
        with (
            storage.work_in(tmp_path / "a"),
            pytest.raises(UserError, match="is in use by another fmlm process"),
            storage.replaced_folder(tmp_path / "a", KIND, overwrite=True),
        ):
            pass

    @pytest.mark.parametrize("kind", ["file", "link", "folder"])
    def test_what_others_put_where_it_is_built(self, tmp_path: Path, kind: str) -> None:
        place, precious = tmp_path / ".a.partial", tmp_path / "precious"
        precious.mkdir()
        (precious / "x").write_text("x")
        if kind == "file":
            place.write_text("precious")
        elif kind == "link":
            place.symlink_to(precious)
        else:
            place.mkdir()
            (place / "x").write_text("x")
        was = contents(tmp_path)
        with (
            pytest.raises(UserError, match=r"\.a\.partial"),
            storage.replaced_folder(tmp_path / "a", KIND),
        ):
            pass
        assert contents(tmp_path) == was

    def test_a_kill_while_it_was_being_replaced(self, tmp_path: Path) -> None:
        made(tmp_path / "a")
        (tmp_path / "a").rename(tmp_path / ".a.replaced")
        made(tmp_path / ".a.partial")
        with (
            pytest.raises(UserError, match="is not empty"),
            storage.replaced_folder(tmp_path / "a", KIND),
        ):
            pass
        assert contents(tmp_path / "a")["recipe.txt"] == "flour"  # it is back
        assert not (tmp_path / ".a.partial").exists()


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_have_the_modes_that_the_umask_asks_for(tmp_path: Path, umask: int) -> None:
    script = (
        "import os, sys\nimport numpy as np\nfrom pathlib import Path\nfrom safetensors.numpy import save_file\n"
        "from fmlm_cli import storage\n"
        f"os.umask({umask})\nroot = Path(sys.argv[1])\n"
        "with storage.complete_file(root / 'file') as file:\n    save_file({'a': np.ones(1)}, file)\n"
        "with storage.complete_folder(root / 'folder') as folder:\n"
        "    (folder / 'sub').mkdir()\n    save_file({'a': np.ones(1)}, folder / 'sub' / 'a')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}


def test_nothing_is_made_inside_of_what_a_command_made(tmp_path: Path) -> None:
    made(tmp_path / "a")
    made(tmp_path / "a" / "layers" / "b")  # as commands themselves may
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for inside in ("a/new", "a/layers/new", "link/new"):
        with pytest.raises(UserError, match=r"new lies inside .*/a, a cake of fmlm's: choose another --out"):
            storage.check_not_within(tmp_path / inside)
    for fine in ("new", "a", "link", "a/layers/b"):
        storage.check_not_within(tmp_path / fine)


def test_where_no_folder_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in /proc: that it is gone again is not waited out for ever."""

    def vanish(self: Path, *_: Any, **__: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(self))

    monkeypatch.setattr(Path, "mkdir", vanish)
    with pytest.raises(UserError, match=r"cannot make .*a: the disk takes no such name"):
        made(tmp_path / "a")


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_a_file_in_a_folder_that_is_not_there(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / folder / "a"
    with (
        pytest.raises(UserError, match=f"cannot write {target}: there is no folder {target.parent}; make it"),
        storage.complete_file(target),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

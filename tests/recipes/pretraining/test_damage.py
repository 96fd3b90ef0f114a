"""Every file of a checkpoint and of a token store, damaged in every way: named in a line, and nothing crashes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event, Note
from fmlm_cli.recipes import pretraining
from tests.recipes.runs import KINDS, Settings, assert_same, at_step, raise_error

pytestmark = pytest.mark.usefixtures("quick")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x10
    path.write_bytes(content)


DAMAGES = {"halved": halve, "emptied": empty, "one byte flipped": flip, "removed": Path.unlink}
A_FEW = [
    ("model.safetensors", "halved"),
    ("optimizer.safetensors", "one byte flipped"),
    ("state.json", "emptied"),
]


def files_of(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]


def check_checkpoint(settings: PretrainSettings, damage: Callable[[Path], None], name: Path | str) -> None:
    """Go on from a run whose newest checkpoint is damaged."""
    run = storage.RunDirectory(Path(str(settings.out)))
    damage(run.checkpoints / "step-6" / name)
    told: list[Event] = []
    result = pretraining.pretrain(settings, resume=True, emit=told.append)
    if str(name) == "state.json" and damage is Path.unlink:
        cautions = []  # as if it had never been finished: what a removal that was cut short leaves
    else:
        cautions = [
            event.text for event in told if isinstance(event, Caution) and "older checkpoint" in event.text
        ]
        assert len(cautions) == 1 and "\n" not in cautions[0]
        assert str(run.checkpoints / "step-6" / name) in cautions[0]
    assert Note("resuming after step 3 of 8") in told
    assert result.run.is_finished


@pytest.fixture
def begun(settings: Settings, tmp_path: Path) -> Callable[[str], PretrainSettings]:
    """`begun(out)`: a run that was killed after its checkpoint of step 6, and keeps that of step 3."""
    first = settings("begun", **KINDS["steps"])
    with pytest.raises(RuntimeError):
        pretraining.pretrain(first, emit=at_step(8, raise_error))

    def copied(out: str) -> PretrainSettings:
        shutil.copytree(tmp_path / "begun", tmp_path / out)
        return settings(out, **KINDS["steps"])

    return copied


def test_a_few_damaged_files_of_a_checkpoint(begun: Callable[[str], PretrainSettings]) -> None:
    for number, (name, damage) in enumerate(A_FEW):
        check_checkpoint(begun(f"run-{number}"), DAMAGES[damage], name)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damaged_file_of_a_checkpoint(
    begun: Callable[[str], PretrainSettings], settings: Settings, tmp_path: Path, damage: str
) -> None:
    names = files_of(tmp_path / "begun" / "checkpoints" / "step-6")
    assert len(names) >= 5
    whole = pretraining.pretrain(settings("whole", **KINDS["steps"]))
    for number, name in enumerate(names):
        changed = begun(f"run-{number}")
        check_checkpoint(changed, DAMAGES[damage], name)
        assert_same(pretraining.pretrain(changed, resume=True), whole)


# ---------------------------------------------------------------- token stores

# What `datasets.load_from_disk` reads and fmlm does not; what says whose the folder is, and no more; and a file
# without hash of which only what the tokenizer's fingerprint holds is looked at.
UNREAD = ("dataset_dict.json", "dataset_info.json", "state.json", storage.MARKER, "tokenizer_config.json")


def check_store(settings: Settings, store: Path, damage: Callable[[Path], None], name: Path) -> None:
    """Train on a store with a damaged file: refused, by the file's name, before anything is written."""
    damage(store / name)
    changed = settings("run", **KINDS["steps"], **{"data.stores": [str(store)]})
    with pytest.raises(UserError) as caught:
        pretraining.pretrain(changed)
    said = str(caught.value)
    assert "\n" not in said and (name.name in said or str(store) in said), said
    assert not Path(str(changed.out)).exists()


def _copied(tiny_store: Path, tmp_path: Path, number: int) -> Path:
    return Path(shutil.copytree(tiny_store, tmp_path / f"store-{number}"))


def test_a_few_damaged_files_of_a_store(settings: Settings, tiny_store: Path, tmp_path: Path) -> None:
    arrow = next(name for name in files_of(tiny_store) if name.suffix == ".arrow" and "train" in name.parts)
    cases = [
        ("removed", Path(storage.MANIFEST)),
        ("one byte flipped", arrow),
        ("halved", Path("tokenizer/tokenizer.json")),
    ]
    for number, (damage, name) in enumerate(cases):
        check_store(settings, _copied(tiny_store, tmp_path, number), DAMAGES[damage], name)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damaged_file_of_a_store(
    settings: Settings, tiny_store: Path, tmp_path: Path, damage: str
) -> None:
    names = [name for name in files_of(tiny_store) if name.name not in UNREAD]
    assert {name.suffix for name in names} == {".json", ".npy", ".arrow"}
    for number, name in enumerate(names):
        check_store(settings, _copied(tiny_store, tmp_path, number), DAMAGES[damage], name)

"""A task's model that is gone or damaged though its cells are done: said, with the way to have it again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fmlm_cli.config import FinetuneSettings, build, nested
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event
from fmlm_cli.recipes import finetuning
from fmlm_cli.recipes.shared.checkpoints import find_checkpoint
from tests.recipes.finetuning.test_finetune import sentences, write_jsonl


def change(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\1\1\1\1")


@pytest.mark.parametrize("damage", [shutil.rmtree, change])
def test_a_lost_model_is_made_again(
    small_encoder: Path, tmp_path: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    rows = write_jsonl(tmp_path / "rivers" / "rows.jsonl", sentences(16, 1))
    fixed = {
        "checkpoint": str(small_encoder),
        "out": str(tmp_path / "tuned"),
        "tasks.train": str(rows),
        "tasks.dev": str(rows),
        "seeds": 2,
        "training.epochs": 1,
    }
    settings = build(FinetuneSettings, nested(fixed))
    finetuning.finetune(settings)
    model = tmp_path / "tuned" / "models" / "rivers"
    before = (model / "model.safetensors").read_bytes()
    damage(model)
    if model.is_dir():
        with pytest.raises(UserError, match="has changed since it was written"):
            find_checkpoint(str(model))
    told: list[Event] = []
    finetuning.finetune(settings, resume=True, emit=told.append)
    (said,) = [e.text for e in told if isinstance(e, Caution) and "makes the model again" in e.text]
    assert said.startswith(str(model))
    shutil.rmtree(said.partition(": remove ")[2].partition(", and")[0])
    finetuning.finetune(settings, resume=True)
    assert (model / "model.safetensors").read_bytes() == before

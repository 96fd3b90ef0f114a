"""A task's model that is gone or damaged though its cells are done: said, with the way to have it again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fmlm_cli.config import FinetuneSettings, build, nested
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event, Scoreboard
from fmlm_cli.recipes import finetuning
from fmlm_cli.recipes.shared.checkpoints import find_checkpoint
from tests.recipes.finetuning.test_finetune import sentences, write_jsonl


def change(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\1\1\1\1")


def two_cells(encoder: Path, folder: Path) -> FinetuneSettings:
    rows = write_jsonl(folder / "rivers" / "rows.jsonl", sentences(16, 1))
    fixed = {
        "checkpoint": str(encoder),
        "out": str(folder / "tuned"),
        "tasks.train": str(rows),
        "tasks.dev": str(rows),
        "seeds": 2,
        "training.epochs": 1,
    }
    return build(FinetuneSettings, nested(fixed))


@pytest.mark.parametrize("damage", [shutil.rmtree, change])
def test_a_lost_model_is_made_again(
    small_encoder: Path, tmp_path: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    settings = two_cells(small_encoder, tmp_path)
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


def test_what_others_put_beside_a_model_stays_when_a_better_one_comes(
    small_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    scores = iter([0.5, 0.5, 0.75, 0.75])  # after the epoch, and at the end
    monkeypatch.setattr(
        "fmlm_cli.recipes.finetuning.cells.compute_metrics",
        lambda *_: dict.fromkeys(("accuracy", "score"), next(scores)),
    )
    settings, model = two_cells(small_encoder, tmp_path), tmp_path / "tuned" / "models" / "rivers"

    put: list[Path] = []

    def emit(event: Event) -> None:
        if model.is_dir() and not put:
            put.append(model / "onnx" / "model.onnx")
            put[0].parent.mkdir()
            put[0].write_bytes(b"mine")

    finetuning.finetune(settings, emit=emit)
    assert json.loads((model / "finetuned.json").read_text())["cell"] == "rivers/default/seed-1"
    assert (model / "onnx" / "model.onnx").read_bytes() == b"mine"
    find_checkpoint(str(model))


@pytest.mark.parametrize("damage", [shutil.rmtree, change])
def test_a_worse_cells_model_does_not_take_a_lost_ones_place(
    small_encoder: Path, tmp_path: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    # Both cells score the same, and of equal ones the first is kept.
    monkeypatch.setattr(
        "fmlm_cli.recipes.finetuning.cells.compute_metrics", lambda *_: {"accuracy": 0.5, "score": 0.5}
    )
    settings, model = two_cells(small_encoder, tmp_path), tmp_path / "tuned" / "models" / "rivers"
    told: list[Event] = []

    def emit(event: Event) -> None:
        told.append(event)
        if isinstance(event, Scoreboard) and event.done == 1 and not damaged:
            damage(model)
            damaged.append(model)

    damaged: list[Path] = []
    finetuning.finetune(settings, emit=emit)
    (said,) = [e.text for e in told if isinstance(e, Caution) and "makes the model again" in e.text]
    assert said.startswith(str(model))
    cell = tmp_path / "tuned" / "cells" / "rivers" / "default" / "seed-0"
    assert f": remove {cell}, and" in said
    assert not model.exists() or "seed-0" in (model / "finetuned.json").read_text()
    shutil.rmtree(cell)
    finetuning.finetune(settings, resume=True)
    assert json.loads((model / "finetuned.json").read_text())["cell"] == "rivers/default/seed-0"
    find_checkpoint(str(model))

"""Of the cells that are done no model stays in memory beside the next one's."""

import weakref
from pathlib import Path

import pytest
import torch

from fmlm_cli.config import FinetuneSettings, build, nested
from fmlm_cli.recipes import finetuning
from fmlm_cli.recipes.finetuning.cells import CellRun
from tests.recipes.finetuning.test_finetune import sentences, write_jsonl


@pytest.mark.usefixtures("no_collector")
def test_a_cell_s_model_goes_with_the_cell(
    small_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    monkeypatch.setattr("fmlm_cli.recipes.finetuning.run._report", lambda plan, emit: None)
    weights: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    training_run = CellRun.training_run

    def watched(run: CellRun, identity: str) -> object:
        alive.append(sum(weight() is not None for weight in weights))
        weights.append(weakref.ref(next(iter(run.model.parameters()))))
        return training_run(run, identity)

    monkeypatch.setattr(CellRun, "training_run", watched)
    files = {
        name: str(write_jsonl(tmp_path / f"{name}.jsonl", sentences(24, 1))) for name in ("train", "dev")
    }
    asked = {
        "checkpoint": str(small_encoder),
        "out": str(tmp_path / "tuned"),
        "seeds": 3,
        "training.epochs": 1,
    }
    finetuning.finetune(build(FinetuneSettings, nested({**asked, "tasks.name": "x"}), {"tasks": files}))
    assert alive == [0, 0, 0]
    assert not any(weight() is not None for weight in weights)

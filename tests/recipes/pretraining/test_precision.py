"""Runs whose weights compute in bfloat16: what they leave, and that they learn the same."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fmlm_cli.events import Event, Facts
from fmlm_cli.recipes import pretraining
from tests.recipes.runs import KINDS, TINY, Settings, assert_same, at_step, raise_error

pytestmark = pytest.mark.usefixtures("quick", "bfloat16")
LOW = {"precision": "bfloat16-weights"}


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a processor that plays it."""
    monkeypatch.setattr("fmlm_cli.engine.runtime._computes_in_bfloat16", lambda: True)


def test_an_interrupted_run_ends_as_if_it_never_was(settings: Settings) -> None:
    kind = {**KINDS["dropout"], **LOW}
    whole, parts = pretraining.pretrain(settings("whole", **kind)), settings("parts", **kind)
    for step, resume in ((4, False), (6, True)):
        with pytest.raises(RuntimeError):
            pretraining.pretrain(parts, resume=resume, emit=at_step(step, raise_error))
    assert_same(pretraining.pretrain(parts, resume=True), whole)


def test_what_is_saved_is_float32_and_finer_than_what_computes(settings: Settings) -> None:
    told: list[Event] = []
    run = pretraining.pretrain(settings(**KINDS["steps"], **LOW), emit=told.append).run
    folders: list[Path] = [run.final, run.checkpoints / "step-8"]
    for folder in folders:
        tensors = load_file(folder / "model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        assert any((tensor.bfloat16().float() != tensor).any() for tensor in tensors.values())
    moments = load_file(run.checkpoints / "step-8" / "optimizer.safetensors")
    assert {tensor.dtype for tensor in moments.values()} == {torch.float32}
    (facts,) = [event.rows for event in told if isinstance(event, Facts) and "device" in event.rows]
    assert "bfloat16 weights, kept in float32 by the optimizer" in facts["device"]
    assert "bfloat16 weights" in (run.final / "README.md").read_text()


def test_it_evaluates_what_computes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[torch.dtype] = set()
    run_held_out = pretraining.run.LiveRun.evaluate

    def noted(self: Any, *arguments: Any) -> Any:
        for held_out in self.held_out.values():
            score = held_out.objective.score

            def scored(model: Any, batch: Any, score: Any = score) -> Any:
                seen.add(model.pretrained.dtype)
                return score(model, batch)

            object.__setattr__(held_out.objective, "score", scored)
        return run_held_out(self, *arguments)

    monkeypatch.setattr(pretraining.run.LiveRun, "evaluate", noted)
    pretraining.pretrain(settings(**KINDS["steps"], **LOW))
    assert seen == {torch.bfloat16}


@pytest.mark.slow
def test_curves_are_not_told_apart_from_those_of_float32(settings: Settings, tmp_path: Path) -> None:
    """300 steps of three seeds: a seed's precisions differ by less than seeds do, and not in one direction."""
    wide = {**TINY, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    (tmp_path / "model" / "config.json").write_text(json.dumps(wide))
    chosen = {
        "budget.steps": 300,
        "batch.size": 16,
        "batch.micro_size": 16,
        "optimizer.learning_rate": 5e-3,
        "evaluation.every_steps": 100,
        "evaluation.max_rows": None,
        "checkpoint.every_steps": 300,
        "data.max_rows": None,
    }
    losses: dict[str, list[list[float]]] = {"float32": [], "bfloat16-weights": []}
    for precision, curves in losses.items():
        for seed in range(3):
            made = settings(f"{precision}-{seed}", **chosen, precision=precision, seed=seed)
            records = pretraining.pretrain(made).records
            curves.append([record["eval_loss"] for record in records if "eval_loss" in record])
    ends = [curve[-1] for curve in losses["float32"]]
    spread = statistics.stdev(ends)
    assert losses["float32"][0][0] - statistics.mean(ends) > 5 * spread  # something was learnt
    between = [low[-1] - exact[-1] for exact, low in zip(*losses.values(), strict=True)]
    for exact, low in zip(*losses.values(), strict=True):
        assert low == pytest.approx(exact, abs=spread)
    assert abs(statistics.mean(between)) < 4.303 * statistics.stdev(between) / math.sqrt(
        3
    )  # Student's t, 95 %

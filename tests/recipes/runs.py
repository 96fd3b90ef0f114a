"""Tiny runs, what differs between them, and what it means for two of them to be the same."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings
from fmlm_cli.events import Event, Trained
from fmlm_cli.recipes.pretraining.run import PretrainResult
from tests.engine.small_run import TIMING_FIELDS

Settings = Callable[..., PretrainSettings]


@contextmanager
def without_pictures() -> Iterator[pytest.MonkeyPatch]:
    """Neither the device's peak is measured, nor what a comparison will take, nor any loss curve drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
        patch.setattr("fmlm_cli.recipes.comparison.run._tell_time", lambda *_: None)
        patch.setattr(
            "fmlm_cli.recipes.pretraining.finish.draw_loss_curve",
            lambda records, folder: folder / "loss.png",
        )
        yield patch


TINY = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}

# Logging, evaluating and saving at different steps, so that a resumed run starts in the middle of each.
RHYTHM = {
    "batch.size": 8,
    "batch.micro_size": 5,
    "sequence_length": 32,
    "logging.every_steps": 2,
    "evaluation.every_steps": 4,
    "evaluation.max_rows": 6,
    "checkpoint.every_steps": 3,
    "data.max_rows": 24,
}

KINDS: dict[str, dict[str, Any]] = {
    "steps": {"budget.steps": 8},
    "tokens": {"budget.tokens": 1900.0},
    "epochs": {"budget.epochs": 2.5},
    "dropout": {"budget.steps": 8, "model.dropout": 0.2},
    "scope batch": {"budget.steps": 8, "masking.scope": "batch", "masking.segments": 4, "model.dropout": 0.1},
    "several random masks": {
        "budget.steps": 8,
        "masking.strategy": "random",
        "masking.masks_per_sequence": 2,
    },
    "spans": {"budget.steps": 8, "masking.strategy": "fully-explored-span", "masking.options": {"p": 0.5}},
    "bernoulli words": {
        "budget.steps": 8,
        "masking.strategy": "whole-word",
        "masking.count": "bernoulli",
        "masking.rate": 0.2,
    },
    "K changes between cycles": {
        "budget.steps": 30,
        "masking.segments": 4,
        "masking.schedule": {"shape": "linear", "final_rate": 0.5},
    },
    "the rate changes between steps": {
        "budget.steps": 8,
        "masking.strategy": "span",
        "masking.schedule": {"shape": "step", "final_rate": 0.4},
    },
    "no packing": {"budget.steps": 8, "data.packing": "none", "optimizer.schedule": "cosine"},
    "concat": {"budget.steps": 8, "data.packing": "concat", "masking.corruption.draw": "independent"},
}


def weights(run: storage.RunDirectory) -> bytes:
    return (run.final / "model.safetensors").read_bytes()


def timeless(result: PretrainResult) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k not in TIMING_FIELDS} for record in result.records]


def assert_same(got: PretrainResult, wanted: PretrainResult) -> None:
    assert weights(got.run) == weights(wanted.run)
    assert timeless(got) == timeless(wanted)
    lines = (got.run.metrics).read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(got.records)
    assert (got.run.final / "config.json").read_bytes() == (wanted.run.final / "config.json").read_bytes()


def at_step(step: int, act: Callable[[], None]) -> Callable[[Event], None]:
    """An `emit` that acts when this step's record is told, just before the step's evaluation and checkpoint."""

    def emit(event: Event) -> None:
        if isinstance(event, Trained) and event.record["step"] == step:
            act()

    return emit


def raise_error() -> None:
    raise RuntimeError("the power went out")


def assert_close(got: PretrainResult, wanted: PretrainResult) -> None:
    mine, theirs = (load_file(r.run.final / "model.safetensors") for r in (got, wanted))
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=0, atol=1e-5)
    for name in ("eval_loss", "eval_accuracy"):
        assert got.records[-1][name] == pytest.approx(wanted.records[-1][name], rel=1e-5)

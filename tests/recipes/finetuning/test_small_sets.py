"""Small sets are trained long enough to learn something of them, and what is too short is said."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.config import LEAST_STEPS, FinetuneSettings, Hyperparameters, build, nested
from fmlm_cli.events import Caution, Event, Scoreboard
from fmlm_cli.recipes import finetuning
from fmlm_cli.recipes.finetuning.grid import BERT_GRID, FEW_STEPS, epochs_of, find_points, too_few_steps
from tests.recipes.finetuning.test_finetune import sentences, write_jsonl

SIZES = st.integers(1, 100_000)
BATCHES = st.integers(1, 64)


@given(SIZES, BATCHES)
def test_three_passes_or_as_many_as_make_enough_steps(examples: int, batch_size: int) -> None:
    training = Hyperparameters(batch_size=batch_size).settled(1e-5)
    epochs, steps = epochs_of(training, examples), -(-examples // batch_size)
    assert epochs == 3 or (epochs - 1) * steps < LEAST_STEPS <= epochs * steps
    assert epochs >= 3 and too_few_steps(training, examples) is None
    assert training.settled(1.0) == training  # as it is written to config.yaml, and read again


@given(SIZES, BATCHES, st.integers(1, 9))
def test_passes_that_were_asked_for_are_made(examples: int, batch_size: int, epochs: int) -> None:
    training = Hyperparameters(batch_size=batch_size, epochs=epochs).settled(1e-5)
    assert epochs_of(training, examples) == epochs
    few = epochs * -(-examples // batch_size) < FEW_STEPS
    assert (too_few_steps(training, examples) is not None) == few
    least = Hyperparameters(batch_size=batch_size, epochs=epochs, min_steps=300).settled(1e-5)
    assert epochs_of(least, examples) * -(-examples // batch_size) >= 300


def test_a_grid_of_passes_is_what_it_says() -> None:
    settings = FinetuneSettings(checkpoint=("x",), grid="paper")
    found = {epochs_of(point.training, 64) for point in find_points(settings, "bert", 1e-5)}
    assert found == set(BERT_GRID["epochs"])


def tune(encoder: Path, folder: Path, **changed: Any) -> tuple[Any, list[Event]]:
    rows = write_jsonl(folder / "rivers" / "rows.jsonl", sentences(16, 1))
    fixed = {
        "checkpoint": str(encoder),
        "out": str(folder / "tuned"),
        "tasks.train": str(rows),
        "tasks.dev": str(rows),
        "seeds": 1,
    }
    events: list[Event] = []
    settings = build(FinetuneSettings, nested({**fixed, **changed}))
    return finetuning.finetune(settings, emit=events.append), events


def test_many_short_passes_are_measured_fifty_times_at_most(
    small_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one too, be it no multiple of the others."""
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    report, events = tune(small_encoder, tmp_path, **{"training.min_steps": 121, "training.batch_size": 16})
    (cell,) = report.results.cells
    assert (cell.epochs, cell.steps) == (121, 121)
    measured = [record["epoch"] for record in cell.history]
    assert measured == [*range(3, 121, 3), 121]
    assert cell.examples_per_second == pytest.approx(16 * 121 / cell.train_seconds, rel=0.1)
    assert not [event for event in events if isinstance(event, Caution) and "too few" in event.text]


def test_too_few_steps_are_said_before_training(
    small_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    _, events = tune(small_encoder, tmp_path, **{"training.epochs": 2})
    place = next(
        n for n, event in enumerate(events) if isinstance(event, Caution) and "too few" in event.text
    )
    assert events[place] == Caution(
        "rivers: 2 passes over 16 examples are 2 steps, too few to learn much: leave out epochs, for "
        f"{LEAST_STEPS} steps, or set training.min_steps"
    )
    assert place < next(n for n, event in enumerate(events) if isinstance(event, Scoreboard))

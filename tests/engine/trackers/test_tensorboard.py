"""Event files as TensorBoard itself reads them."""

import math
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli.engine.records import MetricsLog
from fmlm_cli.engine.trackers.sink import Tracked
from fmlm_cli.engine.trackers.tracker import RunFacts, values_of
from fmlm_cli.events import Evaluated, Event, Remarked, Trained
from tests.engine.trackers.events import read_events

tensorboard = pytest.importorskip("fmlm_cli.engine.trackers.tensorboard")


def trained(step: int, loss: float) -> Trained:
    return Trained({"step": step, "loss": loss, "memory_gib": 0.5}, 9, 1.0)


def evaluated(step: int, loss: float) -> Evaluated:
    return Evaluated({"step": step, "evaluation": "domain", "eval_loss": loss, "unigram_loss": 6.0})


class Run:
    """The sinks of a run that may be begun again in the same folder."""

    def __init__(self, folder: Path, step: int = 0, seen: int = -1) -> None:
        self.told: list[Event] = []
        self.log = MetricsLog(folder / "metrics.jsonl")
        facts = RunFacts(folder, "fmlm", {"seed": 3, "a.b": None, "rate": math.inf, "on": True})
        self.sink = Tracked(
            "TensorBoard", tensorboard.open_tracker(facts, self.told.append), self.log, self.told.append
        )
        for sink in (self.log, self.sink):
            sink.rewind(step, seen)

    def write(self, *records: Any) -> None:
        for record in records:
            for sink in (self.log, self.sink):
                sink.write(record)


def test_records_become_scalars_texts_and_hyper_parameters(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write(
        evaluated(0, 8.0), trained(1, 7.5), Remarked({"step": 2, "remark": "spike", "loss": 9.0}, "a spike")
    )
    events = read_events(tmp_path)  # before it is finished: every record is in the file at once
    assert events["train/loss"] == [(1, 7.5)]
    assert events["system/memory_gib"] == [(1, 0.5)]
    assert events["eval/domain/loss"] == [(0, 8.0)]
    assert events["eval/domain/unigram_loss"] == [(0, 6.0)]
    assert events["remark"] == [(2, b'spike {"loss": 9.0}')]
    assert "_hparams_/session_start_info" in events
    run.sink.finish(complete=True)
    assert "tensorboard --logdir" in run.told[-1].text


def test_a_run_that_is_resumed_has_each_step_once(tmp_path: Path) -> None:
    """Whether the evaluation of the step that it goes on from was made, and whatever came after it."""
    Run(tmp_path).write(evaluated(0, 8.0), *(trained(step, float(step)) for step in range(1, 8)))
    run = Run(tmp_path, 4, 0)
    assert read_events(tmp_path)["train/loss"] == [(step, float(step)) for step in range(1, 5)]
    run.write(evaluated(4, 7.0), trained(5, -5.0))
    run = Run(tmp_path, 4, 0)  # killed before the next checkpoint: the evaluation is void too
    events = read_events(tmp_path)
    assert events["eval/domain/loss"] == [(0, 8.0)]
    run.write(evaluated(4, 7.0), trained(5, 5.5))
    events = read_events(tmp_path)
    assert events["eval/domain/loss"] == [(0, 8.0), (4, 7.0)]
    assert events["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 5.5)]


def test_one_that_is_logged_from_its_middle_on_has_all_records(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.rewind(0, -1)
    for record in (evaluated(0, 8.0), trained(1, 7.0), trained(2, 6.0)):
        log.write(record)
    Run(tmp_path, 2, 0).write(trained(3, 5.0))
    events = read_events(tmp_path)
    assert events["train/loss"] == [(1, 7.0), (2, 6.0), (3, 5.0)]
    assert events["eval/domain/loss"] == [(0, 8.0)]


def test_one_that_begins_anew_in_its_folder_starts_from_nothing(tmp_path: Path) -> None:
    Run(tmp_path).write(evaluated(0, 8.0), trained(1, 7.0))
    Run(tmp_path).write(evaluated(0, 8.5))
    events = read_events(tmp_path)
    assert not events["train/loss"] and events["eval/domain/loss"] == [(0, 8.5)]


def test_a_failure_is_told_once_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    run.write(trained(1, 7.0))

    def full(*arguments: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboard.EventFileWriter, "add_event", full)
    run.write(trained(2, 6.0), trained(3, 5.0))
    run.sink.finish(complete=True)
    [caution] = run.told
    assert "TensorBoard takes no more records" in caution.text and "No space left" in caution.text
    assert [record["step"] for record in run.log.records] == [1, 2, 3]


def test_names_of_figures() -> None:
    record = {"step": 4, "loss": 1.0, "tokens_per_second": 9.0}
    assert values_of(record) == {"train/loss": 1.0, "system/tokens_per_second": 9.0}
    assert values_of({"step": 4, "eval_loss": 2.0}) == {"eval/loss": 2.0}
    assert values_of({"step": 4, "remark": "settings changed"}) == {"remark": "settings changed"}

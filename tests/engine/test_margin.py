"""How early a run under --max-minutes asks itself to stop: what saving takes, a step's length, and some to end."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from fmlm_cli.engine import signals
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.ranks.protocol import OneProcess
from fmlm_cli.engine.signals import StopRequest
from fmlm_cli.errors import UserError
from fmlm_cli.events import ignore
from fmlm_cli.recipes.shared.training import train_to_the_end
from tests.engine.small_run import Run, Squares

ENDING = signals._ENDING_SECONDS


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[StopRequest]:
    """A process that began ten seconds ago, and may take two minutes."""
    monkeypatch.setattr(signals, "_BEGAN", time.monotonic() - 10)
    with signals.stoppable() as stop:
        signals.limit_process(2.0, None)
        stop.patient = True
        yield stop
        stop.signal = None


def rings_in() -> float:
    return signal.getitimer(signal.ITIMER_REAL)[0]


def test_the_clock_leaves_what_is_kept_free(limited: StopRequest) -> None:
    assert rings_in() == pytest.approx(110 - ENDING, abs=1)
    limited.keep_free(30)
    assert rings_in() == pytest.approx(80 - ENDING, abs=1)
    limited.keep_free(0.5)  # it may be less again
    assert rings_in() == pytest.approx(109.5 - ENDING, abs=1)
    signals.note_that_work_has_ended()
    assert rings_in() == 0


def test_it_rings_at_once_where_less_is_left_and_once(limited: StopRequest) -> None:
    limited.keep_free(1000)
    time.sleep(0.05)
    assert limited.signal == signal.SIGALRM and limited.exit_code == signals.TEMPFAIL
    limited.keep_free(1)
    assert rings_in() == 0


def test_a_limit_in_which_nothing_could_be_done_is_refused(limited: StopRequest) -> None:
    limited.check_limit(119 - ENDING)
    with pytest.raises(
        UserError, match=r"^--max-minutes 2 is too short: 120 s of it are kept for saving: give 5"
    ):
        limited.check_limit(120 - ENDING)


# ---------------------------------------------------------------- what a run keeps free


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    monkeypatch.setattr("fmlm_cli.engine.loop.count_flops", lambda forward: 1)


@pytest.mark.parametrize(("background", "times"), [(False, 1), (True, 2), ("auto", 2)])
def test_saving_takes_as_long_as_the_longest_and_a_thread_is_waited_for(
    tmp_path: Path, background: Any, times: int
) -> None:
    """By three times the weights at a cautious pace before there is one."""
    run = Run(tmp_path, OneProcess(), background=background)
    save, taking = run.save, iter((0.3, 0.0))
    object.__setattr__(run.checkpoints, "save_model", lambda *given: (time.sleep(next(taking)), save(*given)))
    size = sum(p.numel() * p.element_size() for p in run.model.parameters())
    assert run.run.seconds_to_save == pytest.approx(3 * size / 50e6)
    kept = []
    for step in (1, 2):
        run.run.save(TrainState(step))
        run.checkpoints.settle()
        longest = run.checkpoints._saving.longest
        assert longest is not None and longest >= 0.3
        kept.append(run.run.seconds_to_save / longest)
    assert kept == [times, times]


class SlowOnce(Squares):
    """Takes its time at the batches of one step."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if batch.rows[0] // 100 == 4:
            time.sleep(0.2)
        return super().loss(model, batch)


def test_a_step_may_be_as_long_as_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[float] = []
    monkeypatch.setattr(StopRequest, "keep_free", lambda self, seconds: kept.append(seconds))
    monkeypatch.setattr("fmlm_cli.engine.checkpoint.Checkpoints.seconds_to_save", lambda self, model: 100.0)
    run = Run(tmp_path, OneProcess())
    object.__setattr__(run.run, "objective", SlowOnce())
    train_to_the_end(run.run, ignore)
    first, *steps, last = kept  # the first step, in which layers are compiled, says nothing of the others
    assert (first, last) == (100.0, 0.0) and len(steps) == 5
    assert all(seconds > 100 for seconds in steps) and steps[2] > 100.6  # step 4, of three batches

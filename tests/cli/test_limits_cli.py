"""--max-minutes and --requeue-exit-code: whatever a run is at when its time is up, it ends in order."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fmlm_cli import storage
from fmlm_cli.cli.app import app
from fmlm_cli.engine import signals
from fmlm_cli.recipes.pretraining import run as pretraining
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from tests.recipes.runs import TINY, without_pictures

SMALL = [
    "--set",
    "batch.size=4",
    "--set",
    "evaluation.max_rows=4",
    "--set",
    "data.max_rows=8",
    "--steps",
    "22",
]
OFTEN = [
    "--set",
    "evaluation.every_steps=5",
    "--set",
    "checkpoint.every_steps=10",
    "--set",
    "checkpoint.keep=9",
]
Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with without_pictures():
        yield


@pytest.fixture
def call(tiny_store: Path, tmp_path: Path) -> Call:
    model = tmp_path / "config.json"
    model.write_text(json.dumps(TINY))

    def invoke(*words: str, out: str = "run") -> Result:
        flags = ["--data", str(tiny_store), "--model", str(model), "--out", str(tmp_path / out)]
        return CliRunner().invoke(app, ["pretrain", *SMALL, *OFTEN, *flags, *words])

    return invoke


def time_is_up() -> None:
    """The clock rings within the next line of whoever called this."""
    assert signals._of_process is not None
    signals._of_process.keep_free(1e9)
    time.sleep(0.05)


def in_place_of(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: Callable[..., bool]) -> None:
    """Let time be up at the beginning of a function, once, when its arguments are these."""
    wrapped, rung = getattr(owner, name), []

    def act(*arguments: Any, **named: Any) -> Any:
        if not rung and when(*arguments):
            rung.append(1)
            time_is_up()
        return wrapped(*arguments, **named)

    monkeypatch.setattr(owner, name, act)


AT: dict[str, tuple[Any, str, Callable[..., bool], str]] = {
    "planning": (pretraining, "plan_run", lambda *_: True, "; nothing half-written was left"),
    "the first evaluation": (LiveRun, "evaluate", lambda _, step, stop: step == 0, " at step 0 of 22; there is"),
    "a step": (LiveRun, "before_step", lambda _, step: step == 13, " at step 12 of 22; saved in"),
    "an evaluation": (LiveRun, "evaluate", lambda _, step, stop: step == 15, " at step 15 of 22; saved in"),
    "a checkpoint": (LiveRun, "save_model", lambda _, of, at: "step-20" in at.name, " at step 20 of 22; saved in"),
    "the export": (LiveRun, "save_model", lambda _, of, at: "final" in at.name, "; nothing half-written was left"),
}  # fmt: skip


@pytest.mark.parametrize("at", AT)
def test_time_is_up(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    owner, name, when, said = AT[at]
    in_place_of(monkeypatch, owner, name, when)
    done = call("--max-minutes", "6000")
    assert done.exit_code == 75, done.output
    line = done.output.strip().splitlines()[-1]
    assert line.startswith(f"stopped by --max-minutes 6000{said}") and "--resume" in line
    assert not [path for path in tmp_path.rglob(".*") if path.name != storage.MARKER]
    resumed = call("--resume", "--max-minutes", "6000")
    assert resumed.exit_code == 0, resumed.output
    if at == "an evaluation":  # as good as any
        assert call(out="whole").exit_code == 0
        assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def weights(run: Path) -> bytes:
    return (run / "final" / "model.safetensors").read_bytes()


def test_a_scheduler_may_want_another_code(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    in_place_of(monkeypatch, LiveRun, "before_step", lambda _, step: step == 13)
    assert call("--max-minutes", "6000", "--requeue-exit-code", "99").exit_code == 99
    before = LiveRun.before_step

    def ask(self: LiveRun, step: int) -> None:
        before(self, step)
        if step == 18:
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(LiveRun, "before_step", ask)
    done = call("--resume", "--requeue-exit-code", "99")
    assert done.exit_code == 99 and "stopped by SIGUSR1 at step" in done.output


def test_it_is_counted_from_the_start_of_the_process(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_BEGAN", time.monotonic() - 60)
    done = call("--max-minutes", "1")
    assert done.exit_code == 75 and "nothing half-written was left" in done.output


def test_the_margin_is_what_saving_takes(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guessed by the bytes before the first checkpoint, and then by the longest one."""
    kept: list[float] = []
    monkeypatch.setattr(signals.StopRequest, "keep_free", lambda self, seconds: kept.append(seconds))
    monkeypatch.setattr("fmlm_cli.engine.checkpoint._CAUTIOUS_RATE", 1000.0)
    save = LiveRun.save_model

    def slowly(self: LiveRun, of: Any, folder: Path) -> None:
        time.sleep(0.4 if "step-10" in folder.name else 0.0)
        save(self, of, folder)

    monkeypatch.setattr(LiveRun, "save_model", slowly)
    assert call("--max-minutes", "6000").exit_code == 0
    parameters = sum(_sizes(call))
    assert kept[1] == pytest.approx(3 * 4 * parameters / 1000)  # weights and two moments, float32
    assert max(kept[1:10]) < 1.1 * kept[1]
    assert min(kept[15:22]) > 0.4 and kept[21] < 10
    assert kept[-1] == 0


def _sizes(call: Call) -> Sequence[int]:
    from transformers import AutoModelForMaskedLM

    out = call("--resume").output
    folder = next(word for word in out.split() if word.endswith("/final"))
    return [p.numel() for p in AutoModelForMaskedLM.from_pretrained(folder).parameters()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-minutes", "0"), "--max-minutes 0: give more than 0"),
        (("--max-minutes", "nan"), "--max-minutes nan: give more than 0"),
        (("--requeue-exit-code", "0"), "--requeue-exit-code 0: give 1 to 255"),
    ],
)
def test_what_is_no_limit(call: Call, words: Sequence[str], said: str) -> None:
    done = call(*words)
    assert done.exit_code == 2 and said in done.output


def test_a_limit_that_leaves_nothing_beside_saving(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called again and again it would never come further."""
    monkeypatch.setattr(signals, "_BEGAN", time.monotonic())
    monkeypatch.setattr("fmlm_cli.engine.checkpoint._CAUTIOUS_RATE", 100.0)
    done = call("--max-minutes", "1.5")
    assert done.exit_code == 2 and "--max-minutes 1.5 is too short" in done.output


def test_of_several_processes_one_keeps_the_time() -> None:
    """The others end with its code, and none of them by a clock of its own."""
    with signals.stoppable() as stop:
        signals.limit_process(60.0, None)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        signals.leave_the_clock_to_another()
        stop.keep_free(10.0)
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        stop.signal = signal.SIGALRM
        assert stop.exit_code == signals.TEMPFAIL

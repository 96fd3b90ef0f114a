"""How fast a run would train and what memory it would take, by its first steps, which leave no trace."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.loop import train
from fmlm_cli.engine.records import Record
from fmlm_cli.engine.signals import NEVER
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Note, Progress, Trained, ignore
from fmlm_cli.recipes.pretraining.live_run import LiveRun, runtime_of, settle_attention_of
from fmlm_cli.recipes.pretraining.micro_size import with_micro_size
from fmlm_cli.recipes.pretraining.planning.plan import plan_run

TIMED_STEPS, TIMED_SECONDS = 20, 20.0  # whichever are over first
_WARM_UP = 2  # steps in which memory is taken and kernels are chosen
_BETWEEN_LOOKS = 4  # steps that a GPU is given before one looks at the clock, for which it has to wait


@dataclass(frozen=True)
class Timed:
    """What some steps took: tokens a second, padding not counted, seconds a step, bytes of memory at most."""

    tokens_per_second: float
    seconds_per_step: float
    memory: int


class _Speedometer:
    """The sink that keeps when each step was over, and tells how far the timing has come."""

    def __init__(self, steps: int, emit: Emit) -> None:
        self._steps, self._emit = steps, emit
        self._arrived: list[tuple[int, float, float]] = []  # tokens and seconds so far, GiB

    def rewind(self, step: int, evaluated: int) -> None:
        """Nothing is kept."""

    def write(self, record: Record) -> None:
        """Take the figures of a training record."""
        if isinstance(record, Trained):
            figures = record.record
            self._arrived.append((int(figures["tokens"]), figures["seconds"], figures["memory_gib"]))
            self._emit(Progress("timing a few steps", figures["step"], self._steps, "steps"))

    @property
    def timed(self) -> Timed:
        """Of all steps but those that warm up, where there are others."""
        first = min(_WARM_UP, len(self._arrived) - 1)
        before = self._arrived[first - 1] if first else (0, 0.0, 0.0)
        tokens, seconds, gib = self._arrived[-1]
        seconds = max(seconds - before[1], 1e-9)
        steps = len(self._arrived) - first
        return Timed((tokens - before[0]) / seconds, seconds / steps, round(gib * 2**30))


def with_timed_budget(settings: PretrainSettings, world: int, emit: Emit) -> PretrainSettings:
    """The settings with a budget of minutes as one of tokens too, by the first steps of such a run.

    One that has been turned into tokens already, as that of a run that is gone on with, stays what it was.
    Raises `UserError` where several processes (`world`) would share the work: one alone cannot time that.
    """
    budget = settings.budget
    if budget.minutes is None or budget.model_dump(exclude={"minutes"}, exclude_none=True):
        return settings
    if world > 1:
        raise UserError(
            f"a budget of {budget.minutes:g} minutes is timed by one process, and there are {world}: give "
            "steps, tokens or epochs, and --max-minutes for a limit of time"
        )
    speed = time_steps(settings, emit).tokens_per_second
    tokens = float(f"{budget.minutes * 60 * speed:.2g}")
    emit(Note(f"{budget.minutes:g} minutes are about {tokens:,.0f} tokens here, at {speed:,.0f} a second"))
    found = {"minutes": budget.minutes, "tokens": tokens}
    return build(PretrainSettings, settings.model_dump(), {"budget": found})


def time_steps(
    settings: PretrainSettings, emit: Emit, *, clock: Callable[[], float] = time.monotonic
) -> Timed:
    """What a step of a run of these settings takes, by some of its first. Nothing is written."""
    timed = nested({"budget.steps": TIMED_STEPS, "logging.every_steps": 1, "evaluation.max_rows": 1})
    runtime = runtime_of(settings)
    plan = plan_run(build(PretrainSettings, settings.model_dump(), timed), ignore)
    settle_attention_of(plan, runtime)
    plan = with_micro_size(plan, runtime, ignore)
    live = LiveRun(plan, storage.RunDirectory(Path(settings.out or "")), runtime, ignore)
    speedometer = _Speedometer(TIMED_STEPS, emit)
    training = live.training_run(speedometer)
    looks = _BETWEEN_LOOKS if runtime.device.type == "cuda" else 1
    end = clock() + TIMED_SECONDS
    training = replace(
        training,
        rhythm=replace(training.rhythm, checkpoint=TIMED_STEPS + 1, evaluate=looks),
        keeps_checkpoints=False,
        evaluate=lambda step, stop: [],
        enough=lambda: clock() > end,
    )
    train(training, TrainState(0), NEVER)
    emit(Progress("timing a few steps", TIMED_STEPS, TIMED_STEPS, "steps"))
    return speedometer.timed

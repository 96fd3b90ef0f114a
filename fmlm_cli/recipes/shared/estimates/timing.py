"""What training takes, by some steps of it, which leave no trace."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.device.power import PowerMeter
from fmlm_cli.engine.loop import TrainingRun, train
from fmlm_cli.engine.records import Record
from fmlm_cli.engine.signals import NEVER
from fmlm_cli.events import Emit, Progress, Trained

TIMED_STEPS, TIMED_SECONDS = 20, 20.0  # whichever are over first
_WARM_UP = 2  # steps in which memory is taken and kernels are chosen
BETWEEN_LOOKS = 4  # steps that a GPU is given before one looks at the clock, for which it has to wait
TASK = "timing a few steps"


@dataclass(frozen=True)
class Timed:
    """What some steps took.

    Tokens a second, padding not counted; seconds a step; bytes of memory at most; watts that a GPU drew, None
    where that is not known.
    """

    tokens_per_second: float
    seconds_per_step: float
    memory: int
    watts: float | None = None


@dataclass(frozen=True)
class StepTimes:
    """Steps in their order. `seconds`, `tokens`: of each; the first one's seconds begin with the training.

    `memory`, `watts`: see `Timed`.
    """

    seconds: tuple[float, ...]
    tokens: tuple[int, ...]
    memory: int
    watts: float | None = None

    @property
    def first(self) -> int:
        """The number (from 0) of the first step that is none of warming up, where there are others."""
        return min(_WARM_UP, len(self.seconds) - 1)

    @property
    def timed(self) -> Timed:
        """All steps but those that warm up, together."""
        seconds, tokens = sum(self.seconds[self.first :]), sum(self.tokens[self.first :])
        return Timed(
            tokens / max(seconds, 1e-9), seconds / (len(self.seconds) - self.first), self.memory, self.watts
        )


class _Stopwatch:
    """The sink that keeps when each step was over, and tells how far the timing has come."""

    def __init__(self, steps: int, emit: Emit, task: str) -> None:
        self._steps, self._emit, self._task = steps, emit, task
        self._begun = time.perf_counter()
        self.arrived: list[tuple[float, int]] = []  # seconds and tokens so far
        self._gib = 0.0

    def rewind(self, step: int, evaluated: int) -> None:
        """Nothing is kept."""

    def write(self, record: Record) -> None:
        """Take the figures of a training record."""
        if isinstance(record, Trained):
            figures = record.record
            self.arrived.append((time.perf_counter() - self._begun, int(figures["tokens"])))
            self._gib = figures["memory_gib"]
            self._emit(Progress(self._task, min(len(self.arrived), self._steps), self._steps, "steps"))

    def times(self, watts: float | None) -> StepTimes:
        """Of all steps that have arrived."""
        before = [(0.0, 0), *self.arrived[:-1]]
        seconds = tuple(now - then for (now, _), (then, _) in zip(self.arrived, before, strict=True))
        tokens = tuple(now - then for (_, now), (_, then) in zip(self.arrived, before, strict=True))
        return StepTimes(seconds, tokens, round(self._gib * 2**30), watts)


def time_training(
    training: TrainingRun,
    emit: Emit,
    *,
    steps: int = TIMED_STEPS,
    seconds: float = TIMED_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    task: str = TASK,
) -> StepTimes:
    """Train for so many steps, or a few more than fit in so many seconds. Nothing is evaluated or written."""
    looks = BETWEEN_LOOKS if training.runtime.device.type == "cuda" else 1
    stopwatch, end = _Stopwatch(steps, emit, task), clock() + seconds
    arrived = stopwatch.arrived
    timed = replace(
        training,
        sinks=(stopwatch,),
        rhythm=replace(training.rhythm, log=1, checkpoint=training.total_steps + 1, evaluate=looks),
        keeps_checkpoints=False,
        evaluate=lambda step, stop: [],
        enough=lambda: bool(arrived) and (len(arrived) >= steps or clock() > end),
    )
    with PowerMeter(training.runtime.device) as power:
        train(timed, TrainState(0), NEVER)
    emit(Progress(task, steps, steps, "steps"))
    return stopwatch.times(power.watts)

"""How fast a run would train, by its first steps, which leave no trace."""

from dataclasses import replace
from pathlib import Path

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.loop import train
from fmlm_cli.engine.records import Record
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.signals import NEVER
from fmlm_cli.events import Emit, Progress, Trained, ignore
from fmlm_cli.recipes.pretraining.live_run import LiveRun, settle_attention_of
from fmlm_cli.recipes.pretraining.micro_size import with_micro_size
from fmlm_cli.recipes.pretraining.planning.plan import plan_run


class _Speedometer:
    """The sink that keeps the latest speed, and tells how far the timing has come."""

    def __init__(self, steps: int, emit: Emit) -> None:
        self.tokens_per_second, self._steps, self._emit = 0.0, steps, emit

    def rewind(self, step: int, evaluated: int) -> None:
        """Nothing is kept."""

    def write(self, record: Record) -> None:
        """Take the speed of a training record."""
        if isinstance(record, Trained):
            self.tokens_per_second = float(record.record["tokens_per_second"])
            self._emit(Progress("timing a few steps", record.record["step"], self._steps, "steps"))


def measure_speed(settings: PretrainSettings, steps: int, emit: Emit) -> float:
    """Tokens a second that a run of these settings trains on, by its first `steps`. Nothing is written."""
    timed = nested({"budget.steps": steps, "logging.every_steps": 1, "evaluation.max_rows": 1})
    runtime = Runtime.resolve(
        settings.device,
        settings.precision,
        deterministic=settings.deterministic,
        threads=settings.speed.threads,
    )
    plan = plan_run(build(PretrainSettings, settings.model_dump(), timed), ignore)
    settle_attention_of(plan, runtime)
    plan = with_micro_size(plan, runtime, ignore)
    live = LiveRun(plan, storage.RunDirectory(Path(settings.out or "")), runtime, ignore)
    speedometer = _Speedometer(steps, emit)
    training = live.training_run(speedometer)
    rhythm = replace(training.rhythm, checkpoint=steps)
    training = replace(training, rhythm=rhythm, keeps_checkpoints=False, evaluate=lambda step, stop: [])
    train(training, TrainState(0), NEVER)
    return speedometer.tokens_per_second

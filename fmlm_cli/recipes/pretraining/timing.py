"""How fast a run would train and what memory it would take, by its first steps, which leave no trace."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.engine.evaluation import evaluate
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Note, ignore
from fmlm_cli.model.ending import let_go
from fmlm_cli.recipes.pretraining.live_run import LiveRun, runtime_of, settle_attention_of
from fmlm_cli.recipes.pretraining.micro_size import with_micro_size
from fmlm_cli.recipes.pretraining.planning.plan import plan_run
from fmlm_cli.recipes.shared.estimates.timing import TIMED_SECONDS, TIMED_STEPS, Timed, time_training
from fmlm_cli.recipes.shared.held_out import HeldOut

_EVALUATED, _EVALUATED_SECONDS = 8, 4.0  # batches of a held-out text, and seconds for them


@dataclass(frozen=True)
class RunTimes:
    """What a run's first steps took, as `Timed`; and seconds.

    `starting`: to plan it and have the model on its device. `evaluating`: one evaluation of all held-out
    text. `memory`: bytes at most, of all that.
    """

    steps: Timed
    starting: float
    evaluating: float
    memory: int


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


def time_steps(settings: PretrainSettings, emit: Emit) -> Timed:
    """What a step of a run of these settings takes, by some of its first. Nothing is written."""
    return time_run(settings, emit, evaluates=False).steps


def time_run(
    settings: PretrainSettings,
    emit: Emit,
    *,
    evaluates: bool = True,
    steps: int = TIMED_STEPS,
    seconds: float = TIMED_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> RunTimes:
    """What a run of these settings takes, by some of its first steps and of its evaluation.

    `steps`, `seconds`: as many steps as are timed, at most. Nothing is written.
    """
    begun = time.monotonic()
    # All of the model is trained, as in most steps of a run that begins with the head alone.
    few = {"budget.steps": TIMED_STEPS, "optimizer.head_warmup_steps": 0}
    timed = nested({**few, **({} if evaluates else {"evaluation.max_rows": 1})})
    runtime = runtime_of(settings)
    plan = plan_run(build(PretrainSettings, settings.model_dump(), timed), ignore)
    settle_attention_of(plan, runtime)
    plan = with_micro_size(plan, runtime, ignore)
    live = LiveRun(plan, storage.RunDirectory(Path(settings.out or "")), runtime, ignore)
    training = live.training_run()
    starting = time.monotonic() - begun
    times = time_training(training, emit, steps=steps, seconds=seconds, clock=clock).timed
    evaluating = sum(_time_evaluation(live, held_out) for held_out in live.held_out.values() if evaluates)
    memory = max(times.memory, runtime.peak_memory())
    let_go(live.model)
    return RunTimes(times, starting, evaluating, memory)


def _time_evaluation(live: LiveRun, held_out: HeldOut) -> float:
    """Seconds that a held-out text takes, by its first batches; the very first is left out if it can be."""
    model = live.working.catch_up() if live.working else live.model
    seconds: list[float] = []
    rows: list[int] = []
    end = time.monotonic() + _EVALUATED_SECONDS
    for batch in islice(held_out.batches(model.attention.layout), _EVALUATED):
        begun = time.perf_counter()
        evaluate(model, held_out.objective, [batch], live.runtime)
        seconds.append(time.perf_counter() - begun)
        rows.append(len(batch.rows))
        if time.monotonic() > end:
            break
    first = min(1, len(rows) - 1)
    return sum(seconds[first:]) / sum(rows[first:]) * len(held_out.reader)

"""What a run would take, before a night is spent on it: time, memory, disk, cost, by a few steps of it."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, ignore
from fmlm_cli.recipes.pretraining.live_run import runtime_of, settle_attention_of
from fmlm_cli.recipes.pretraining.micro_size import with_micro_size
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan, plan_run
from fmlm_cli.recipes.pretraining.report.describe import cautions, describe_run
from fmlm_cli.recipes.pretraining.timing import RunTimes, time_run
from fmlm_cli.recipes.shared.estimates.estimate import (
    BYTES_OF_MOMENTS,
    BYTES_OF_WEIGHT,
    DISK_RATE,
    Estimate,
    tell_estimate,
)
from fmlm_cli.recipes.shared.estimates.timing import TIMED_SECONDS, TIMED_STEPS, Timed

BY_TWO, BY_ONE = (2, 4), (1,)  # micro-batches of the steps that are timed in place of a longer one


@dataclass(frozen=True)
class TimedRun:
    """A run that was planned, and what it would take."""

    plan: RunPlan
    estimate: Estimate


def estimate_run(
    settings: PretrainSettings, *, price_per_hour: float | None = None, emit: Emit = ignore
) -> Estimate:
    """Plan a run as `pretrain` does and time a few steps of it, in a minute or less. Nothing is written.

    Raises `UserError` for whatever `pretrain` would refuse, and for text that has not been tokenized.
    """
    if settings.out is None:
        raise UserError("no output folder: give --out RUN, which a dry run leaves alone")
    if settings.text.sources:
        raise UserError(
            "a dry run writes nothing, so that it tokenizes no text: `fmlm inspect` estimates that, and a "
            "store of it (`fmlm tokenize`) can be given as --data"
        )
    timed = time_planned(settings, emit)
    plan, estimate = timed.plan, replace(timed.estimate, price_per_hour=price_per_hour)
    describe_run(plan, runtime_of(plan.settings), plan.model.attention.meaning, emit)
    for caution in cautions(plan):
        emit(caution)
    evaluations = _evaluations(plan) if plan.evaluated else 0
    tell_estimate(
        estimate,
        emit,
        out=settings.out,
        more={"evaluations": f"{evaluations:,}", "checkpoints": f"{_checkpoints(plan):,}"},
        ending="this trains into",
        remedy="fewer checkpoints (checkpoint.keep)",
    )
    return estimate


def time_planned(
    settings: PretrainSettings,
    emit: Emit,
    *,
    steps: int = TIMED_STEPS,
    seconds: float = TIMED_SECONDS,
    shorter: Sequence[int] = BY_TWO,
) -> TimedRun:
    """A run's plan and what it would take, by at most so many steps; nothing is told but how far that is.

    A step of many micro-batches is timed by two `shorter` ones: it takes what they differ by, as often as it
    has micro-batches more. Or by one, as if the optimizer's part grew with the batch too.
    """
    runtime, begun = runtime_of(settings), time.monotonic()
    plan = _plan(settings, runtime, steps=1 if settings.budget.minutes else None)
    planning = time.monotonic() - begun
    times = _timed(plan, emit, steps, seconds, shorter)
    if settings.budget.minutes:
        made = max(1, round(60 * settings.budget.minutes / times.steps.seconds_per_step))
        plan = _plan(settings, runtime, steps=made)
    return TimedRun(plan, _estimate(plan, times, runtime, starting=max(planning, times.starting)))


def _plan(settings: PretrainSettings, runtime: Runtime, steps: int | None) -> RunPlan:
    """The plan, of so many steps where the budget does not say it yet."""
    chosen = {} if steps is None else {"budget": {"steps": steps}}
    plan = plan_run(build(PretrainSettings, settings.model_dump(), chosen), ignore)
    settle_attention_of(plan, runtime)
    return with_micro_size(plan, runtime, ignore)


def _timed(plan: RunPlan, emit: Emit, steps: int, seconds: float, shorter: Sequence[int]) -> RunTimes:
    """A step of the plan, by itself or by shorter ones."""
    size, micro = plan.settings.batch.size or 1, plan.micro_size
    if size <= shorter[-1] * micro:
        return time_run(plan.settings, emit, steps=steps, seconds=seconds)
    masks = plan.strategy.masks_per_sequence
    sizes = [-(-micro * number // masks) * masks for number in shorter]
    found = [
        time_run(
            build(PretrainSettings, plan.settings.model_dump(), nested({"batch.size": rows})),
            emit,
            evaluates=rows == sizes[-1],
            steps=steps,
            seconds=seconds,
        )
        for rows in sizes
    ]
    most = found[-1].steps
    a_row = most.seconds_per_step / sizes[-1]
    if len(found) > 1:
        a_row = max(most.seconds_per_step - found[0].steps.seconds_per_step, 0.0) / (sizes[-1] - sizes[0])
    whole = most.seconds_per_step + a_row * (size - sizes[-1])
    tokens = most.tokens_per_second * most.seconds_per_step / sizes[-1] * size
    memory = max(times.memory for times in found)
    return replace(found[-1], steps=Timed(tokens / whole, whole, memory, most.watts), memory=memory)


def _estimate(plan: RunPlan, times: RunTimes, runtime: Runtime, starting: float) -> Estimate:
    training = plan.total_steps * times.steps.seconds_per_step
    saved = (_checkpoints(plan) * _bytes_of_checkpoint(plan) + _bytes_of_model(plan)) / DISK_RATE
    return Estimate(
        parts={
            "start": starting,
            "training": training,
            "evaluation": _evaluations(plan) * times.evaluating,
            "saving": saved,
        },
        steps=plan.total_steps,
        tokens=round(training * times.steps.tokens_per_second),
        tokens_per_second=times.steps.tokens_per_second,
        memory=times.memory + _copied(plan, runtime),
        disk=_disk(plan),
        watts=times.steps.watts,
    )


def _evaluations(plan: RunPlan) -> int:
    """How often the held-out text is evaluated: before the first step, now and then, and at the end."""
    return 1 + math.ceil(plan.total_steps / (plan.settings.evaluation.every_steps or 1))


def _checkpoints(plan: RunPlan) -> int:
    """How many are written, the one of the end among them."""
    return math.ceil(plan.total_steps / (plan.settings.checkpoint.every_steps or 1))


def _copied(plan: RunPlan, runtime: Runtime) -> int:
    """Bytes of the copy that checkpoints are written from in the background, where those are counted."""
    in_background = plan.settings.checkpoint.background is not False and _checkpoints(plan) > 1
    return _bytes_of_checkpoint(plan) if in_background and runtime.device.type == "cpu" else 0


def _bytes_of_model(plan: RunPlan) -> int:
    return BYTES_OF_WEIGHT * sum(p.numel() for p in plan.model.parameters())


def _bytes_of_checkpoint(plan: RunPlan) -> int:
    trained = sum(p.numel() for p in plan.model.parameters() if p.requires_grad)
    return _bytes_of_model(plan) + BYTES_OF_MOMENTS * trained


def _disk(plan: RunPlan) -> int:
    """Bytes of the checkpoints that are kept, of one more while it is written, and of the final model."""
    asked = plan.settings.checkpoint
    kept = min(asked.keep, _checkpoints(plan))
    stays = plan.total_steps // asked.keep_every if asked.keep_every else 0
    return (kept + 1 + stays) * _bytes_of_checkpoint(plan) + _bytes_of_model(plan)

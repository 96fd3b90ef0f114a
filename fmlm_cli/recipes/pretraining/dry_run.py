"""What a run would take, before a night is spent on it: time, memory, disk, cost, by a few steps of it."""

from dataclasses import dataclass
from pathlib import Path

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Facts, Note, counted, data_size, duration, ignore
from fmlm_cli.recipes.pretraining.live_run import runtime_of, settle_attention_of
from fmlm_cli.recipes.pretraining.micro_size import with_micro_size
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan, plan_run
from fmlm_cli.recipes.pretraining.report.describe import cautions, describe_run
from fmlm_cli.recipes.pretraining.timing import Timed, time_steps

_BYTES_OF_WEIGHT, _BYTES_OF_MOMENTS = 4, 8  # of a parameter on the disk: itself, and AdamW's two moments
_FEW, _MORE = 2, 4  # micro-batches of a step that is timed in place of a longer one


@dataclass(frozen=True)
class RunEstimate:
    """What a run would take. `seconds`: of training, evaluation and saving not counted. Sizes in bytes.

    `price`: of all hours, in the unit in which an hour's was given; None where it was not.
    """

    steps: int
    tokens: int
    tokens_per_second: float
    seconds: float
    memory: int
    disk: int
    price: float | None


def estimate_run(
    settings: PretrainSettings, *, price_per_hour: float | None = None, emit: Emit = ignore
) -> RunEstimate:
    """Plan a run as `pretrain` does and time a few steps of it, in a minute or less. Nothing is written.

    A step of many micro-batches is timed by two shorter ones: it takes what they differ by, as often as it
    has micro-batches more. Raises `UserError` for whatever `pretrain` would refuse, and for text that has
    not been tokenized.
    """
    if settings.out is None:
        raise UserError("no output folder: give --out RUN, which a dry run leaves alone")
    if settings.text.sources:
        raise UserError(
            "a dry run writes nothing, so that it tokenizes no text: `fmlm inspect` estimates that, and a "
            "store of it (`fmlm tokenize`) can be given as --data"
        )
    runtime = runtime_of(settings)
    plan = _plan(settings, runtime, steps=1 if settings.budget.minutes else None)
    timed = _timed(plan, emit)
    if settings.budget.minutes:
        steps = max(1, round(60 * settings.budget.minutes / timed.seconds_per_step))
        plan = _plan(settings, runtime, steps=steps)
    estimate = _estimate(plan, timed, price_per_hour)
    describe_run(plan, runtime, plan.model.attention.meaning, emit)
    for caution in cautions(plan):
        emit(caution)
    _tell(estimate, plan, emit)
    return estimate


def _plan(settings: PretrainSettings, runtime: Runtime, steps: int | None) -> RunPlan:
    """The plan, of so many steps where the budget does not say it yet."""
    chosen = {} if steps is None else {"budget": {"steps": steps}}
    plan = plan_run(build(PretrainSettings, settings.model_dump(), chosen), ignore)
    settle_attention_of(plan, runtime)
    return with_micro_size(plan, runtime, ignore)


def _timed(plan: RunPlan, emit: Emit) -> Timed:
    """A step of the plan, by itself or by two shorter ones."""
    size, micro = plan.settings.batch.size or 1, plan.micro_size
    if size <= _MORE * micro:
        return time_steps(plan.settings, emit)
    masks = plan.strategy.masks_per_sequence
    sizes = [-(-micro * number // masks) * masks for number in (_FEW, _MORE)]
    few, more = (
        time_steps(build(PretrainSettings, plan.settings.model_dump(), nested({"batch.size": rows})), emit)
        for rows in sizes
    )
    a_row = (more.seconds_per_step - few.seconds_per_step) / (sizes[1] - sizes[0])
    seconds = more.seconds_per_step + max(a_row, 0.0) * (size - sizes[1])
    tokens = more.tokens_per_second * more.seconds_per_step / sizes[1] * size
    return Timed(tokens / seconds, seconds, max(few.memory, more.memory))


def _estimate(plan: RunPlan, timed: Timed, price_per_hour: float | None) -> RunEstimate:
    seconds = plan.total_steps * timed.seconds_per_step
    return RunEstimate(
        steps=plan.total_steps,
        tokens=round(plan.total_steps * timed.seconds_per_step * timed.tokens_per_second),
        tokens_per_second=timed.tokens_per_second,
        seconds=seconds,
        memory=timed.memory,
        disk=_disk(plan),
        price=None if price_per_hour is None else price_per_hour * seconds / 3600,
    )


def _disk(plan: RunPlan) -> int:
    """Bytes of the checkpoints that are kept, of one more while it is written, and of the final model."""
    weights = sum(p.numel() for p in plan.model.parameters())
    trained = sum(p.numel() for p in plan.model.parameters() if p.requires_grad)
    checkpoint = _BYTES_OF_WEIGHT * weights + _BYTES_OF_MOMENTS * trained
    asked = plan.settings.checkpoint
    assert asked.every_steps
    kept = min(asked.keep, max(1, plan.total_steps // asked.every_steps))
    stays = plan.total_steps // asked.keep_every if asked.keep_every else 0
    return (kept + 1 + stays) * checkpoint + _BYTES_OF_WEIGHT * weights


def _tell(estimate: RunEstimate, plan: RunPlan, emit: Emit) -> None:
    a_step = estimate.seconds / estimate.steps
    evaluations = plan.total_steps // (plan.settings.evaluation.every_steps or 1) + 1
    rows = {
        "speed": f"{estimate.tokens_per_second:,.0f} tokens/s, {a_step:.3g} s a step",
        "time": f"{duration(estimate.seconds)} of training; {counted(evaluations, 'evaluation')} and saving "
        "come on top",
        "tokens": f"{estimate.tokens:,} forwarded",
        "memory": f"{data_size(estimate.memory)} at most, by a few steps",
        "disk": f"{data_size(estimate.disk)} at most",
    }
    if estimate.price is not None:
        rows["cost"] = f"{estimate.price:,.2f} for the hours of training"
    emit(Facts("what it would take here, on one process", rows))
    free = storage.free_space(Path(plan.settings.out or "."))
    if free < estimate.disk:
        emit(Caution(f"only {data_size(free)} are free on that disk: fewer checkpoints (checkpoint.keep)"))
    emit(Note(f"nothing was written; without --dry-run this trains into {plan.settings.out}"))

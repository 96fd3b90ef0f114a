"""What each part of a comparison takes: its runs, its measurements of gradients, its fine-tuned models."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fmlm_cli.config import CompareSettings, PretrainSettings, build, nested
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.events import Emit, Progress
from fmlm_cli.model.classifier import EncoderCheckpoint
from fmlm_cli.recipes.comparison.arms import base_segments
from fmlm_cli.recipes.comparison.coverage import covered
from fmlm_cli.recipes.comparison.draft import request_of
from fmlm_cli.recipes.comparison.estimating.gradients_timed import time_gradients
from fmlm_cli.recipes.comparison.plan import COVERED_ROWS, ComparisonPlan, Item
from fmlm_cli.recipes.comparison.work import corruption_of, finetune_settings
from fmlm_cli.recipes.finetuning.estimating.costs import CheckpointCosts
from fmlm_cli.recipes.finetuning.estimating.run import plan_for_model
from fmlm_cli.recipes.pretraining.dry_run import BY_ONE, BY_TWO, TimedRun, time_planned
from fmlm_cli.recipes.shared.estimates.timing import TIMED_SECONDS, TIMED_STEPS


@dataclass(frozen=True)
class Effort:
    """How long is measured: so many steps, or the seconds for them; seconds for gradients.

    `compiles`: whether layers are compiled as in the runs, which takes a minute on a GPU. `shorter`: by how
    many micro-batches a longer step is timed. `flops`: of a micro-batch on a CPU, at most, or of one row.
    """

    steps: int
    seconds: float
    gradients: float
    compiles: bool = True
    shorter: tuple[int, ...] = BY_TWO
    flops: float = math.inf


THOROUGH = Effort(TIMED_STEPS, TIMED_SECONDS / 2, 6.0)
QUICK = Effort(6, 2.0, 1.0, compiles=False, shorter=BY_ONE, flops=3e11)  # a few seconds of a few cores


def time_baseline(plan: ComparisonPlan, effort: Effort, emit: Emit) -> TimedRun:
    """The baseline's first run, for all: arms forward as many rows in a step."""
    settings = plan.run_settings(plan.baseline, plan.settings.first_seed, plan.root, plan.total_steps)
    if not effort.compiles and settings.speed.compile == "auto":
        settings = build(PretrainSettings, settings.model_dump(), nested({"speed.compile": False}))
    rows = _rows_within(effort.flops, plan)
    if rows < plan.size and float32_runtime(plan.settings).device.type == "cpu":
        asked = settings.batch.micro_size
        micro = int(rows) if asked == "auto" else min(asked, int(rows))
        settings = build(PretrainSettings, settings.model_dump(), nested({"batch.micro_size": micro}))
    return time_planned(settings, emit, steps=effort.steps, seconds=effort.seconds, shorter=effort.shorter)


def _rows_within(flops: float, plan: ComparisonPlan) -> float:
    """How many rows so many operations train: 6 for each parameter and token, forward and backward."""
    parameters = sum(p.numel() for p in plan.base.model.parameters())
    length = plan.base.stream.sources[0].reader.plan.sequence_length
    return max(1.0, flops / (6 * parameters * length))


def share_of_run(plan: ComparisonPlan, item: Item) -> float:
    """What an item trains, as a share of the baseline's run."""
    size = item.arm.overrides.get("batch.size", plan.size)
    return float((item.steps or plan.total_steps) / plan.total_steps * size / plan.size)


def time_coverage(plan: ComparisonPlan, items: Sequence[Item]) -> float:
    """Seconds of all coverage, by one pass of the first strategy's masks."""
    reader, begun = plan.base.stream.sources[0].reader, time.monotonic()
    first = items[0]
    covered(first.arm.strategy, reader, 1, COVERED_ROWS, plan.settings.first_seed)
    return (time.monotonic() - begun) * sum(plan.covered_passes(item.arm) for item in items)


def time_variance(plan: ComparisonPlan, items: Sequence[Item], effort: Effort, emit: Emit) -> float:
    """Seconds of all measurements of gradients, by some of them."""
    settings = plan.settings
    emit(Progress("timing a few gradients", 0, 0, ""))
    runtime = float32_runtime(settings)
    each = time_gradients(
        plan.base.model.to(runtime.device),
        plan.base.stream.sources[0].reader,
        plan.measured_store,
        unit=settings.variance.unit,
        segments=base_segments(settings),
        corruption=corruption_of(plan, items[0].corruption),
        request=request_of(settings),
        seed=plan.seed_of_measurement(items[0]),
        device=runtime.device,
        seconds=effort.gradients,
    )
    emit(Progress("timing a few gradients", 1, 1, ""))
    return each * plan.gradients_measured * len(items)


def float32_runtime(settings: CompareSettings) -> Runtime:
    """What gradients are measured on."""
    return Runtime.resolve(settings.run.device, "float32", threads=settings.run.speed.threads)


@dataclass(frozen=True)
class Tuning:
    """The fine-tuned models: seconds of all, and bytes of memory at most."""

    seconds: float
    memory: int


def time_downstream(plan: ComparisonPlan, items: Sequence[Item], effort: Effort, emit: Emit) -> Tuning:
    """By the model that the runs begin with, for each task."""
    encoder = _encoder(plan)
    seconds, memory = 0.0, 0
    by_task: dict[str, list[Item]] = {}
    for item in items:
        by_task.setdefault(item.subject, []).append(item)
    for of_task in by_task.values():
        asked = finetune_settings(plan, of_task[0], plan.root, plan.root / of_task[0].name)
        begun = time.monotonic()
        tuning = plan_for_model(asked, encoder, plan.base.store.tokenizer)
        planning = time.monotonic() - begun
        (candidate,) = tuning.candidates.values()
        costs = CheckpointCosts(tuning, candidate, emit, effort.steps, effort.seconds / len(by_task))
        each = planning + sum(costs.cost(cell).seconds for cell in tuning.cells)
        seconds, memory = seconds + each * len(of_task), max(memory, costs.memory)
    return Tuning(seconds, memory)


def _encoder(plan: ComparisonPlan) -> EncoderCheckpoint:
    """The encoder that the runs begin with: a checkpoint's, which may bring code of its own, or a new one."""
    origin = plan.base.origin
    if origin is None:
        return EncoderCheckpoint.of_model(plan.base.start.model, plan.base.name)
    trusted = plan.settings.run.model.trust_remote_code
    return EncoderCheckpoint.read(
        origin.folder, name=origin.name, adapter=origin.adapter, trust_remote_code=trusted
    )

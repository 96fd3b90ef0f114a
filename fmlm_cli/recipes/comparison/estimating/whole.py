"""What a comparison takes in all."""

from collections import defaultdict
from collections.abc import Sequence

from fmlm_cli.events import Emit
from fmlm_cli.recipes.comparison.estimating.parts import (
    THOROUGH,
    Effort,
    float32_runtime,
    share_of_run,
    time_baseline,
    time_coverage,
    time_downstream,
    time_variance,
)
from fmlm_cli.recipes.comparison.plan import ComparisonPlan, Item, Kind
from fmlm_cli.recipes.shared.estimates.estimate import BYTES_OF_WEIGHT, Estimate

_RUNS: tuple[Kind, ...] = ("race", "sweep", "rerun")


def estimate_plan(
    plan: ComparisonPlan, items: Sequence[Item], emit: Emit, effort: Effort = THOROUGH
) -> Estimate:
    """What some items of a plan would take on one process. Nothing is written."""
    by_kind: dict[Kind, list[Item]] = defaultdict(list)
    for item in items:
        by_kind[item.kind].append(item)
    parts, steps, tokens, speed, watts = {}, 0, 0, 0.0, None
    memory, disk = 0, BYTES_OF_WEIGHT * sum(p.numel() for p in plan.base.model.parameters())
    if of_coverage := by_kind["coverage"]:
        parts["coverage"] = time_coverage(plan, of_coverage)
    runs = [item for kind in _RUNS for item in by_kind[kind]]
    if runs:
        run = time_baseline(plan, effort, emit).estimate
        training = run.parts["training"] + run.parts["evaluation"]
        beside, of_model = run.seconds - training, disk
        for kind in _RUNS:
            shares = [share_of_run(plan, item) for item in by_kind[kind]]
            if shares:
                parts[kind] = sum(shares) * training + len(shares) * beside
        whole = sum(share_of_run(plan, item) for item in runs)
        steps, tokens = round(whole * run.steps), round(whole * run.tokens)
        speed, memory, watts = run.tokens_per_second, run.memory, run.watts
        disk = run.disk + len(runs) * of_model
    if of_variance := by_kind["variance"]:
        parts["gradient variance"] = time_variance(plan, of_variance, effort, emit)
        memory = max(memory, float32_runtime(plan.settings).peak_memory())
    if of_tasks := by_kind["downstream"]:
        tuning = time_downstream(plan, of_tasks, effort, emit)
        parts["downstream"] = tuning.seconds
        memory = max(memory, tuning.memory)
    return Estimate(parts, steps, tokens, speed, memory, disk, watts)

"""What of a comparison may not be what its user wants, said before the work begins."""

from collections import Counter
from collections.abc import Iterator

from fmlm_cli.analysis.report.findings.learning import few_seeds
from fmlm_cli.analysis.statistics import ROWS_TO_TRUST
from fmlm_cli.events import Caution
from fmlm_cli.masking import random_counterpart
from fmlm_cli.recipes.comparison.arms import Arm, Sweep
from fmlm_cli.recipes.comparison.plan import ComparisonPlan
from fmlm_cli.recipes.pretraining.report.describe import FEW_PASSES

FEW_ROWS = f"of fewer than {ROWS_TO_TRUST} rows, intervals are too narrow where rows differ much in noise"
_REMEDY = "fewer rows, with --set run.data.max_rows=N, or a larger budget would change that"


def cautions_of(plan: ComparisonPlan) -> Iterator[Caution]:
    """Arms with little to differ in, few seeds or rows, sweeps that cannot tell causes apart, or compare."""
    if plan.total_steps:
        yield from (Caution(text, FEW_PASSES) for text in _few_passes(plan))
    few = (
        few_seeds(len(plan.seeds)) if plan.total_steps and {"race", "downstream"} & set(plan.parts) else None
    )
    if few:
        yield Caution(few, "few-seeds")
    if plan.sweep:
        yield from (Caution(text, "confounded-sweep") for text in _confounded(plan, plan.sweep))
        yield from (Caution(text, "sweep-without-baseline") for text in _alone(plan, plan.sweep))
    yield from (Caution(text, "few-rows") for text in _few_rows(plan))
    yield from (Caution(text, "mostly-variance") for text in _mostly_variance(plan))


def _few_rows(plan: ComparisonPlan) -> Iterator[str]:
    asked = plan.settings.variance.sequences
    if "variance" in plan.parts and asked < ROWS_TO_TRUST:
        yield f"variance.sequences={asked}: {FEW_ROWS}"


def _mostly_variance(plan: ComparisonPlan) -> Iterator[str]:
    """Whether gradient variance takes longer than the race, whose rows go through the model by the batch."""
    items = plan.items
    gradients = plan.gradients_measured * sum(item.kind == "variance" for item in items)
    rows = plan.total_steps * plan.size * sum(item.kind in ("race", "sweep") for item in items)
    if gradients > rows > 0:
        yield (
            f"gradient variance takes longer than the runs: {gradients:,} gradients, one row at a time, and "
            f"{rows:,} rows in the runs; --set variance.checkpoints=[late] measures less, --only race nothing"
        )


def _few_passes(plan: ComparisonPlan) -> Iterator[str]:
    for arm in plan.arms:
        meaning = _of_few_passes(plan, arm)
        if meaning:
            yield f"{arm.label} makes {plan.passes(arm):.2f} passes over the data: {meaning} ({_REMEDY})"
    points = [arm for _, arm in plan.sweep.points] if plan.sweep else []
    told = Counter(meaning for arm in points if (meaning := _of_few_passes(plan, arm)))
    for meaning, number in told.items():
        yield f"{number} of {len(points)} points of the sweep make too few passes: {meaning} ({_REMEDY})"


def _of_few_passes(plan: ComparisonPlan, arm: Arm) -> str | None:
    """What it means for an arm with scope epoch to make less than two passes; None where it makes more."""
    if arm.strategy.exploration != "full" or arm.strategy.cycle == 1:
        return None
    # In the first pass over the data its masks are those of scope epoch.
    random = random_counterpart(arm.strategy.name) or "random masking of its units"
    if plan.most_passes(arm) <= 1:
        # A schedule changes K between cycles, and the rate of random masks at every step.
        same = "" if arm.masking.schedule.final_rate else f"the same run as {random}: "
        return f"{same}scope epoch differs from the second pass on"
    if plan.passes(arm) < 2:
        return f"only the part of the rows that come twice is masked differently than by {random}"
    return None


def _confounded(plan: ComparisonPlan, sweep: Sweep) -> Iterator[str]:
    """Whether a loss by K is one by the mask rate as well."""
    varied = [name for name in ("segments", "rate") if name in sweep.axes]
    full = {_rate(arm) for _, arm in sweep.points if arm.strategy.exploration == "full"}
    random = {_rate(arm) for arm in plan.every_arm if arm.strategy.exploration == "random"}
    alone = sorted(full - random)
    if varied and alone:
        yield (
            f"in the sweep of {' and '.join(varied)}, K and the mask rate vary together: no random masking "
            f"runs at rate {', '.join(f'{rate:.3g}' for rate in alone)} (--set 'sweep.strategy=[random, "
            "fully-explored]' would add it)"
        )


def _alone(plan: ComparisonPlan, sweep: Sweep) -> Iterator[str]:
    """How many points with settings of a run of their own have no random masking under the same ones."""
    against = plan.points_against
    alone = [arm for _, arm in sweep.points if arm.overrides and arm.name not in against]
    if alone:
        varied = " and ".join(name for name in sweep.axes if name.startswith("run."))
        strategies = sweep.axes.get("strategy", [alone[0].masking.strategy])
        listed = ", ".join(["random", *map(str, strategies)])
        remedy = f" (--set 'sweep.strategy=[{listed}]' would add it)" if sweep.plain is None else ""
        yield (
            f"{len(alone)} of {len(sweep.points)} points of the sweep of {varied} are compared with nothing: "
            f"no random masking runs with the same settings and mask rate{remedy}"
        )


def _rate(arm: Arm) -> float:
    return round(arm.strategy.rate, 6)

"""What a comparison found: its results, from the records of its items alone."""

import math
import shlex
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fmlm_cli import __version__
from fmlm_cli.analysis.gradient_noise.estimators import Correlation, Estimates
from fmlm_cli.analysis.gradient_noise.measuring import Records
from fmlm_cli.analysis.paired import (
    Contest,
    NoPair,
    Pair,
    compare_on_tasks,
    judge_together,
    mean_of,
    pair_up,
    spread_of,
)
from fmlm_cli.analysis.report.findings.whole import verdict
from fmlm_cli.analysis.results.comparison import (
    ArmResult,
    BySeed,
    ComparedData,
    ComparedModel,
    ComparisonResults,
    CurveResult,
    HeldOutData,
    Measurements,
    PointResult,
    RaceResult,
    RerunResult,
    Speed,
    SweepResult,
    TaskResult,
)
from fmlm_cli.analysis.results.coverage import CoverageResult
from fmlm_cli.analysis.results.plain import from_json
from fmlm_cli.analysis.results.variance import (
    MASK_ONLY,
    ComponentsResult,
    CorrelationResult,
    EqualComputeResult,
    IntervalResult,
    VarianceResult,
)
from fmlm_cli.analysis.statistics import Interval
from fmlm_cli.analysis.sweep import best_of_each
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.masking import Strategy, StrategySettings, random_counterpart
from fmlm_cli.model.build import parameter_counts
from fmlm_cli.recipes.comparison.arms import Arm, base_segments
from fmlm_cli.recipes.comparison.draft import LEAST_STEPS, held_out
from fmlm_cli.recipes.comparison.plan import ComparisonPlan, Item, Kind, Rerun
from fmlm_cli.recipes.pretraining.planning.data import RowSource
from fmlm_cli.recipes.shared.held_out import EVALUATION_RATE

Record = Mapping[str, Any]  # what a finished item left

_ALONE = "no random run of these settings and this mask rate: add random to sweep.strategy"
_EVALUATED_ON = f"single tokens, {100 * EVALUATION_RATE:.0f} %, 80/10/10"


def results_of(plan: ComparisonPlan) -> ComparisonResults:
    """All results that are there, by the settings of the plan; a part that is not complete is None.

    Of gradient variance every measurement counts that is finished.
    """
    race, learning_rate = _race(plan), plan.base.settings.optimizer.learning_rate
    assert learning_rate is not None  # every choice is made
    measured = Measurements(
        fmlm=__version__,
        command=shlex.join(["fmlm", "compare-masks", str(plan.root / "config.yaml"), "--out", "DIR"]),
        settings=plan.settings.model_dump(mode="json"),
        model=_model(plan),
        data=_data(plan),
        evaluation=_evaluation(plan),
        steps=plan.total_steps,
        segments=base_segments(plan.settings),
        batch_size=plan.size,
        learning_rate=learning_rate,
        device=str(Runtime.resolve(plan.settings.run.device).device),
        baseline=plan.baseline.name,
        arms=tuple(_arm(plan, arm) for arm in plan.arms),
        seeds=tuple(plan.seeds),
        coverage=_coverage(plan),
        variance=_variance(plan),
        race=race,
        downstream=_downstream(plan),
        sweep=_sweep(plan, race),
    )
    return ComparisonResults(**vars(measured), verdict=verdict(measured))


def _complete(plan: ComparisonPlan, kind: Kind) -> list[tuple[Item, Record]] | None:
    """The items of a kind with their records, if all that there can be are finished."""
    items = plan.possible(kind)
    records = [(item, plan.result(item)) for item in items]
    done: list[tuple[Item, Record]] = [(item, record) for item, record in records if record is not None]
    return done if done and len(done) == len(items) else None


def _by_arm(done: list[tuple[Item, Record]], subject: str | None = None) -> dict[str, dict[int, Record]]:
    """Records by arm and seed: all, or those of the items that are of one checkpoint or task."""
    records: dict[str, dict[int, Record]] = {}
    for item, record in done:
        if subject is None or item.subject == subject:
            records.setdefault(item.arm.name, {})[item.seed] = record
    return records


def _values(records: Mapping[str, Mapping[int, Record]], name: str) -> dict[str, BySeed]:
    """What a field of the records holds, by arm and seed."""
    return {arm: {seed: run[name] for seed, run in runs.items()} for arm, runs in records.items()}


def _contest(plan: ComparisonPlan) -> Contest:
    return Contest(plan.baseline.name, frozenset(arm.name for arm in plan.arms if arm.control))


# ---------------------------------------------------------------- what was compared


def _model(plan: ComparisonPlan) -> ComparedModel:
    return ComparedModel(plan.base.name, parameter_counts(plan.base.model)["total"])


def _data(plan: ComparisonPlan) -> ComparedData:
    rows, length = plan.rows(plan.baseline), plan.settings.run.sequence_length
    assert length is not None
    return ComparedData(
        store=", ".join(str(source.store.root) for source in plan.base.stream.sources),
        rows=rows,
        of_rows=(of_rows := sum(len(source.reader.plan) for source in _data_sources(plan))),
        by_seed=plan.settings.race.vary_rows and rows < of_rows,
        sequence_length=length,
        tokens=round(rows * plan.base.stream.tokens_per_row),
    )


def _evaluation(plan: ComparisonPlan) -> HeldOutData | None:
    """What held-out losses are measured on, the same for every arm."""
    if not plan.needs_runs:
        return None
    reader = held_out(plan, 1).reader
    by_seed = plan.settings.race.vary_rows and reader.is_subset
    store = str(plan.evaluated_store.root)
    return HeldOutData(store, len(reader), len(reader.plan), by_seed, _EVALUATED_ON)


def _data_sources(plan: ComparisonPlan) -> list[RowSource]:
    return [source for source in plan.base.stream.sources if not source.replay]


def _arm(plan: ComparisonPlan, arm: Arm) -> ArmResult:
    runs = [plan.result(item) for item in plan.possible("race") if item.arm.name == arm.name]
    done = [run for run in runs if run is not None and run["loss"] is not None]
    masks, speeds = arm.strategy.masks_per_sequence, [run["tokens_per_second"] for run in done]
    alike = [other for other in plan.arms if other.label == arm.label]
    return ArmResult(
        name=arm.name,
        label=arm.label if len(alike) == 1 else arm.name,
        masking=arm.masking.model_dump(mode="json"),
        description=arm.strategy.description,
        rate=arm.strategy.rate,
        cycle=arm.strategy.cycle,
        masks_per_sequence=masks,
        sequences_per_step=plan.size // masks,
        rows=plan.rows(arm),
        passes=plan.passes(arm) if plan.total_steps else None,
        tokens=mean_of([run["tokens"][-1] for run in done]),
        seconds=mean_of([run["seconds"] for run in done]),
        tokens_per_second=Speed(float(np.mean(speeds)), min(speeds), max(speeds)) if speeds else None,
        control=arm.control,
        first_pass_as=next(
            (other.name for other in plan.arms if _masks_alike_at_first(plan, arm, other)), None
        ),
    )


def _masks_alike_at_first(plan: ComparisonPlan, full: Arm, random: Arm) -> bool:
    """Whether a full exploration over passes has, in the first one, the very masks of a random arm.

    Both are windows of one circle, of the same units and placed by the same hash.
    """
    one, other = full.strategy, random.strategy
    return (
        one.exploration == "full"
        and one.cycle > 1
        and random_counterpart(one.name) == other.name
        and math.isclose(one.rate, other.rate)
        and other.masks_per_sequence == 1
        and _what_is_drawn(one) == _what_is_drawn(other)
        and not random.fresh
        and full.masking.schedule.final_rate is None
        and random.masking.schedule.final_rate is None
        and plan.base.stream.first == 0
    )


def _what_is_drawn(strategy: Strategy) -> StrategySettings:
    """A strategy's settings without those that say how its masks relate. Collocations are the store's."""
    return replace(
        strategy.settings, name="", rate=0.0, scope=None, masks_per_sequence=None, collocations=None
    )


def _coverage(plan: ComparisonPlan) -> dict[str, CoverageResult] | None:
    done = _complete(plan, "coverage")
    if done is None:
        return None
    return {item.arm.name: from_json(CoverageResult, record) for item, record in done}


# ---------------------------------------------------------------- gradient variance


def _variance(plan: ComparisonPlan) -> tuple[VarianceResult, ...] | None:
    records = [(item, plan.result(item)) for item in plan.possible("variance")]
    done = [(item, record) for item, record in records if record is not None]
    return tuple(_summary(plan, item, record) for item, record in done) or None


def _read(path: Path) -> Records:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return Records.from_arrays(dict(arrays))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise UserError(
            f"{path} is damaged: remove it, and the same command with --resume measures it again"
        ) from None


def _summary(plan: ComparisonPlan, item: Item, record: Record) -> VarianceResult:
    """The figures of one measurement."""
    corruption = plan.settings.run.masking.corruption
    shares = f"{100 * corruption.mask:g}/{100 * corruption.random:g}/{100 * corruption.keep:g}"
    records = _read(plan.measured(item))
    summary = Estimates(records).summary()
    return VarianceResult(
        name=item.subject,
        step=record["step"],
        loss=record["loss"],
        corruption=MASK_ONLY if item.corruption == "mask-only" else shares,
        unit=plan.settings.variance.unit,
        store=str(plan.measured_store.root),
        sequences=summary.sequences,
        left_out=record["left_out"],
        looked_at=record["looked_at"],
        segments=records.plan.segments,
        gradients=summary.gradients,
        parameters=records.parameters,
        relative_error=summary.relative_error,
        ratio=_interval(summary.variance_ratio),
        identity=_intervals(summary.identity),
        correlations=tuple(_correlation(correlation) for correlation in summary.correlations),
        components=ComponentsResult(**_intervals(summary.components)),
        repeated_ratio=_interval(summary.repeated_ratio),
        equal_compute=EqualComputeResult(**_intervals(summary.equal_compute)),
    )


def _interval(interval: Interval) -> IntervalResult:
    low, high = (end if math.isfinite(end) else None for end in (interval.low, interval.high))
    return IntervalResult(interval.value, low, high)


def _intervals(estimates: Any) -> dict[str, IntervalResult]:
    """Those of several estimates that could be made."""
    return {name: _interval(value) for name, value in vars(estimates).items() if value is not None}


def _correlation(correlation: Correlation) -> CorrelationResult:
    return CorrelationResult(correlation.distance, **vars(_interval(correlation.value)))


# ---------------------------------------------------------------- race


def _race(plan: ComparisonPlan) -> RaceResult | None:
    done = _complete(plan, "race")
    if done is None:
        return None
    runs, contest = _by_arm(done), _contest(plan)
    losses = _values(runs, "loss")
    curves = {
        arm: {seed: _curve(run) for seed, run in by_seed.items() if run["loss"] is not None}
        for arm, by_seed in runs.items()
    }
    ended = [(item.seed, run) for item, run in done if run["loss"] is not None]
    by_frequency = {seed: run["unigram_loss"] for seed, run in ended}  # all of a seed have the same targets
    return RaceResult(
        unigram_loss={seed: by_frequency.get(seed) for seed in plan.seeds},
        curves=curves,
        final={arm: spread_of(by_seed) for arm, by_seed in losses.items()},
        paired=contest.judge(contest.pairs(losses)),
        tokens_to_reach=contest.tokens_to_reach(curves, plan.seeds, plan.settings.race.target_loss),
        reruns=_reruns(plan, contest, losses[plan.baseline.name]),
    )


def with_reruns(plan: ComparisonPlan) -> ComparisonPlan:
    """The plan with the reruns that its race leads to, if they are asked for and the race is done.

    Of the candidates that took fewer tokens to a loss than the baseline did, each for that share of the steps
    (the geometric mean over seeds).
    """
    race = _race(plan) if plan.settings.race.rerun_to_target else None
    if race is None:
        return plan
    ratios = {arm: reach.ratio.value for arm, reach in race.tokens_to_reach.items()}
    sooner = ((arm, ratios.get(arm.name)) for arm in plan.arms if not arm.control)
    shorter = [
        Rerun(arm, math.ceil(ratio * plan.total_steps)) for arm, ratio in sooner if ratio and ratio < 1
    ]
    least = max(LEAST_STEPS, plan.settings.run.optimizer.head_warmup_steps + 1)
    return replace(plan, reruns=tuple(rerun for rerun in shorter if least <= rerun.steps < plan.total_steps))


def _reruns(plan: ComparisonPlan, contest: Contest, baseline: BySeed) -> dict[str, RerunResult]:
    """Each against the baseline's whole runs; empty until all are done."""
    done = _complete(plan, "rerun") if plan.reruns else None
    if done is None:
        return {}
    losses = _values(_by_arm(done), "loss")
    paired = contest.judge({arm: pair_up(by_seed, baseline) for arm, by_seed in losses.items()})
    return {
        rerun.arm.name: RerunResult(
            **vars(spread_of(losses[rerun.arm.name])),
            steps=rerun.steps,
            share=rerun.steps / plan.total_steps,
            paired=paired[rerun.arm.name],
        )
        for rerun in plan.reruns
    }


def _curve(run: Record) -> CurveResult:
    return CurveResult(tuple(run["steps"]), tuple(run["tokens"]), tuple(run["losses"]))


# ---------------------------------------------------------------- sweep and downstream


def _sweep(plan: ComparisonPlan, race: RaceResult | None) -> SweepResult | None:
    """The points, judged together: each against random masking where only what masks are differs."""
    done = _complete(plan, "sweep") if plan.sweep else None
    if done is None or plan.sweep is None:
        return None
    losses = _values(_by_arm(done), "loss")
    known = losses if race is None else losses | {plan.baseline.name: race.final[plan.baseline.name].values}
    against = {name: arm.name for name, arm in plan.points_against.items() if arm.name in known}
    pairs: dict[str, Pair] = {}
    for _, arm in plan.sweep.points:
        if (other := against.get(arm.name)) is None:
            pairs[arm.name] = NoPair(_ALONE)
        elif other == arm.name:
            pairs[arm.name] = NoPair("baseline of its settings")
        else:
            pairs[arm.name] = pair_up(losses[arm.name], known[other])
    compared = judge_together(pairs, against.__getitem__, against.get)
    points = [
        PointResult(
            name=arm.name,
            settings=dict(settings),
            passes=plan.passes(arm),
            **vars(spread_of(losses[arm.name])),
            against=None if (other := against.get(arm.name)) == arm.name else other,
            paired=compared[arm.name],
        )
        for settings, arm in plan.sweep.points
    ]
    axes = {name: tuple(values) for name, values in plan.sweep.axes.items()}
    return SweepResult(axes, tuple(points), best_of_each(points, plan.sweep.plain))


def _downstream(plan: ComparisonPlan) -> dict[str, TaskResult] | None:
    """Scores by task and arm."""
    done = _complete(plan, "downstream") if plan.tasks else None
    if done is None:
        return None
    records = {task.name: _by_arm(done, task.name) for task in plan.tasks}
    measured: dict[str, tuple[str, str | None]] = {}
    for task, by_arm in records.items():
        every = [tuned for by_seed in by_arm.values() for tuned in by_seed.values()]
        finished = next((tuned for tuned in every if "measures" in tuned), {})
        measured[task] = " and ".join(finished.get("measures", ())), finished.get("split")
    scores = {task: _values(by_arm, "score") for task, by_arm in records.items()}
    return compare_on_tasks(_contest(plan), scores, measured)

"""Arms against a baseline, paired by seed: spreads, differences, and tokens to a loss, as results."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fmlm_cli.analysis.results.comparison import (
    BySeed,
    CurveResult,
    PairedResult,
    RatioResult,
    ReachResult,
    ScoresResult,
    SpreadResult,
    TaskResult,
)
from fmlm_cli.analysis.statistics import (
    Judged,
    PairedDifference,
    judged,
    paired_difference,
    reachable_loss,
    tokens_to_reach,
)
from fmlm_cli.events import numbered


@dataclass(frozen=True)
class NoPair:
    """Why an arm and the baseline cannot be paired by seed, in words."""

    why: str


Pair = PairedDifference | NoPair
Key = TypeVar("Key", bound=str | tuple[str, str])  # an arm, or a task and an arm
Curves = Mapping[int, CurveResult]  # of an arm, by seed


def mean_of(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return float(np.mean(values)) if values else None


def spread_of(values: BySeed) -> SpreadResult:
    """Values by seed, mean and sample standard deviation of those that are there."""
    finite = [value for value in values.values() if value is not None]
    return SpreadResult(
        values=dict(values),
        mean=mean_of(finite),
        sd=float(np.std(finite, ddof=1)) if len(finite) > 1 else None,
    )


def pair_up(values: BySeed, baseline: BySeed) -> Pair:
    """The paired difference of an arm and the baseline, or why there is none."""
    lacking = _lacking(values, values, baseline)
    if lacking is not None:
        return lacking
    if len(values) < 2:
        return NoPair("one seed has no spread to test by")
    first, second = ([float(side[seed] or 0.0) for seed in values] for side in (values, baseline))
    return paired_difference(first, second)


def _lacking(
    seeds: Iterable[int], values: Mapping[int, object], baseline: Mapping[int, object]
) -> NoPair | None:
    """Which of the seeds the two cannot be compared by; None where both have all."""
    sides = {"": values, "the baseline ": baseline}
    gone = {whose: [seed for seed in seeds if side.get(seed) is None] for whose, side in sides.items()}
    why = [f"{whose}diverged with {numbered('seed', own)}" for whose, own in gone.items() if own]
    return NoPair(", ".join(why)) if why else None


@dataclass(frozen=True)
class Contest:
    """Arms that are compared with a `baseline`. `controls`: those that are there for scale, by name.

    The candidates are judged together. Controls are no candidates: each is a test of its own.
    """

    baseline: str
    controls: frozenset[str]

    def pairs(self, values: Mapping[str, BySeed]) -> dict[str, Pair]:
        """Every arm but the baseline against it."""
        baseline = values[self.baseline]
        return {arm: pair_up(runs, baseline) for arm, runs in values.items() if arm != self.baseline}

    def judge(self, pairs: Mapping[Key, Pair], *, lower_is_better: bool = True) -> dict[Key, PairedResult]:
        """What comparisons with the baseline came to; of a pair that is none, why.

        Spread is pooled within a task, and apart from the controls.
        """
        controls = [key for key in pairs if _arm_of(key) in self.controls]
        candidates = {key: pair for key, pair in pairs.items() if key not in controls}
        results: dict[Key, PairedResult] = {}
        for family in (candidates, *({key: pairs[key]} for key in controls)):
            results |= judge_together(
                family, lambda _: self.baseline, _task_of, lower_is_better=lower_is_better
            )
        return {key: results[key] for key in pairs}

    def tokens_to_reach(
        self, curves: Mapping[str, Curves], seeds: Sequence[int], target: float | None = None
    ) -> dict[str, ReachResult]:
        """Tokens that each arm and the baseline took to the loss that both reach with a seed; ratios by seed.

        `target`: that loss, if it is given. One that arms or seeds share would be set by the worst run of
        all, early in the others' curves; and seeds may be measured on other rows.
        """
        baseline = curves[self.baseline]
        reached: dict[str, tuple[BySeed, BySeed, BySeed]] = {}
        for arm, runs in curves.items():
            if arm == self.baseline or not runs or not baseline:
                continue
            both = [seed for seed in seeds if seed in runs and seed in baseline]
            losses = {
                seed: target or reachable_loss([runs[seed].losses, baseline[seed].losses]) for seed in both
            }
            targets = {seed: losses.get(seed, target) for seed in seeds}
            reached[arm] = (targets, _tokens(runs, targets), _tokens(baseline, targets))
        pairs = {
            arm: _lacking(seeds, curves[arm], baseline) or _log_ratio(*tokens)
            for arm, (_, *tokens) in reached.items()
        }
        ratios = self.judge(pairs)
        return {arm: ReachResult(*reached[arm], ratio=_exponential(pair)) for arm, pair in ratios.items()}


def compare_on_tasks(
    contest: Contest,
    scores: Mapping[str, Mapping[str, BySeed]],
    measured: Mapping[str, tuple[str, str | None]],
) -> dict[str, TaskResult]:
    """Scores by task, arm and seed, against the baseline's. All tasks are judged together, but for controls.

    `measured`: measure and split by task.
    """
    pairs = {
        (task, arm): pair for task, by_arm in scores.items() for arm, pair in contest.pairs(by_arm).items()
    }
    compared = contest.judge(pairs, lower_is_better=False)
    return {
        task: TaskResult(
            *measured[task],
            arms={
                arm: ScoresResult(**vars(spread_of(by_seed)), paired=compared.get((task, arm)))
                for arm, by_seed in by_arm.items()
            },
        )
        for task, by_arm in scores.items()
    }


def judge_together(
    pairs: Mapping[Key, Pair],
    baseline_of: Callable[[Key], str],
    pool_of: Callable[[Key], Hashable],
    *,
    lower_is_better: bool = True,
) -> dict[Key, PairedResult]:
    """What the comparisons of one family came to. `baseline_of`: with what a pair's arm is compared.

    `pool_of`: which pairs pool their spread, as in `statistics.judged`.
    """
    tested = judged({key: pair for key, pair in pairs.items() if isinstance(pair, PairedDifference)}, pool_of)
    results: dict[Key, PairedResult] = {}
    for key, pair in pairs.items():
        if isinstance(pair, NoPair):
            results[key] = PairedResult(note=pair.why)
        elif key not in tested:
            results[key] = _untestable(pair)
        else:
            gains = (pair.mean < 0) == lower_is_better
            results[key] = _tested(tested[key], len(tested), _arm_of(key) if gains else baseline_of(key))
    return results


def _arm_of(key: str | tuple[str, str]) -> str:
    return key if isinstance(key, str) else key[-1]


def _task_of(key: str | tuple[str, str]) -> str | None:
    return None if isinstance(key, str) else key[0]


def _untestable(pair: PairedDifference) -> PairedResult:
    same = pair.mean == 0
    note = "the baseline's own result with every seed" if same else "no spread to test by"
    return PairedResult(n=pair.n, mean=pair.mean, sd=0.0, note=note)


def _tested(test: Judged, tests: int, winner: str) -> PairedResult:
    low, high = test.difference.simultaneous(tests)
    pair = {name: value for name, value in vars(test.difference).items() if name != "differences"}
    return PairedResult(
        **pair,
        simultaneous_low=low,
        simultaneous_high=high,
        p_adjusted=test.p_adjusted,
        tests=tests,
        better=winner if test.told else None,
        detectable=test.detectable,
        detectable_low=test.detectable_low,
        detectable_high=test.detectable_high,
    )


def _tokens(runs: Curves, targets: BySeed) -> dict[int, float | None]:
    return {
        seed: None
        if target is None or seed not in runs
        else tokens_to_reach(runs[seed].tokens, runs[seed].losses, target)
        for seed, target in targets.items()
    }


def _log_ratio(values: BySeed, baseline: BySeed) -> Pair:
    """Of positive tokens, as differences of logarithms."""
    every = [*values.values(), *baseline.values()]
    if any(value is None for value in every):
        return NoPair("not every seed got there")
    if not all(every):
        return NoPair("a run ended no lower than it began")
    return paired_difference(*([math.log(v) for v in side.values() if v] for side in (values, baseline)))


def _exponential(pair: PairedResult) -> RatioResult:
    """A comparison of logarithms as one of ratios, whose value is the geometric mean over seeds."""

    def ratio(logarithm: float | None) -> float | None:
        return None if logarithm is None else math.exp(logarithm)

    return RatioResult(
        value=ratio(pair.mean),
        low=ratio(pair.low),
        high=ratio(pair.high),
        simultaneous_low=ratio(pair.simultaneous_low),
        simultaneous_high=ratio(pair.simultaneous_high),
        n=pair.n,
        p_value=pair.p_value,
        p_adjusted=pair.p_adjusted,
        tests=pair.tests,
        better=pair.better,
        note=pair.note,
    )

"""Strategies compared each at the best of their other settings, which nobody knows but by the same runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fmlm_cli.analysis.paired import NoPair, Pair, judge_together, spread_of
from fmlm_cli.analysis.results.comparison import BestResult, PairedResult, PointResult
from fmlm_cli.analysis.statistics import Floats, PairedDifference, paired_difference

STRATEGY = "strategy"  # the axis


@dataclass(frozen=True)
class Choice:
    """What was chosen of several settings by their losses.

    `overall`: the row chosen over all seeds; `by_seed`: int64[seeds], chosen by the others. `flattered`: the
    losses of `overall`, lower than they would be again; `held_out`: each seed's with its own choice, which
    that seed had no part in. Both float64[seeds].
    """

    overall: int
    by_seed: npt.NDArray[np.int64]
    flattered: Floats
    held_out: Floats

    @classmethod
    def of(cls, losses: Floats) -> "Choice":
        """The lowest mean, leaving each seed out in turn, of losses float64[settings, seeds]; seeds >= 2."""
        total = losses.sum(axis=1, keepdims=True)
        by_seed = (total - losses).argmin(axis=0)
        overall = int(total.argmin())
        return cls(overall, by_seed, losses[overall], losses[by_seed, np.arange(losses.shape[1])])


def choices_compared(first: Choice, second: Choice) -> PairedDifference:
    """First minus second, each at its best: the mean over seeds of the losses that were held out.

    Its own paired t-test is not enough. Where settings are about as good, neighbouring seeds choose with the
    same luck, so that held-out losses are alike beyond what is true, and p <= 0.05 comes in up to 0.15 of
    worlds without a difference. The test of what was chosen over all seeds is flattered on both sides, and
    spreads as it should. Both have to tell it (an intersection-union test: Berger 1982): p is the larger, the
    interval holds both, and where every seed chose alike the two are one.
    """
    held_out = paired_difference(first.held_out.tolist(), second.held_out.tolist())
    flattered = paired_difference(first.flattered.tolist(), second.flattered.tolist())
    if not (held_out.testable and flattered.testable):
        return held_out if not held_out.testable else replace(flattered, mean=held_out.mean)
    agree = held_out.mean * flattered.mean > 0
    return replace(
        held_out,
        low=min(held_out.low, flattered.low),
        high=max(held_out.high, flattered.high),
        p_value=max(held_out.p_value, flattered.p_value) if agree else 1.0,
    )


def best_of_each(points: Sequence[PointResult], plain: str | None) -> tuple[BestResult, ...]:
    """Each strategy of the points at its best; none where nothing varies beside the strategy.

    `plain`: the random masking that they are compared with, if it is one of them. Settings with which a seed
    diverged are no choice. Holm's correction is over the strategies.
    """
    by_strategy: dict[str, list[PointResult]] = {}
    for point in points:
        if STRATEGY in point.settings:
            by_strategy.setdefault(str(point.settings[STRATEGY]), []).append(point)
    if max(map(len, by_strategy.values()), default=0) < 2 or len(points[0].values) < 2:
        return ()
    finished = {name: _finished(own) for name, own in by_strategy.items()}
    choices = {name: Choice.of(_losses(own)) for name, own in finished.items() if own}
    pairs: dict[str, Pair] = {name: _pair(name, plain, choices) for name in by_strategy if name != plain}
    judged = judge_together(pairs, lambda _: str(plain), lambda _: None)
    # Neither the pooled spread nor Bonferroni's interval is of two tests that both have to tell.
    unknown = ("detectable", "detectable_low", "detectable_high", "simultaneous_low", "simultaneous_high")
    paired = {name: replace(pair, **dict.fromkeys(unknown)) for name, pair in judged.items()}
    return tuple(
        _best(name, own, finished[name], choices.get(name), paired.get(name))
        for name, own in by_strategy.items()
    )


def _finished(points: Sequence[PointResult]) -> list[PointResult]:
    return [point for point in points if None not in point.values.values()]


def _losses(points: Sequence[PointResult]) -> Floats:
    """Of points that are finished, float64[points, seeds]."""
    return np.array([list(point.values.values()) for point in points], np.float64)


def _pair(name: str, plain: str | None, choices: Mapping[str, Choice]) -> Pair:
    if plain is None:
        return NoPair("no random masking in sweep.strategy")
    lacking = [each for each in (name, plain) if each not in choices]
    if lacking:
        return NoPair(f"no settings with which every seed of {lacking[0]} came to its end")
    return choices_compared(choices[name], choices[plain])


def _best(
    name: str,
    points: Sequence[PointResult],
    finished: Sequence[PointResult],
    choice: Choice | None,
    paired: PairedResult | None,
) -> BestResult:
    if choice is None:
        values = spread_of(dict.fromkeys(points[0].values))
        return BestResult(name, None, 0, **vars(values), paired=paired)
    settings: dict[str, Any] = dict(finished[choice.overall].settings)
    del settings[STRATEGY]
    values = spread_of(dict(zip(finished[0].values, choice.held_out.tolist(), strict=True)))
    otherwise = int((choice.by_seed != choice.overall).sum())
    return BestResult(name, settings, otherwise, **vars(values), paired=paired)

"""Intervals over rows, paired comparisons by seed, and what their numbers can and cannot tell."""

import bisect
import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

Floats = npt.NDArray[np.float64]
Means = Mapping[str, Floats]

# Of fewer rows, intervals over rows hold the truth too seldom where the rows' gradients differ much in noise:
# see `gradient_noise.estimators.Estimates`.
ROWS_TO_TRUST = 60
ALPHA = 0.05  # of tests, and what 95 % intervals miss
_BELOW, _ABOVE = 0.01, 0.05  # levels of the F-test that finds an arm out of line


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval; `level` is the interval's nominal coverage."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def against(self, reference: float) -> Literal["below", "above", "undecided"]:
        """On which side of `reference` all of it lies; "undecided" if it holds it or is no number."""
        if self.high < reference:
            return "below"
        return "above" if self.low > reference else "undecided"


@dataclass(frozen=True)
class Scale:
    """A monotone change of variable, and its inverse: intervals are symmetrical on it."""

    to: Callable[[Floats], Floats]
    back: Callable[[Floats], Floats]


OWN = Scale(np.positive, np.positive)
LOGARITHM = Scale(np.log, np.exp)  # for what is positive
FISHER_Z = Scale(np.arctanh, np.tanh)  # for correlations (Fisher 1921)


@dataclass(frozen=True)
class Jackknife:
    """Means of columns over units, and over all units but one.

    Units (sequences) are left out whole, with all that was measured on them, so what depends on each other
    within a unit stays together. `means`: float64[] by column; `left_out`: float64[units] by column, the
    means without each unit.
    """

    means: Means
    left_out: Means
    level: float

    @classmethod
    def of(cls, columns: Means, *, level: float = 0.95) -> "Jackknife":
        """From columns float64[units]. ValueError for fewer than two units, or values not finite."""
        table = np.stack(list(columns.values()))
        units = table.shape[1]
        if units < 2:
            raise ValueError(f"an interval over sequences needs at least 2 of them, not {units}")
        if not np.isfinite(table).all():
            raise ValueError("a column whose mean is to have an interval holds a value that is not finite")
        without = (table.sum(axis=1, keepdims=True) - table) / (units - 1)
        return cls(
            dict(zip(columns, table.mean(axis=1), strict=True)),
            dict(zip(columns, without, strict=True)),
            level,
        )

    def interval(self, figure: Callable[[Means], Floats], scale: Scale = OWN) -> Interval:
        """The jackknife-t interval of a figure that is a smooth function of means, elementwise.

        estimate +- t s, with Student's t of units - 1 degrees of freedom and the jackknife's standard error
        s^2 = (units - 1) / units * (sum of squared deviations of the figures without one unit from their
        mean): Tukey 1958; Efron & Tibshirani 1993, "An Introduction to the Bootstrap", equation 11.5. It is
        made on `scale` and taken back (Miller 1974, "The jackknife - a review", section 3), where all of
        these are in the scale's domain: else, as for a logarithm of zero, on the figure's own. The ends are
        NaN where the figure itself is somewhere undefined (0/0).
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value, without = figure(self.means), np.asarray(figure(self.left_out))
            if not np.isfinite(scale.to(np.append(without, value))).all():
                scale = OWN
            freedom = len(without) - 1
            error = math.sqrt(freedom) * np.std(scale.to(without))
            half = special.stdtrit(freedom, (1 + self.level) / 2) * error
            low, high = scale.back(scale.to(value) + np.array([-half, half]))
        return Interval(float(value), float(low), float(high), self.level)


@dataclass(frozen=True)
class PairedDifference:
    """First minus second, paired by seed: mean, standard deviation, Student-t interval and two-sided p.

    The interval is of this comparison alone, whatever others are made beside it. Differences without any
    spread say that the pairs are no independent repeats: then nothing can be tested, the interval is infinite
    and p is 1. `differences`: by pair, in the order of the seeds.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    p_value: float
    differences: tuple[float, ...]

    @property
    def testable(self) -> bool:
        """Whether the differences vary at all."""
        return self.sd > 0

    def simultaneous(self, tests: int, *, level: float = 0.95) -> tuple[float, float]:
        """The ends of Bonferroni's interval: all of so many hold at once with a probability of `level`.

        So does the one of a comparison that was chosen for what it showed (Dunn 1961, "Multiple Comparisons
        Among Means").
        """
        if not self.testable:
            return self.low, self.high
        half = _half_width(self.n, self.sd, (1 - level) / tests)
        return self.mean - half, self.mean + half


def _half_width(n: int, sd: float, alpha: float) -> float:
    """Of Student's interval for a mean of `n`, which misses it with probability `alpha`."""
    return _critical(n, alpha) * sd / math.sqrt(n)


@functools.lru_cache(maxsize=256)
def _critical(n: int, alpha: float) -> float:
    """What |t| of `n` differences without a mean exceeds with probability `alpha`."""
    return float(stats.t.isf(alpha / 2, n - 1))


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, level: float = 0.95
) -> PairedDifference:
    """Compare two arms seed by seed (Student 1908): t = mean / (sd / sqrt(n)), n - 1 degrees of freedom.

    The test supposes differences that are independent and about normal. Of positive quantities that are
    compared as ratios (tokens to reach a loss) hand over the logarithms. ValueError for unequal numbers,
    fewer than two pairs, or values that are not finite (a seed that diverged, a loss that was not reached).
    """
    if len(first) != len(second):
        raise ValueError(
            f"pairs need as many values of one arm as of the other, not {len(first)} and {len(second)}"
        )
    if (n := len(first)) < 2:
        raise ValueError(f"a paired comparison needs at least 2 seeds, not {n}: one pair has no spread")
    if any(value is None or not math.isfinite(value) for value in (*first, *second)):
        raise ValueError(
            "a paired comparison needs a finite value of every seed: one diverged or never got there"
        )
    differences = np.subtract(first, second, dtype=np.float64)
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    scale = float(np.abs([first, second]).max())
    if sd <= 1e-14 * scale:  # no more than rounding
        return PairedDifference(n, mean, 0.0, -math.inf, math.inf, 1.0, tuple(differences.tolist()))
    error = sd / math.sqrt(n)
    p_value = 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    half = _half_width(n, sd, 1 - level)
    return PairedDifference(n, mean, sd, mean - half, mean + half, p_value, tuple(differences.tolist()))


@functools.lru_cache(maxsize=256)
def detectable_effect(n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The true mean, in standard deviations of the differences, that a paired t-test on n pairs finds.

    Solves P(T > t_crit) = power for a noncentral t with n - 1 degrees of freedom and noncentrality effect *
    sqrt(n) (Cohen 1988, "Statistical Power Analysis", chapter 2). The two-sided test's other tail adds less
    than 1e-4. ValueError for n < 2, or a power outside [0.5, 1).
    """
    if n < 2:
        raise ValueError(f"a paired t-test needs at least 2 pairs, not {n}")
    if not 0.5 <= power < 1:
        raise ValueError(f"a power worth planning for lies between 0.5 and 1, not {power}")
    critical = stats.t.isf(alpha / 2, n - 1)

    def missing(effect: float) -> float:
        return float(stats.nct.sf(critical, n - 1, effect * math.sqrt(n))) - power

    # Numerator and denominator of T each go beyond z less often than power allows, so this shift is enough.
    z = stats.norm.isf((1 - power) / 4)
    return float(optimize.brentq(missing, 0.0, (critical + 1) * z / math.sqrt(n), xtol=1e-10))


def pairs_to_detect(
    effect: float, alpha: float = 0.05, power: float = 0.8, *, most: int = 1000
) -> int | None:
    """The fewest pairs whose paired t-test finds a true mean of `effect` standard deviations; see there.

    None where `most` do not suffice.
    """
    numbers = range(2, most + 1)
    place = bisect.bisect_left(numbers, -effect, key=lambda n: -detectable_effect(n, alpha, power))
    return numbers[place] if place < len(numbers) else None


def holm(p_values: Sequence[float]) -> Floats:
    """P-values adjusted for their number, in the order given: float64[m].

    Rejecting what is at most alpha holds the probability of any false rejection to alpha, whatever the tests'
    dependence: the i-th smallest becomes the largest of (m - j + 1) p_(j) over j <= i, at most 1 (Holm 1979,
    "A Simple Sequentially Rejective Multiple Test Procedure"). ValueError for a value outside [0, 1].
    """
    unadjusted = np.asarray(p_values, np.float64)
    if not ((unadjusted >= 0) & (unadjusted <= 1)).all():
        raise ValueError(f"p-values lie between 0 and 1, not {list(p_values)}")
    order = np.argsort(unadjusted, kind="stable")
    adjusted = np.empty_like(unadjusted)
    multiplied = unadjusted[order] * np.arange(len(unadjusted), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(multiplied))
    return adjusted


@dataclass(frozen=True)
class Spread:
    """A standard deviation, and the degrees of freedom that it was estimated with."""

    sd: float
    df: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the true one, by the chi-square law of a sample variance."""
        low, high = (self.sd * math.sqrt(self.df / special.chdtri(self.df, tail)) for tail in (0.025, 0.975))
        return low, high


def residual_mean_square(differences: Floats) -> float:
    """That of the layout arms x seeds, from each arm's differences from the baseline, float64[arms, seeds].

    Randomised blocks (Fisher 1935, "The Design of Experiments", chapter 4): a seed is a block, and a baseline
    of noughts is a row beside the arms, so arms * (seeds - 1) degrees of freedom. Twice it is the variance
    of a paired difference, if rows have noise of one size; of a single arm it is exactly that arm's own.
    """
    arms, seeds = differences.shape
    centred = differences - differences.mean(axis=1, keepdims=True)
    squares = (centred**2).sum() - (centred.sum(axis=0) ** 2).sum() / (arms + 1)
    return float(squares) / (arms * (seeds - 1))


def pooled_spreads(differences: Floats) -> list[Spread]:
    """The standard deviation of each arm's paired differences, float64[arms, seeds], pooled over the arms.

    An arm out of line keeps its own, lest it drown the others, or they it: one whose variance is above the
    95th percentile, or below the 1st, of what F allows against the rest; from the farthest out, one by one.
    The levels are that lax because at 0.1 % three seeds hardly show ten times the spread; simulated with four
    arms, they cost little where nothing is wrong. A baseline far noisier than the arms goes unseen.
    """
    arms, seeds = differences.shape
    own = differences.var(axis=1, ddof=1)
    inside = list(range(arms))
    while len(inside) > 1:
        shares = {arm: _in_line(own[arm], differences[[i for i in inside if i != arm]]) for arm in inside}
        farthest = min(inside, key=shares.__getitem__)
        if shares[farthest] >= 1:
            break
        inside.remove(farthest)
    spreads = [Spread(math.sqrt(variance), seeds - 1) for variance in own]
    shared = Spread(math.sqrt(2 * residual_mean_square(differences[inside])), len(inside) * (seeds - 1))
    return [shared if arm in inside else spread for arm, spread in enumerate(spreads)]


def _in_line(variance: float, others: Floats) -> float:
    """How likely such a variance is beside the others', over the level: below 1 for one out of line."""
    arms, seeds = others.shape
    law = seeds - 1, arms * (seeds - 1), variance / (2 * residual_mean_square(others))
    return float(min(special.fdtr(*law) / _BELOW, special.fdtrc(*law) / _ABOVE))


@dataclass(frozen=True)
class Judged:
    """A paired difference among others that were tested together.

    `p_adjusted`: Holm's. `told`: whether it is at most alpha, and so the two are told apart. `detectable`:
    the true difference that would be told with a probability of `power` at least, were the true standard
    deviation the pooled one: the smallest that so few seeds can be expected to show. `detectable_low`,
    `detectable_high`: the same at the ends of that deviation's 95 % interval.
    """

    difference: PairedDifference
    p_adjusted: float
    told: bool
    detectable: float
    detectable_low: float
    detectable_high: float


def judged(
    differences: Mapping[Any, PairedDifference],
    pool_of: Callable[[Any], Hashable] = lambda _: None,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
) -> dict[Any, Judged]:
    """Judge all of these together, but for those without spread, which are no tests; by their keys.

    What is told goes by Holm's correction; `detectable` by its first step, alpha / m for m tests, which no
    later one is stricter than. `pool_of`: which of them share a baseline, pairs and a scale, and so pool
    their spread. Their tests do not: a t-test with each arm's own spread holds its level where arms differ
    in noise, as a pooled one does not; a plan for other seeds may lean on what is only about right.
    """
    tested = {name: pair for name, pair in differences.items() if pair.testable}
    adjusted = holm([pair.p_value for pair in tested.values()]).tolist()
    pools: dict[Hashable, list[Any]] = {}
    for name in tested:
        pools.setdefault(pool_of(name), []).append(name)
    spreads: dict[Any, Spread] = {}
    for names in pools.values():
        rows = np.array([tested[name].differences for name in names])
        spreads |= zip(names, pooled_spreads(rows), strict=True)
    results = {}
    for (name, pair), p in zip(tested.items(), adjusted, strict=True):
        effect, spread = detectable_effect(pair.n, alpha / len(tested), power), spreads[name]
        ends = (effect * sd for sd in (spread.sd, *spread.interval))
        results[name] = Judged(pair, p, p <= alpha, *ends)
    return results


def moving_average(values: npt.ArrayLike, window: int) -> Floats:
    """Centred moving average over `window` points (odd), float64[n]; 1 leaves the curve as it is.

    Near the ends the window narrows on both sides alike, so a straight line stays what it is to its last
    point and a falling curve's end is not raised. ValueError for an even window.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"a centred window has an odd number of points, not {window}")
    curve = np.asarray(values, np.float64)
    place = np.arange(len(curve))
    half = np.minimum(window // 2, np.minimum(place, place[::-1]))
    total = np.concatenate([[0.0], np.cumsum(curve)])
    return np.asarray((total[place + half + 1] - total[place - half]) / (2 * half + 1))


def falling_curve(losses: npt.ArrayLike, window: int = 3) -> Floats:
    """The lowest smoothed loss so far, float64[n]: a moving average, then its running minimum."""
    return np.minimum.accumulate(moving_average(losses, window))


def tokens_to_reach(
    tokens: npt.ArrayLike, losses: npt.ArrayLike, target: float, *, window: int = 3
) -> float | None:
    """How many tokens it took until the loss was down at `target`; None if it never was.

    `tokens`: float[n], rising, those forwarded before each evaluation; `losses`: float[n]. The first crossing
    of `falling_curve`, interpolated linearly between two evaluations. ValueError for curves that are no such
    thing.
    """
    at, curve = _checked(tokens, losses, window)
    below = np.flatnonzero(curve <= target)
    if not len(below):
        return None
    if (index := int(below[0])) == 0:
        return float(at[0])
    high, low = curve[index - 1], curve[index]
    return float(at[index - 1] + (at[index] - at[index - 1]) * (high - target) / (high - low))


def reachable_loss(curves: Sequence[npt.ArrayLike], *, window: int = 3) -> float:
    """The lowest loss that every one of these curves reaches.

    As target of `tokens_to_reach` it leaves no seed without a value: leaving out those that did not get there
    would compare the lucky ones only. ValueError if there is no curve, or one without points.
    """
    if not curves:
        raise ValueError("no loss curves to compare")
    ends = []
    for losses in curves:
        _, curve = _checked(np.arange(np.size(losses)), losses, window)
        ends.append(float(curve[-1]))
    return max(ends)


def _checked(tokens: npt.ArrayLike, losses: npt.ArrayLike, window: int) -> tuple[Floats, Floats]:
    at, values = np.asarray(tokens, np.float64), np.asarray(losses, np.float64)
    if at.ndim != 1 or at.shape != values.shape or not len(at):
        raise ValueError(
            f"a loss curve needs a loss for every count of tokens, not {values.shape} for {at.shape}"
        )
    if not np.isfinite(values).all() or (np.diff(at) <= 0).any():
        raise ValueError("a loss curve needs finite losses and counts of tokens that rise")
    return at, falling_curve(values, window)

"""What the records of `measuring` say: every figure with its interval over sequences.

With sigma^2 and delta^2 for the variance of a gradient that the masks and the data make, averaged over
sequences, c for the covariance of the gradients of two segments of a set, and V for the variance of the mean
over a set's K segments:

    sigma^2 = mean of s_n^2                               delta^2 = mean of w_n - sigma^2 / R
    c = (MSB - MSW) / K                                   V = MSB / K = (sigma^2 + (K - 1) c) / K

(see `measuring`). Each is unbiased, so it may come out below zero where the truth is near it; none is cut off
at zero. A ratio is one of sums over sequences: consistent, its bias of the order of 1 / N, unlike that of a
mean of ratios.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fmlm_cli.analysis.gradient_noise.measuring import Records
from fmlm_cli.analysis.statistics import (
    FISHER_Z,
    LOGARITHM,
    Floats,
    Interval,
    Jackknife,
    Means,
)

Figure = Callable[[Means], Floats]


@dataclass(frozen=True)
class PerSequence:
    """Unbiased estimates for each of N sequences, float64[N] (`pair_covariance`: float64[N, H])."""

    mask_variance: Floats  # sigma_n^2
    random_variance: Floats  # of the mean over K random masks, sigma_n^2 / K
    full_variance: Floats  # of the mean over the K segments, V_n
    segment_covariance: Floats  # c_n(2 tau)
    pair_covariance: Floats  # c_n(h)


def per_sequence(records: Records) -> PerSequence:
    """The estimates for each sequence by itself; noisy, as so few gradients stand behind each."""
    k, (between, within) = records.plan.segments, records.segments.T
    return PerSequence(
        mask_variance=records.random,
        random_variance=records.random / k,
        full_variance=between / k,
        segment_covariance=(between - within) / k,
        pair_covariance=(records.distances[..., 0] - records.distances[..., 1]) / 2,
    )


@dataclass(frozen=True)
class Identity:
    """The two sides of Var_full / Var_random = 1 + (K - 1) c(2 tau) / sigma^2, and left minus right.

    `right` takes c(2 tau) from the segments. Then the difference is (sigma^2 of a segment - sigma^2 of a
    random mask) / sigma^2: it is zero if each segment by itself is a random mask. `right_of_pairs` and
    `difference_of_pairs` take c(2 tau) from pairs drawn for themselves, at distance 1; None if the plan has
    none.
    """

    left: Interval
    right: Interval
    difference: Interval
    right_of_pairs: Interval | None
    difference_of_pairs: Interval | None


@dataclass(frozen=True)
class Correlation:
    """c(h) / sigma^2 at `distance` h, as a share of 2 tau.

    At distance 0 the masks are the same, and what they show is drawn for each: 1 with [MASK] alone, less by
    the share of corruption's own noise otherwise (and of any other noise that gradients do not share).
    """

    distance: float
    value: Interval


@dataclass(frozen=True)
class Components:
    """Where the variance of one sequence's one random gradient comes from: squared gradient norms.

    `ratio`: data / masks. `data_share`: data / (data + masks).
    """

    masks: Interval
    data: Interval
    ratio: Interval
    data_share: Interval


@dataclass(frozen=True)
class EqualCompute:
    """Variance of a mean gradient over B rows, relative to that of B distinct sequences with one random mask.

    The schemes that `compare-masks` measures, with what each has within one step:

    - B distinct sequences, 1 random mask each: 1, the yardstick.
    - B/K sequences, K random masks each: `random_masks`.
    - B/K sequences, their K segments (scope batch): `segments`.
    - B distinct sequences, one segment each (scope epoch): 1, as a segment by itself is a random mask.

    Scope epoch shows in several steps. A window of K passes over the same B sequences, relative to K B
    distinct ones, has the same two numbers: `random_masks` with an independent mask in each pass, `segments`
    with a segment in each. Over whole passes of a fixed corpus, with the weights held fixed, the data's part
    is the same fixed sum whatever the masks and drops out: there scope epoch against independent masks, over
    K passes, is `Estimates.variance_ratio`, V / (sigma^2 / K).
    """

    random_masks: Interval  # K (delta^2 + sigma^2 / K) / (delta^2 + sigma^2)
    segments: Interval  # K (delta^2 + V) / (delta^2 + sigma^2)


@dataclass(frozen=True)
class NoiseSummary:
    """All figures of one set of records; the ratio for one sequence never without what a step makes of it.

    `sequences`: measured; `gradients`: of each. `relative_error`: what a sketch adds, see `Records`.
    """

    sequences: int
    gradients: int
    relative_error: float
    variance_ratio: Interval
    identity: Identity
    correlations: tuple[Correlation, ...]
    components: Components
    repeated_ratio: Interval
    equal_compute: EqualCompute


class Estimates:
    """Figures of one set of records, with jackknife-t intervals over sequences (`Jackknife`).

    They are made on a logarithmic scale for what cannot come out below zero, sigma^2 and full / random, as
    Fisher's z for correlations, and on the figure's own scale for all that delta^2 or c is in: their
    estimates may be below zero, and such an interval may hold zero too.

    How often intervals of 95 % held the truth, in simulated worlds with sigma_n^2 = exp(s z), z standard
    normal, 8 random masks, 2 sets of 7 segments and delta^2 / sigma^2 of 0.12 to 0.3. With s = 0.6 and 60 or
    100 sequences: 0.93 to 0.96, but for delta^2, 0.92 with 60, and the figures with delta^2 / sigma^2, up to
    0.97, where a sequence's part of the data grows with its noise (recursive residuals mix the first few
    sequences). With 10 to 30: 0.92 to 0.97, down to 0.88 to 0.91 for delta^2 in those worlds. With s = 1.2
    (the noise itself, not its square, log-normal with 0.6) and 60 or 100 sequences: 0.92 to 0.95 for
    delta^2 / sigma^2, equal compute, full / random and correlations, 0.90 to 0.92 for sigma^2 and
    `repeated_ratio`; with 10 to 30: 0.90 to 0.96 for the former, 0.85 to 0.90 for the latter. delta^2 itself
    is at 0.86 to 0.88 there, with 60 or 100, where it grows with the noise. ValueError for fewer than two
    sequences.
    """

    def __init__(self, records: Records, *, level: float = 0.95) -> None:
        self.records, self._k = records, records.plan.segments
        self._jackknife = Jackknife.of(_columns(records), level=level)

    def _sigma2(self, means: Means) -> Floats:
        return means["random"]

    def _delta2(self, means: Means) -> Floats:
        return means["recursive"] / means["has_recursive"] - means["random"] / self.records.plan.random

    def _full(self, means: Means) -> Floats:
        return means["between"] / self._k

    def _ratio(self, means: Means) -> Floats:
        return means["between"] / self._sigma2(means)

    def _right(self, means: Means) -> Floats:
        return 1 + (self._k - 1) * (means["between"] - means["within"]) / self._k / self._sigma2(means)

    def _right_of_pairs(self, means: Means) -> Floats:
        place = self.records.plan.distances.index(1.0)
        return 1 + (self._k - 1) * _correlation(means, place)

    def summary(self) -> NoiseSummary:
        """Everything."""
        return NoiseSummary(
            len(self.records.sequences),
            self.records.plan.gradients,
            self.records.relative_error,
            self.variance_ratio(),
            self.identity(),
            self.correlations(),
            self.components(),
            self.repeated_ratio(),
            self.equal_compute(),
        )

    def variance_ratio(self) -> Interval:
        """Var_full / Var_random of a mean over K masks, pooled: sum of V_n over sum of s_n^2 / K."""
        return self._jackknife.interval(self._ratio, LOGARITHM)

    def identity(self) -> Identity:
        """Both sides of the identity, measured."""
        interval = self._jackknife.interval
        pairs = 1.0 in self.records.plan.distances
        return Identity(
            left=self.variance_ratio(),
            right=interval(self._right),
            difference=interval(lambda m: self._ratio(m) - self._right(m)),
            right_of_pairs=interval(self._right_of_pairs) if pairs else None,
            difference_of_pairs=interval(lambda m: self._ratio(m) - self._right_of_pairs(m))
            if pairs
            else None,
        )

    def correlations(self) -> tuple[Correlation, ...]:
        """c(h) / sigma^2 at every distance of the plan, both from the pairs at h alone.

        c = (MSB - MSW) / 2 and sigma^2 = (MSB + MSW) / 2, the intraclass correlation of pairs (Fisher 1925):
        between -1 and 1, and exactly 1, its interval too, for pairs of equal gradients. Those are what
        distance 0 has with [MASK] alone, a control of the measurement: identical masks and corruption have
        the variance for covariance.
        """
        return tuple(
            Correlation(h, self._jackknife.interval(functools.partial(_correlation, place=place), FISHER_Z))
            for place, h in enumerate(self.records.plan.distances)
        )

    def components(self) -> Components:
        """Masks' and data's parts of the variance of one gradient: sigma^2 and delta^2."""
        interval, sigma2, delta2 = self._jackknife.interval, self._sigma2, self._delta2
        return Components(
            masks=interval(sigma2, LOGARITHM),
            data=interval(delta2),
            ratio=interval(lambda m: delta2(m) / sigma2(m)),
            data_share=interval(lambda m: delta2(m) / (delta2(m) + sigma2(m))),
        )

    def repeated_ratio(self) -> Interval:
        """Full / random where K masks of a sequence are averaged: (delta^2 + V) / (delta^2 + sigma^2 / K).

        The data's variance, which no mask changes, is in both. It is the ratio of the two numbers of
        `equal_compute`: of the mean gradients of B/K sequences with K masks in one step, and of K steps over
        the same B sequences.
        """

        def figure(means: Means) -> Floats:
            delta2 = self._delta2(means)
            return (delta2 + self._full(means)) / (delta2 + self._sigma2(means) / self._k)

        return self._jackknife.interval(figure)

    def equal_compute(self) -> EqualCompute:
        """What masking the same sequences K times costs, against K times as many sequences at fixed weights.

        The mean over N independent sequences varies by (delta^2 + M) / N, where M is the masks' part for one
        sequence: sigma^2 for one mask, sigma^2 / K for K random ones, V for the K segments. N is B for one
        mask and B/K for K.
        """
        k, sigma2 = self._k, self._sigma2

        def relative(masks: Figure) -> Interval:
            def figure(means: Means) -> Floats:
                delta2 = self._delta2(means)
                return k * (delta2 + masks(means)) / (delta2 + sigma2(means))

            return self._jackknife.interval(figure)

        return EqualCompute(random_masks=relative(lambda m: sigma2(m) / k), segments=relative(self._full))


def _columns(records: Records) -> Means:
    """What is averaged over sequences, float64[N] each. A sequence without a residual counts in no mean."""
    has_residual = np.isfinite(records.recursive)
    columns = {
        "random": records.random,
        "recursive": np.where(has_residual, records.recursive, 0.0),
        "has_recursive": has_residual.astype(np.float64),
        "between": records.segments[:, 0],
        "within": records.segments[:, 1],
    }
    for place in range(len(records.plan.distances)):
        columns[f"between{place}"] = records.distances[:, place, 0]
        columns[f"within{place}"] = records.distances[:, place, 1]
    return columns


def _correlation(means: Means, place: int) -> Floats:
    between, within = means[f"between{place}"], means[f"within{place}"]
    return (between - within) / (between + within)

"""What a comparison measures of gradients, as its results.json has it."""

from collections.abc import Mapping
from dataclasses import dataclass

MASK_ONLY = "[MASK] only"  # the corruption that shows every masked token as [MASK]


@dataclass(frozen=True)
class IntervalResult:
    """An estimate and its 95 % jackknife interval over rows; the ends are None where there is no interval."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CorrelationResult:
    """Correlation of two gradients of a row, whose masks are `distance` apart as a share of 2 tau."""

    distance: float
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ComponentsResult:
    """Parts of the variance of one gradient: squared gradient norms. `ratio`: data / masks."""

    masks: IntervalResult
    data: IntervalResult
    ratio: IntervalResult
    data_share: IntervalResult


@dataclass(frozen=True)
class EqualComputeResult:
    """Variance of a step over B forwarded rows relative to B different rows with one random mask each.

    Of B/K rows, with K random masks or with all K segments of each.
    """

    random_masks: IntervalResult
    segments: IntervalResult


@dataclass(frozen=True)
class VarianceResult:
    """Gradient variance of the baseline's model at checkpoint `name`, after `step` steps.

    `loss`: of that model. `corruption`: in words. `unit`: what is masked as a whole. `sequences` of `store`
    were measured; of those `looked_at`, `left_out` are too short for K = `segments`. `gradients` of each, of
    so many `parameters`; `relative_error`: that projecting them adds, at most. `ratio`: Var_full / Var_random
    for the masks of one row; `repeated_ratio`: with the rows' part in both. `identity`: its two sides, by
    name, as in `gradient_noise.estimators`.
    """

    name: str
    step: int
    loss: float | None
    corruption: str
    unit: str
    store: str
    sequences: int
    left_out: int
    looked_at: int
    segments: int
    gradients: int
    parameters: int
    relative_error: float
    ratio: IntervalResult
    identity: Mapping[str, IntervalResult]
    correlations: tuple[CorrelationResult, ...]
    components: ComponentsResult
    repeated_ratio: IntervalResult
    equal_compute: EqualComputeResult

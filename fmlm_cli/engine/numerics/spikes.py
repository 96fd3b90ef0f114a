"""Values that are far above their recent course."""

from collections.abc import Sequence
from statistics import median

RECENT = 100  # steps whose values are the course
_ENOUGH = 50  # of them, before anything is said
_APART = 20  # steps that have to lie between two spikes
_DEVIATIONS = 12.0
_TO_SIGMA = 1.4826  # times the median absolute deviation: a normal distribution's standard deviation


def spike(recent: Sequence[float], value: float, least: float) -> float | None:
    """The usual value, if `value` is a spike after the `recent` ones, the latest last; else None.

    It is one if it lies 12 standard deviations above the median, both robust, and is at least `least` times
    as large; and if none of the latest 20 was as far up, so that a spike of many steps is one.
    """
    if len(recent) < _ENOUGH:
        return None
    usual = median(recent)
    if value < least * usual:  # as a rule, and it saves the rest
        return None
    limit = usual + _DEVIATIONS * _TO_SIGMA * median(abs(other - usual) for other in recent)
    limit = max(limit, least * usual)
    return usual if value > limit >= max(recent[-_APART:]) else None

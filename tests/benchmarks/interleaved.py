"""Timing two ways of doing the same thing in turn, so that a machine's drift hits both alike."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Median seconds of each, and the median and quartiles of the ratio `theirs / ours`, pair by pair."""

    ours: float
    theirs: float
    ratio: float
    ratio_low: float
    ratio_high: float


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], pairs: int, warm_up: int = 2
) -> Comparison:
    """Time A B A B ... after a warm-up."""
    for _ in range(warm_up):
        ours()
        theirs()
    times = [(_seconds(ours), _seconds(theirs)) for _ in range(pairs)]
    ratios = [other / own for own, other in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    own, other = (statistics.median(column) for column in zip(*times, strict=True))
    return Comparison(own, other, middle, low, high)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin

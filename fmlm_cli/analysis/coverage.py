"""Coverage: which tokens the masks of some passes reach, and how often."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Coverage:
    """Figures over rows and passes.

    `covered[e]`: share of the maskable tokens that were masked at least once in passes 0 to e. `times[k]`:
    share of them that were masked k times in all passes. `rate`: masked share of a mask, on average.
    `smallest`, `mean`, `largest`: masked tokens of a mask. `empty`: share of the masks without a token.
    `stretch`: length of a stretch of neighbouring masked tokens, on average.
    """

    covered: tuple[float, ...]
    times: tuple[float, ...]
    rate: float
    smallest: int
    mean: float
    largest: int
    empty: float
    stretch: float


def measure_coverage(maskable: Bools, passes: Iterable[Bools]) -> Coverage:
    """The coverage of rows `maskable` bool[rows, length] by `passes`, each bool[rows, masks, length]."""
    total = max(1, int(maskable.sum()))
    times = np.zeros(maskable.shape, np.int64)
    covered, sizes, stretches = [], [], 0
    for masks in passes:
        times += masks.sum(axis=1)
        covered.append(float((times > 0).sum() / total))
        sizes.append(masks.sum(axis=2).ravel())
        stretches += int((masks[..., 0].sum()) + (masks[..., 1:] & ~masks[..., :-1]).sum())
    size = np.concatenate(sizes)
    return Coverage(
        covered=tuple(covered),
        times=tuple((np.bincount(times[maskable]) / total).tolist()),
        rate=float(size.sum() / (total * len(size) / len(maskable))),
        smallest=int(size.min()),
        mean=float(size.mean()),
        largest=int(size.max()),
        empty=float((size == 0).mean()),
        stretch=float(size.sum() / max(1, stretches)),
    )

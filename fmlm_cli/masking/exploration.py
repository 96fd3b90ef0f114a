"""Exploration: how the masks of one sequence relate to each other.

*Random*: every mask is drawn independently. *Full* (Zheng et al. 2020, arXiv 2010.06040): the maskable positions
are split at random into K segments of equal size, and mask k is segment k, so that the K masks are as far apart
as masks can be and together cover every position exactly once.

Arrays: `maskable` bool[rows, length]; `key` uint64[rows]; masks bool[rows, masks, length].
"""

import numpy as np
import numpy.typing as npt

from fmlm_cli import keys

Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

_REMAINDER = np.uint64(1 << 40)  # index of a stream's draw that belongs to the sequence, beyond all positions


def shuffled(maskable: Bools, key: UInt64s) -> tuple[Int64s, Int64s]:
    """Every row's maskable positions in random order.

    Returns `positions` int64[rows, length], of which the first `n[row]` are the row's maskable positions
    shuffled (the rest is meaningless), and `n` int64[rows].
    """
    length = maskable.shape[1]
    low = np.uint64((1 << max(1, (length - 1).bit_length())) - 1)
    index = np.arange(length, dtype=np.uint64)
    # The position rides in the draw's low bits: one plain sort, and no two draws are equal.
    draws = (keys.bits(key[:, None], index) & ~low) | index
    draws[~maskable] = np.uint64(0xFFFFFFFFFFFFFFFF)
    draws.sort(axis=1)
    return (draws & low).astype(np.int64), maskable.sum(axis=1)


def stochastic_round(values: npt.NDArray[np.floating], key: UInt64s) -> Int64s:
    """Round down or up so that the mean is exact: floor(value), plus one with probability the remainder."""
    return np.floor(values + keys.uniform(keys.bits(key, _REMAINDER))).astype(np.int64)


def random_mask(maskable: Bools, key: UInt64s, rate: float) -> Bools:
    """One uniformly random mask a row, of floor(rate * n) positions plus one with probability the remainder."""
    positions, n = shuffled(maskable, key)
    count = np.minimum(stochastic_round(rate * n, key), n)
    row, rank = np.nonzero(np.arange(maskable.shape[1]) < count[:, None])
    mask = np.zeros_like(maskable)
    mask[row, positions[row, rank]] = True
    return mask


def partition(maskable: Bools, key: UInt64s, segments: int) -> Int64s:
    """Split every row's maskable positions at random into `segments` segments; int64[rows, length], -1 elsewhere.

    Sizes differ by at most one. The shuffled positions are dealt out in turn, beginning with a segment drawn
    for the row: so each segment is equally likely to be one of the larger ones.
    """
    positions, n = shuffled(maskable, key)
    begin = keys.below(keys.bits(key, _REMAINDER), segments)
    row, rank = np.nonzero(np.arange(maskable.shape[1]) < n[:, None])
    segment = np.full(maskable.shape, -1, np.int64)
    segment[row, positions[row, rank]] = (rank + begin[row]) % segments
    return segment

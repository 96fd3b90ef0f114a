"""How the masked rows of a step are cut into micro-batches, so that padding is not computed."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

_MULTIPLE = 8  # columns: a GPU's matrix products, and a CPU's, are slower on odd numbers of them


class Cut(NamedTuple):
    """A micro-batch: which masked rows, in the order that they were cut in, and how many of their columns."""

    part: slice
    width: int


def columns_used(segments: Int64s) -> Int64s:
    """How many columns of each row there are up to the last that is not padding. int64[rows]."""
    used = segments[:, ::-1] > 0
    return np.where(used.any(axis=1), segments.shape[1] - used.argmax(axis=1), 0)


def longest_first(used: Int64s) -> Int64s | None:
    """The order of rows by their columns used, those that are as long as before; None where it is theirs."""
    order = np.argsort(-used, kind="stable")
    return None if (np.diff(order) > 0).all() else order


def cut_in_rows(rows: int, length: int, micro_size: int) -> Iterator[Cut]:
    """`micro_size` whole rows at a time."""
    for begin in range(0, rows, micro_size):
        yield Cut(slice(begin, begin + micro_size), length)


def cut_by_longest(used: Int64s, length: int, micro_size: int) -> Iterator[Cut]:
    """As many rows at a time as `micro_size` whole ones have room for, without the columns that none uses.

    `used`: columns used of each row, the longest first.
    """
    begin = 0
    while begin < len(used):
        width = min(length, -(-max(int(used[begin]), 1) // _MULTIPLE) * _MULTIPLE)
        end = min(begin + micro_size * length // width, len(used))
        yield Cut(slice(begin, end), width)
        begin = end


def cut_by_tokens(tokens: Int64s, length: int, micro_size: int) -> Iterator[Cut]:
    """As many rows at a time as have no more tokens than `micro_size` whole ones have positions.

    `tokens`: of each row, at most `length`.
    """
    after = np.cumsum(tokens)
    begin = 0
    while begin < len(tokens):
        full = (after[begin - 1] if begin else 0) + micro_size * length
        end = int(np.searchsorted(after, full, side="right"))
        yield Cut(slice(begin, end), length)
        begin = end

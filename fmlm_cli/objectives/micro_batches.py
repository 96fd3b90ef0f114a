"""How the masked rows of a step are cut into micro-batches, so that padding is not computed."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

_MULTIPLE = 8  # columns: a GPU's matrix products, and a CPU's, are slower on odd numbers of them

# What takes as long as a micro-batch takes beyond its positions: on a CPU some calls of each layer, on a GPU
# as many kernels, in whose time it computes far more.
COST_ON_CPU, COST_ON_GPU = 128, 4096  # positions


class Cut(NamedTuple):
    """A micro-batch: which masked rows, in the order that they were cut in, and how many of their columns."""

    part: slice
    width: int


def columns_needed(segments: Int64s) -> Int64s:
    """How many columns each row needs: up to the last that is not padding, in steps of eight. int64[rows]."""
    length = segments.shape[1]
    real = segments[:, ::-1] > 0
    used = np.where(real.any(axis=1), length - real.argmax(axis=1), 1)
    return np.minimum(-(-used // _MULTIPLE) * _MULTIPLE, length)


def widest_first(needed: Int64s) -> Int64s | None:
    """The order of rows by the columns needed, those of a width as they were; None where it is theirs."""
    order = np.argsort(-needed, kind="stable")
    return None if (np.diff(order) > 0).all() else order


def cut_in_rows(rows: int, length: int, micro_size: int) -> Iterator[Cut]:
    """`micro_size` whole rows at a time."""
    for begin in range(0, rows, micro_size):
        yield Cut(slice(begin, begin + micro_size), length)


def cut_by_widest(needed: Int64s, length: int, micro_size: int, cost: int) -> Iterator[Cut]:
    """As many rows at a time as `micro_size` whole ones have room for, without the columns that none needs.

    Fewer where the padding of shorter rows would come to more than another micro-batch costs. `needed`:
    columns that each row needs, the widest first. `cost`: of a micro-batch beyond its positions, in
    positions.
    """
    begin = 0
    while begin < len(needed):
        width = int(needed[begin])
        fitting = needed[begin : begin + micro_size * length // width]
        padding = np.cumsum(width - fitting)
        end = begin + int(np.searchsorted(padding, cost, side="right"))
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

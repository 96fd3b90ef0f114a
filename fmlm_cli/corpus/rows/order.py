"""The order in which rows come: any place of an endless stream, computed from (seed, pass)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fmlm_cli import keys
from fmlm_cli.corpus.rows.reading import RowReader

Int64s = npt.NDArray[np.int64]

_GROUP = 4  # rows of like length that follow each other: steps of 32 rows are then as even as by chance
_STEP = 8  # positions: rows that differ by less are alike, so that not the same ones meet in every pass
_WINDOW = 4096  # rows among which those of like length are looked for


@dataclass(frozen=True)
class RowOrder:
    """The endless stream of rows: pass after pass, each a permutation computed from (seed, pass)."""

    rows: int
    seed: int

    def locate(self, position: Int64s) -> tuple[Int64s, Int64s]:
        """Row index and pass (the row's epoch) at these positions of the stream. int64[n] each."""
        epoch, place = np.divmod(position, self.rows)
        return self._permuted(place, epoch), epoch

    def _permuted(self, place: Int64s, epoch: int | Int64s) -> Int64s:
        return keys.permute(place, self.rows, keys.derive(self.seed, keys.Stream.ROW_ORDER, epoch))


@dataclass(frozen=True, eq=False)
class LikeLengthOrder(RowOrder):
    """The same, but that rows of like length follow each other, some at a time. `lengths`: of rows by index.

    A pass is a permutation as above, cut into windows. The rows of a window, sorted by length, make groups of
    `_GROUP`, and these come in an order in which any few that follow each other are spread over all lengths:
    that of the multiples of the golden ratio modulo 1, turned by a number drawn for the window.

    So a step can be cut into micro-batches with little padding, and is a sample of all lengths nevertheless.
    Steps of a single length each would not do: a step's gradient is a mean over its own tokens, so those of
    short rows, few to a step, would weigh more than others.
    """

    lengths: Callable[[Int64s], Int64s]

    def locate(self, position: Int64s) -> tuple[Int64s, Int64s]:
        """As `RowOrder.locate`."""
        epoch, place = np.divmod(position, self.rows)
        window, within = np.divmod(place, _WINDOW)
        index = np.empty_like(position)
        for e, w in {*zip(epoch.tolist(), window.tolist(), strict=True)}:
            here = (epoch == e) & (window == w)
            index[here] = _window(self, e, w)[within[here]]
        return index, epoch

    def window(self, epoch: int, number: int) -> Int64s:
        """The rows of a window in their order. int64[rows of the window]"""
        place = np.arange(number * _WINDOW, min((number + 1) * _WINDOW, self.rows))
        rows = self._permuted(place, epoch)
        grouped = rows[: len(rows) // _GROUP * _GROUP]
        steps = -(-self.lengths(grouped) // _STEP)
        by_length = np.argsort(steps, kind="stable").reshape(-1, _GROUP)
        groups = grouped[np.sort(by_length, axis=1)]  # in a group as they came: any place is any row's
        turns = _turns(len(groups), keys.derive(self.seed, keys.Stream.LENGTH_GROUPS, epoch, number))
        return np.concatenate([groups[turns].ravel(), rows[len(grouped) :]])


def _turns(groups: int, key: keys.UInt64s) -> Int64s:
    """Ranks in the order in which they come, each equally likely anywhere: int64[groups]."""
    rank = np.empty(groups, np.int64)
    rank[np.argsort(np.arange(groups, dtype=np.uint64) * keys.GOLDEN)] = np.arange(groups)
    return (rank + keys.below(keys.bits(key, 0), max(1, groups))) % max(1, groups)


@lru_cache(maxsize=32)
def _window(order: LikeLengthOrder, epoch: int, number: int) -> Int64s:
    return order.window(epoch, number)


def order_of(reader: RowReader, seed: int) -> RowOrder:
    """The order that suits a reader's rows: those of one document each differ in length."""
    if reader.plan.packing == "none":
        return LikeLengthOrder(len(reader), seed, reader.lengths)
    return RowOrder(len(reader), seed)

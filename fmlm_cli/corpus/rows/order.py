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
    their ranks are a Weyl sequence of the golden ratio, from a place drawn for the window.

    So a step can be cut into micro-batches with little padding, and is a sample of all lengths nevertheless.
    Steps of a single length each would not do: a step's gradient is a mean over its own tokens, so those of
    short rows, few to a step, would weigh more than others.
    """

    lengths: Callable[[Int64s], npt.NDArray[np.integer]]

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
        by_length = np.argsort(self.lengths(grouped), kind="stable").reshape(-1, _GROUP)
        groups = grouped[np.sort(by_length, axis=1)]  # in a group as they came: any place is any row's
        start = keys.derive(self.seed, keys.Stream.LENGTH_GROUPS, epoch, number)
        turns = np.argsort(keys.weyl(start, len(groups)))
        rank = np.empty(len(groups), np.int64)
        rank[turns] = np.arange(len(groups))
        return np.concatenate([groups[rank].ravel(), rows[len(grouped) :]])


@lru_cache(maxsize=32)
def _window(order: LikeLengthOrder, epoch: int, number: int) -> Int64s:
    return order.window(epoch, number)


def order_of(reader: RowReader, seed: int) -> RowOrder:
    """The order that suits a reader's rows: those of one document each differ in length."""
    if reader.plan.packing == "none":
        return LikeLengthOrder(len(reader), seed, reader.lengths)
    return RowOrder(len(reader), seed)

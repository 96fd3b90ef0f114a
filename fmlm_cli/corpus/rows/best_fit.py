"""Best fit decreasing: many items of few sizes into rows of one capacity, a size at a time."""

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


def best_fit_decreasing(sizes: npt.NDArray[np.integer], capacity: int) -> tuple[Int64s, int]:
    """The row of each item, int64[items], and how many rows there are.

    The largest item first, each into the fullest row that still holds it (Johnson 1974, "Fast algorithms for
    bin packing"). `sizes`: integers [items], from 1 to `capacity`.

    Items of a size are one number, and so are rows with the same space left: the fullest row that holds an
    item is less full than no other that does once the item is in it, so it takes items of that size until it
    has no room for another, and rows like it do the same. Hence no step for each item, but one for each size
    and each space that it meets.
    """
    rows = _Rows(capacity)
    counts = np.bincount(sizes, minlength=1)
    runs = [run for size in np.flatnonzero(counts)[::-1].tolist() for run in rows.fill(size, counts[size])]
    first, number, each = np.array(runs, np.int64).reshape(-1, 3).T
    items = number * each
    within = np.arange(len(sizes)) - np.repeat(np.cumsum(items) - items, items)
    row = np.empty(len(sizes), np.int64)
    order = np.argsort(capacity - sizes, kind="stable")
    row[order] = np.repeat(first, items) + within // np.repeat(each, items)
    return row, rows.number


class _Rows:
    """Rows by the space that is left in them, as runs (first row, how many). `number`: of all rows.

    Bit s of the integer `_spaces` says that some row has space s: the fullest row that holds an item is the
    lowest bit from the item's size on.
    """

    def __init__(self, capacity: int) -> None:
        self.number = 0
        self._capacity = capacity
        self._spaces = 0
        self._by_space: list[list[tuple[int, int]]] = [[] for _ in range(capacity + 1)]

    def fill(self, size: int, items: int) -> list[tuple[int, int, int]]:
        """Put in items of a size: runs of rows, as (first row, rows, items in each), in turn."""
        filled = []
        left = int(items)
        while left:
            fitting = self._spaces >> size
            space = size + (fitting & -fitting).bit_length() - 1 if fitting else self._capacity
            each = min(space // size, left)
            first, rows = self._take(space, left // each) if fitting else self._open(left // each)
            filled.append((first, rows, each))
            self._put(space - each * size, first, rows)
            left -= rows * each
        return filled

    def _open(self, rows: int) -> tuple[int, int]:
        self.number += rows
        return self.number - rows, rows

    def _take(self, space: int, most: int) -> tuple[int, int]:
        """A run of at most so many rows that have this space."""
        runs = self._by_space[space]
        first, rows = runs.pop()
        if rows > most:
            runs.append((first + most, rows - most))
        elif not runs:
            self._spaces ^= 1 << space
        return first, min(rows, most)

    def _put(self, space: int, first: int, rows: int) -> None:
        self._by_space[space].append((first, rows))
        self._spaces |= 1 << space

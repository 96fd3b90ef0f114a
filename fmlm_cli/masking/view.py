"""Rows as masking sees them: what can be masked, where words begin, and who the rows are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class RowView:
    """Some rows of one length. ValueError where the arrays' shapes do not agree.

    `maskable`: bool[rows, length], False for special and unknown tokens and for padding. `word_starts`:
    bool[rows, length], where words begin, or None where nothing says so. `row_ids`: int64[rows], the rows'
    identities, which all that is drawn for them depends on. `input_ids`: int64[rows, length], the tokens, or
    None where nothing needs them.
    """

    maskable: Bools
    word_starts: Bools | None
    row_ids: Int64s
    input_ids: Int64s | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.maskable)
        if len(shape) != 2:
            raise ValueError(f"maskable has to be bool[rows, length], not of shape {list(shape)}")
        expected = {"word_starts": shape, "row_ids": shape[:1], "input_ids": shape}
        for name, its_shape in expected.items():
            array = getattr(self, name)
            if array is not None and np.shape(array) != its_shape:
                raise ValueError(
                    f"{name} of shape {list(np.shape(array))} does not fit maskable, bool{list(shape)}: "
                    f"it has to be {list(its_shape)}"
                )

    def __len__(self) -> int:
        return len(self.maskable)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and positions in each."""
        rows, length = self.maskable.shape
        return rows, length

    def take(self, rows: slice | Int64s | Sequence[int]) -> "RowView":
        """Some of the rows, in this order, any of them as often as it is named."""
        return self._each(lambda array: array[rows])

    def repeated(self, number: int) -> "RowView":
        """Every row so many times in turn: n x 0, n x 1, ..."""
        return self if number == 1 else self._each(lambda array: np.repeat(array, number, axis=0))

    def read_only(self) -> "RowView":
        """The same rows in arrays that cannot be written to."""
        return self._each(read_only)

    def _each(self, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> "RowView":
        starts, ids = self.word_starts, self.input_ids
        return RowView(
            change(self.maskable),
            None if starts is None else change(starts),
            change(self.row_ids),
            None if ids is None else change(ids),
        )


def read_only(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """The same array, which cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view

"""The layouts in which a model takes a batch: for each, one function from rows to `MaskedLM`'s inputs."""

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Int64s = npt.NDArray[np.int64]
LayoutName = Literal["rows", "flat"]

SHAPES = 8  # lengths of a flat row that is not full: each is compiled for anew
_STEP = 64  # positions: below it a GPU gains nothing


class Layout(Protocol):
    """What every layout's function is given, int64[rows, length] but for `masked`, and what it gives.

    `position_ids`: places within the document. `segments`: 0 for padding, else the number of the document
    within its row, whose positions are neighbours. `masked`: int64[masked], the positions to predict, counted
    through the flattened rows. `room`: how many positions a batch may have, by which a layout makes batches
    of the same shape; default: as many as these rows have.

    The result holds `input_ids`, `masked_index`, and what the attention backends of this layout read besides.
    """

    def __call__(
        self,
        input_ids: Int64s,
        position_ids: Int64s,
        segments: Int64s,
        masked: Int64s,
        room: int | None = None,
    ) -> dict[str, Any]:
        """The inputs of a model, tensors and plain values; they share memory with what was given."""
        ...


def as_rows(
    input_ids: Int64s, position_ids: Int64s, segments: Int64s, masked: Int64s, room: int | None = None
) -> dict[str, Any]:
    """The rows as they are, whatever the room, with `position_ids`, `segments`, `alone` beside ids and index.

    `alone`: no row holds more than one document; then padding is all that has to be kept out of attention,
    and where there is none either, `segments` is None.
    """
    alone = bool(segments.max(initial=0) <= 1)
    nothing_hidden = alone and np.count_nonzero(segments) == segments.size
    return {
        "input_ids": torch.from_numpy(input_ids),
        "position_ids": torch.from_numpy(position_ids),
        "segments": None if nothing_hidden else torch.from_numpy(segments),
        "masked_index": torch.from_numpy(masked),
        "alone": alone,
    }


def as_flat(
    input_ids: Int64s, position_ids: Int64s, segments: Int64s, masked: Int64s, room: int | None = None
) -> dict[str, Any]:
    """One row of the documents end to end, without padding, then documents of nothing up to a fixed length.

    Beside ids and index, which point into that row [1, positions]: `position_ids`; `cu_seqlens`,
    int32[documents + 1], where each document begins, and the number of positions from the last one on;
    `max_length`, the length of the rows given, which no document exceeds. No masked position is padding.

    Full rows give rows of `room` positions, others of a multiple of an eighth of that; and there is room for
    two documents to a row, or four, or eight: all steps of a run share a few shapes.
    """
    length = input_ids.shape[1]
    room = room or input_ids.size
    real = segments.ravel() > 0
    at = np.flatnonzero(real)
    tokens, total = len(at), _flat_length(len(at), room)
    ids, positions = np.zeros((2, 1, total), np.int64)
    ids[0, :tokens] = input_ids.ravel()[at]
    positions[0, :tokens] = position_ids.ravel()[at]
    positions[0, tokens:] = np.arange(total - tokens) % length
    document = np.stack([at // length, segments.ravel()[at]])
    begins = np.flatnonzero((np.diff(document, axis=1, prepend=-1) != 0).any(axis=0))
    begins = np.concatenate([begins, np.arange(tokens, total, length)])
    bounds = np.full(_bounds(len(begins), room, length), total, np.int32)
    bounds[: len(begins)] = begins
    return {
        "input_ids": torch.from_numpy(ids),
        "position_ids": torch.from_numpy(positions),
        "masked_index": torch.from_numpy(np.cumsum(real)[masked] - 1),
        "cu_seqlens": torch.from_numpy(bounds),
        "max_length": length,
    }


def _flat_length(tokens: int, room: int) -> int:
    """Positions of a flat row that holds so many tokens."""
    step = max(_STEP, math.ceil(room / SHAPES))
    return max(tokens, min(max(1, math.ceil(tokens / step)) * step, room))


def _bounds(documents: int, room: int, length: int) -> int:
    """Entries of `cu_seqlens`. What is too many costs time: a kernel looks at each."""
    places = 2 * math.ceil(room / length)
    while places < documents:
        places *= 2
    return places + 1


LAYOUTS: Mapping[LayoutName, Layout] = {"rows": as_rows, "flat": as_flat}


def on_device(inputs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A layout's result with its tensors on `device`."""
    return {name: v.to(device) if isinstance(v, Tensor) else v for name, v in inputs.items()}

"""The layouts in which a model takes a batch: for each, one function from rows to `MaskedLM`'s inputs."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Int64s = npt.NDArray[np.int64]
LayoutName = Literal["rows"]


class Layout(Protocol):
    """What every layout's function is given, int64[rows, length] but for `masked`, and what it gives.

    `position_ids`: places within the document. `segments`: 0 for padding, else the number of the document
    within its row. `masked`: int64[masked], the positions to predict, counted through the flattened rows.

    The result holds `input_ids`, `masked_index`, and what the attention backends of this layout read besides.
    """

    def __call__(
        self, input_ids: Int64s, position_ids: Int64s, segments: Int64s, masked: Int64s
    ) -> dict[str, Any]:
        """The inputs of a model, tensors and plain values; they share memory with what was given."""
        ...


def as_rows(input_ids: Int64s, position_ids: Int64s, segments: Int64s, masked: Int64s) -> dict[str, Any]:
    """The rows as they are, with `position_ids`, `segments`, `alone` beside ids and index.

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


LAYOUTS: Mapping[LayoutName, Layout] = {"rows": as_rows}


def on_device(inputs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A layout's result with its tensors on `device`."""
    return {name: v.to(device) if isinstance(v, Tensor) else v for name, v in inputs.items()}

"""Arrow columns of numpy's arrays and back. `pa.array` and `to_numpy` would import all of pandas first."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def column(values: npt.NDArray) -> pa.Array:
    """Numbers without being copied, or bools, which become bits: [n], none of them missing."""
    if values.dtype == np.bool_:
        content = np.packbits(values, bitorder="little")
    else:
        content = np.ascontiguousarray(values)
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(content)])


def lists(values: npt.NDArray, lengths: npt.NDArray[np.int64]) -> pa.ListArray:
    """A column of lists, whose items lie end to end in `values`: [sum of lengths]."""
    ends = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=ends[1:])
    return pa.ListArray.from_arrays(column(ends), column(values))


def array(values: pa.Array) -> npt.NDArray:
    """A column of numbers without being copied, or of bools: [n], none of them missing."""
    if not pa.types.is_boolean(values.type):
        return np.from_dlpack(values)
    bits = np.frombuffer(values.buffers()[1] or b"", np.uint8)
    return np.unpackbits(bits, count=values.offset + len(values), bitorder="little")[values.offset :].view(
        bool
    )

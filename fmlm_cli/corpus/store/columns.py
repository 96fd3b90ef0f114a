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
    """A column of numbers, without being copied and not to be written to, or of bools: [n], none missing."""
    content = values.buffers()[1] or b""
    if pa.types.is_boolean(values.type):
        bits = np.unpackbits(
            np.frombuffer(content, np.uint8), count=values.offset + len(values), bitorder="little"
        )
        return bits[values.offset :].view(bool)
    kind = np.dtype(values.type.to_pandas_dtype())  # which imports nothing
    return np.frombuffer(content, kind, len(values), values.offset * kind.itemsize)

"""How the C library hands out memory: a training step asks for the same large tensors again and again."""

import ctypes
import sys

# Names of parameters in <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_EXTRA = 64 << 20  # bytes asked of the system beyond what is needed


def keep_freed_memory() -> bool:
    """Have this process keep freed memory for what comes next; False where the C library is not glibc.

    By its defaults glibc gives every large tensor back to the system, which hands out the next one as new
    pages of zeros: for the logits, gradients and activations of a small model on a CPU, a fifth to a third of
    a step. Memory that is kept counts as this process's until its end.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    asked = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _EXTRA))
    return all(libc.mallopt(parameter, value) == 1 for parameter, value in asked)

"""What a model runs on: device, precision and processes, and how much of a device's speed a run uses."""

import contextlib
import ctypes
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fmlm_cli.engine.ranks.protocol import OneProcess, Ranks
from fmlm_cli.errors import UserError

_PROC_STATUS = Path("/proc/self/status")

# Parameters of memory allocation, by their names in <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_EXTRA = 64 << 20  # bytes asked of the system beyond what is needed


@dataclass(frozen=True)
class Runtime:
    """What a model runs on. `precision`: of its matrix products.

    `low_weights`: the weights that compute have this precision themselves, in a `WorkingCopy`; else they are
    float32, and autocast sees to the products. `ranks`: the processes that have a part in each step and
    evaluation. `deterministic`: whether what it computes again has to be the same bits. `shard`: whether each
    process holds a part of the model; then all of them take part in each forward and backward.
    """

    device: torch.device
    precision: torch.dtype
    ranks: Ranks = field(default_factory=OneProcess)
    low_weights: bool = False
    deterministic: bool = False
    shard: bool = False

    @classmethod
    def resolve(
        cls,
        device: str = "auto",
        precision: str = "auto",
        ranks: Ranks | None = None,
        *,
        deterministic: bool = False,
        shard: bool = False,
        threads: int | None = None,
    ) -> "Runtime":
        """The runtime that settings name; `ranks`: the processes that train together, this one alone if None.

        auto: a GPU where there is one, and bfloat16 where that has it. Where it is a CPU, this process keeps
        the memory that it frees from now on. If `deterministic`, all that it computes is so from now on, and
        if `threads` are given it is done by so many.
        Raises `UserError` for a device that is unknown or not there,
        and for a precision that it has no instructions for.
        """
        resolved, ranks = _resolve_device(device), ranks or OneProcess()
        ranks.meet_on(resolved)
        if resolved.type == "cpu":
            keep_freed_memory()
        if threads is not None:
            torch.set_num_threads(threads)
        if resolved.type == "cuda":
            # Its gradients in bfloat16 were reported to be NaN on a Hopper card; other kernels are as fast.
            torch.backends.cuda.enable_cudnn_sdp(False)
        if deterministic:
            _be_deterministic()
        low_weights = precision == "bfloat16-weights"
        products = _resolve_precision(precision, resolved)
        return cls(resolved, products, ranks, low_weights, deterministic, shard and ranks.world > 1)

    @property
    def alone(self) -> "Runtime":
        """The same for what this process does without the others."""
        return replace(self, ranks=OneProcess(), shard=False)

    def leaves(self, asked: bool) -> bool:
        """Whether to leave between two batches, if this process is `asked` to; who is sharded, together."""
        return self.ranks.any(asked) if self.shard else asked

    @property
    def exact(self) -> torch.dtype:
        """What sums are taken in: float64, which MPS has not."""
        return torch.float32 if self.device.type == "mps" else torch.float64

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which a forward runs."""
        if self.precision.itemsize >= torch.float32.itemsize or self.low_weights:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    def synchronize(self) -> None:
        """Wait until the device has done what it was given, so that a clock tells the truth."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def forget_peak_memory(self) -> None:
        """Let `peak_memory` begin anew, where a device counts its own."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory(self) -> int:
        """The most bytes that were in use so far: those of a GPU, else the process's resident ones."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _peak_resident()


def _peak_resident() -> int:
    """Bytes of the process's memory that were resident at once."""
    # Linux's getrusage may count what the process that started this one took.
    for line in _PROC_STATUS.read_text().splitlines() if _PROC_STATUS.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # macOS counts bytes, others KiB


def measure_peak(runtime: Runtime, seconds: float = 0.4) -> float:
    """The device's speed in FLOP/s: the fastest of the square matrix products that fit in `seconds`."""
    size = 8192 if runtime.device.type == "cuda" else 1024
    # Random numbers, for a GPU multiplies ones faster; of a generator that nothing else draws from.
    generator = torch.Generator(runtime.device).manual_seed(0)
    a = torch.randn(size, size, device=runtime.device, dtype=runtime.precision, generator=generator)
    best, end = 0.0, time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < end:
        runtime.synchronize()
        begin = time.perf_counter()
        torch.mm(a, a)
        runtime.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - begin))
    return best


@torch.no_grad()
def count_flops(forward: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and attention of one forward."""
    # As plain matrix products, for the counter has no formula for the attention kernel of a CPU; and not
    # compiled, for what is compiled cannot be looked into.
    eager = torch.compiler.set_stance("force_eager")
    with eager, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        forward()
    return int(counter.get_total_flops())


def _be_deterministic() -> None:
    """Have this process use algorithms alone whose sums are always in one order."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA begins
    os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"  # read when anything is first compiled
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # it is read by none
    torch.backends.cudnn.benchmark = False


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device '{name}': known are auto, cpu, cuda, cuda:N, mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device '{name}' is not there: torch sees {torch.cuda.device_count()} CUDA devices; "
            "use device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not there; use device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"unknown device '{name}': known are auto, cpu, cuda, cuda:N, mps")
    if name == "cuda" and (own := torch.cuda.current_device()):
        return torch.device("cuda", own)  # by its number, for other threads of this process begin at 0
    return device


def _resolve_precision(name: str, device: torch.device) -> torch.dtype:
    if name in ("bfloat16", "bfloat16-weights"):
        if device.type == "cpu" and not _computes_in_bfloat16():
            raise UserError(
                f"precision {name}: this processor has no instructions for bfloat16, and would take many "
                "times as long as with float32; use --set precision=float32"
            )
        return torch.bfloat16
    if name == "float16":
        if device.type != "cuda":
            raise UserError(
                f"precision float16 needs a CUDA device, and this is {device}: use --set precision=float32"
            )
        return torch.float16
    # Not float16 elsewhere: it leaves out steps as its scale happens to fall, which nobody gets unasked.
    if name == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def _computes_in_bfloat16() -> bool:
    """Whether the processor itself has products of bfloat16, which can also be played by those of float32."""
    if platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_avx512_bf16_supported())
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


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

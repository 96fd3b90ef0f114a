"""What a model runs on: device, precision and processes, and how much of a device's speed a run uses."""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fmlm_cli.engine.ranks import OneProcess, Ranks
from fmlm_cli.errors import UserError


@dataclass(frozen=True)
class Runtime:
    """What a model runs on. `precision`: of its matrix products, by autocast; weights stay float32.

    `ranks`: the processes that have a part in each step and evaluation.
    """

    device: torch.device
    precision: torch.dtype
    ranks: Ranks = field(default_factory=OneProcess)

    @classmethod
    def resolve(cls, device: str = "auto", precision: str = "auto") -> "Runtime":
        """The runtime that settings name. Raises `UserError` for a device that is unknown or not there.

        auto: a GPU where there is one, and bfloat16 where that has it.
        """
        resolved = _resolve_device(device)
        return cls(resolved, _resolve_precision(precision, resolved))

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which a forward runs."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    def synchronize(self) -> None:
        """Wait until the device has done what it was given, so that a clock tells the truth."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def measure_peak(runtime: Runtime, seconds: float = 0.4) -> float:
    """The device's speed in FLOP/s: the fastest of the square matrix products that fit in `seconds`."""
    size = 8192 if runtime.device.type == "cuda" else 1024
    a = torch.ones(size, size, device=runtime.device, dtype=runtime.precision)
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
            "use --set device=cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not there; use --set device=cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"unknown device '{name}': known are auto, cpu, cuda, cuda:N, mps")
    return device


def _resolve_precision(name: str, device: torch.device) -> torch.dtype:
    if name == "bfloat16":
        return torch.bfloat16
    if name == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32

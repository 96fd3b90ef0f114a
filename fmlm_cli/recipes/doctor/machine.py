"""What a machine has: memory, disk, cores as far as this process may use them, and how fast they are."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from fmlm_cli import storage
from fmlm_cli.cores import share_of_cores
from fmlm_cli.engine.runtime import Runtime, measure_peak

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_COPIED = 64 << 20  # bytes of a tensor that is copied to time memory: more than any cache holds


@dataclass(frozen=True)
class Machine:
    """`cores`: that this process may use, fewer where a container limits it. Sizes in bytes.

    `load`: processes that run or want to, over the last minute; None where the system does not say.
    """

    cores: float
    threads: int
    load: float | None
    memory: int | None
    memory_free: int | None
    disk_free: int
    accelerators: tuple[str, ...]


@dataclass(frozen=True)
class Speed:
    """Measured: FLOP/s of matrix products in the run's precision, bytes/s that memory is copied at."""

    matrix: float
    memory: float


def look(folder: Path) -> Machine:
    """What there is now. `folder`: the disk that it lies on, or will, is looked at."""
    total, free = _memory()
    return Machine(
        cores=share_of_cores(),
        threads=torch.get_num_threads(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        memory=total,
        memory_free=free,
        disk_free=storage.free_space(folder),
        accelerators=tuple(map(_accelerator, range(torch.cuda.device_count()))),
    )


def _accelerator(number: int) -> str:
    facts = torch.cuda.get_device_properties(number)
    return f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"


def _memory() -> tuple[int | None, int | None]:
    """All of it and what is free, by the system and by the limit of a container (cgroup v2)."""
    if not _MEMINFO.exists():
        return None, None
    lines = dict(line.split(":") for line in _MEMINFO.read_text(encoding="ascii").splitlines() if ":" in line)
    total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit, used = _words(_CGROUP / "memory.max"), _words(_CGROUP / "memory.current")
    if limit and limit[0].isdigit() and used:
        allowed = int(limit[0])
        return min(total, allowed), min(free, max(allowed - int(used[0]), 0))
    return total, free


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []


def measure(runtime: Runtime) -> Speed:
    """A second of matrix products and copies."""
    return Speed(measure_peak(runtime), _copied_a_second(runtime))


def _copied_a_second(runtime: Runtime, seconds: float = 0.4) -> float:
    source = torch.ones(_COPIED, dtype=torch.uint8, device=runtime.device)
    target = torch.empty_like(source)
    best, end = 0.0, time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < end:
        runtime.synchronize()
        begin = time.perf_counter()
        target.copy_(source)
        runtime.synchronize()
        best = max(best, _COPIED / (time.perf_counter() - begin))
    return best

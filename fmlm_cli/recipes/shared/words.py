"""Facts that several recipes tell, in words."""

import os
import statistics
import time
from pathlib import Path

import torch

from fmlm_cli.cores import usable_cores
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.events import Caution, Emit, counted

BUSY = "busy"  # the code of the caution about other work
_LOADAVG = Path("/proc/loadavg")
_LOOKS, _APART = 9, 0.01  # seconds


def where_line(runtime: Runtime) -> str:
    """Processes, device and precision."""
    precision = str(runtime.precision).removeprefix("torch.")
    weights = " weights, kept in float32 by the optimizer" if runtime.low_weights else ""
    world = runtime.ranks.world
    parts = ", each with a part of the model" if runtime.shard else ""
    several = f"{world} processes{parts}, on " if world > 1 else ""
    return f"{several}{runtime.device}, {precision}{weights}"


def caution_of_others(runtime: Runtime, emit: Emit) -> None:
    """Say so where a CPU has other work, by which its threads wait for each other in every step."""
    others, own = at_work(), torch.get_num_threads()
    machine = os.cpu_count() or 1
    if runtime.device.type != "cpu" or runtime.ranks.world > 1 or not others or others + own <= machine:
        return
    spare = max(1, min(usable_cores(), machine - others))
    advice = f"; --threads {spare} may be faster" if spare < own else ""
    busy = (
        f"this machine is busy: {counted(others, 'thread')} of other work on {counted(machine, 'core')}, and "
        f"{counted(own, 'thread')} here, which wait for each other in every step"
    )
    emit(Caution(f"{busy}{advice}", BUSY))


def at_work() -> int:
    """Threads of others that run or wait for a core at this moment; 0 where that is not known."""
    if not _LOADAVG.exists():
        return 0
    looks = []
    for _ in range(_LOOKS):
        time.sleep(_APART)
        running = _LOADAVG.read_text().split()[3].partition("/")[0]
        looks.append(max(0, int(running) - 1))  # but for the one that looks
    return round(statistics.median(looks))

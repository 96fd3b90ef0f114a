"""How many cores this process may use."""

import os
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def share_of_cores() -> float:
    """Cores that this process may use: by affinity, and by the share of time of a container (cgroup v2)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, _, period = CPU_QUOTA.read_text(encoding="ascii").partition(" ")
        return min(float(allowed), int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # there is none, or it is "max"
        return float(allowed)


def usable_cores() -> int:
    """The same as whole cores, at least one."""
    return max(1, int(share_of_cores()))

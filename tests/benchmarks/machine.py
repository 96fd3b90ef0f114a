"""`python -m tests.benchmarks.machine DEVICE`: what is measured on, as JSON; and how fast it could be.

In a process of its own, so that nothing of it is left on the device, or in memory, when others are measured.
"""

import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.environment import ROOT

MASK_RATE = 1 / 7  # the share of positions on which a masked LM's head has work to do


def training_flops(config: Mapping[str, Any], vocabulary: int, attended: float) -> float:
    """Useful floating-point operations per token of a training step: thrice those of the forward.

    `config`: a config.json, BERT's or ModernBERT's. `attended`: positions that a token attends to. A weight
    costs a multiplication and an addition per token; the head runs on `MASK_RATE` of the tokens.
    """
    width, inner = config["hidden_size"], config["intermediate_size"]
    gated = config["model_type"] == "modernbert"
    projections = 2 * (4 * width**2 + (3 if gated else 2) * width * inner)
    kinds = config.get("layer_types") or ["full_attention"] * config["num_hidden_layers"]
    reach = [
        min(attended, config["local_attention"]) if kind == "sliding_attention" else attended
        for kind in kinds
    ]
    layers = sum(projections + 4 * positions * width for positions in reach)
    head = 2 * (width**2 + width * vocabulary)
    return 3 * (layers + MASK_RATE * head)


def measure_peak(device: str, seconds: float = 1.0) -> float:
    """FLOP/s of the fastest of the square matrix products that fit in `seconds`.

    Of random numbers, for a GPU multiplies ones faster; bfloat16 on a GPU, float32 on a CPU.
    """
    import torch

    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (2048, torch.float32)
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    torch.mm(a, b)
    best, end = 0.0, time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < end:
        synchronize()
        begin = time.perf_counter()
        torch.mm(a, b)
        synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - begin))
    return best


def describe(device: str) -> dict[str, Any]:
    """The device, what it can do, and the versions of what runs on it."""
    import torch

    cuda = device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else _cpu_name(),
        "threads": torch.get_num_threads(),
        "precision": "bfloat16" if cuda else "float32",
        "peak": measure_peak(device),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "transformers", "accelerate")},
            "fmlm": _commit(),
        },
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of this checkout, marked where files differ from it."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "of no known commit"
    return found.stdout.strip()


if __name__ == "__main__":
    print(json.dumps(describe(sys.argv[1])))

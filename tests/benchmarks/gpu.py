"""`python -m tests.benchmarks.gpu` (`make bench-gpu`): fmlm's training speed on one GPU, against transformers' Trainer.

Keeps to its budget of seconds: the lines come in the order of what they are worth, and what did not fit is
listed. Nothing is installed or downloaded. `--device cpu` tries the bench itself where there is no GPU.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from tests.benchmarks.bench import Plan, options, run_bench
from tests.benchmarks.commands import leave_in_order
from tests.benchmarks.contest import Fmlm, Line, Pace, Stock, Workload
from tests.benchmarks.tables import WIDTH

COMPARED = """\
fmlm pretrain, by the command line, with its defaults (documents isolated, dropout 0 as from scratch),
against what run_mlm.py does: transformers' Trainer with DataCollatorForLanguageModeling and bf16, all else
as it comes (dropout 0.1, fused AdamW, documents not isolated), but batches made by up to 8 processes, so
that it need not wait for them. The same token store, rows a step and model; each in a process of its own,
turn about. Steps after a warm-up are timed in windows; speeds are medians of windows, and a ratio is that
of every window to every window of the other side in the same round. Padding is not counted. Useful share:
FLOPs by formula, the head on a seventh of the tokens, over the peak; the floor is a step at the peak.
Memory: the most that torch held allocated."""

BASE, SMALL = Workload("bert-base", 256, 128), Pace(warm_up=40, windows=5, steps=32)
BASE_PACE, LONG_PACE = Pace(warm_up=20, windows=5, steps=16), Pace(warm_up=12, windows=4, steps=6)


def _line(name: str, title: str, work: Workload, pace: Pace) -> Line:
    return Line(name, title, Fmlm(work, pace), Stock(work, pace))


DEFAULTS = Fmlm(BASE, BASE_PACE, bare=True)
LINES = (
    Line("bert-base", "bert-base 256 x 128, defaults", DEFAULTS, Stock(BASE, BASE_PACE)),
    _line("bert-base-512", "bert-base 64 x 512", Workload("bert-base", 64, 512), LONG_PACE),
    _line("bert-mini", "bert-mini 32 x 128", Workload("bert-mini", 32, 128), SMALL),
    _line("real", "bert-base 256 x 128, real lengths", Workload("bert-base", 256, 128, "real"), LONG_PACE),
    _line("bert-tiny", "bert-tiny 32 x 128", Workload("bert-tiny", 32, 128), SMALL),
    _line("modernbert", "ModernBERT-base 32 x 1024", Workload("modernbert-base", 32, 1024), LONG_PACE),
    _line("6x384", "6 layers, 384 wide, 128 x 128", Workload("bert-6x384", 128, 128), SMALL),
    Line("compiled", "bert-base, stock torch_compile", DEFAULTS, Stock(BASE, BASE_PACE, compiled=True)),
)


def make_plan(device: str) -> Plan:
    """The bench on a device. Without a GPU the first line cannot do without saying so."""
    workers = min(8, os.cpu_count() or 1) if device == "cuda" else 0
    lines: Sequence[Line] = LINES
    if device == "cpu":
        lines = [replace(line, ours=replace(line.ours, bare=False)) for line in LINES]
    return Plan(lines, COMPARED, device, rounds=3, json="bench-gpu.json", seconds=330.0, workers=workers)


def _use_one_gpu() -> bool:
    """Have all processes see one GPU, for the Trainer takes every one that it sees; whether there is one."""
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    import torch

    return torch.cuda.is_available()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options(make_plan("cuda"), "python -m tests.benchmarks.gpu", __doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try the bench")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not _use_one_gpu():
        sys.exit("torch sees no GPU here: `make bench` measures the CPU")
    run_bench(make_plan(chosen.device), chosen, Console(width=WIDTH))


if __name__ == "__main__":
    leave_in_order()
    main()

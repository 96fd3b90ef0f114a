"""`python -m tests.benchmarks --only processes`: two processes that train one model, against one, on two cores.

`fmlm pretrain --nproc 2`, each process with one thread; one process with two threads; and one with one. The
same global batch, so the same run but for rounding. Each in turn, several rounds; steps after a warm-up are
timed in windows.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.commands import Bench, run_command, windows_of
from tests.benchmarks.contest import Fmlm, NotRunError, Pace, Workload

PACE, QUICK = Pace(warm_up=2, windows=4, steps=2), Pace(warm_up=1, windows=1, steps=1)
MODELS = ("bert-tiny", "bert-mini")
LIMIT = 300.0  # seconds for one run


@dataclass(frozen=True)
class Side:
    """So many processes with so many threads each."""

    processes: int
    threads: int

    def __str__(self) -> str:
        names = (("process", "processes")[self.processes > 1], ("thread", "threads")[self.threads > 1])
        return f"{self.processes} {names[0]}, {self.threads} {names[1]}"


TWO, THREADS, ONE = Side(2, 1), Side(1, 2), Side(1, 1)
Speeds = Mapping[Side, Sequence[float]]  # tokens a second, by window


def measure(bench: Bench, model: str, pace: Pace, rounds: int) -> Speeds:
    """The sides in turn, so that whatever else the machine does is shared."""
    speeds: dict[Side, list[float]] = {side: [] for side in (TWO, THREADS, ONE)}
    work = Fmlm(Workload(model, 32, 128), pace, ("batch.micro_size=16",))
    for _ in range(rounds):
        for side, found in speeds.items():
            with tempfile.TemporaryDirectory(dir=bench.folder) as name:
                place = Path(name)
                command = ["env", f"OMP_NUM_THREADS={side.threads}", *bench.fmlm_command(work)]
                run_command([*command, "--nproc", str(side.processes)], place, LIMIT)
                lines = (place / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            windows, _ = windows_of([json.loads(line) for line in lines], pace)
            found += [tokens / seconds for tokens, seconds in windows]
    return speeds


def ratios(speeds: Speeds) -> tuple[float, float]:
    """Two processes against two threads; and of twice the speed of one thread, what they reach."""
    two, threads, one = (statistics.median(speeds[side]) for side in (TWO, THREADS, ONE))
    return two / threads, two / (2 * one)


def main(console: Console, json_path: Path, *, rounds: int, quick: bool) -> None:
    """Measure, print, write."""
    pace, rounds = (QUICK, 1) if quick else (PACE, rounds)
    with tempfile.TemporaryDirectory(prefix="fmlm-bench-") as name:
        folder = Path(name)
        run_command([sys.executable, "-m", "tests.benchmarks.material", name, "full"], folder, LIMIT)
        bench = Bench(folder, "cpu", {"full": folder / "full"}, folder / "models")
        try:
            found = {model: measure(bench, model, pace, rounds) for model in MODELS}
        except NotRunError as error:
            console.print(f"processes: {error}")
            return
    heads = (*map(str, (TWO, THREADS, ONE)), "against\n2 threads", "of twice\n1 thread")
    table = Table("32 x 128, tokens/s", *heads, title="median of windows (least to most)")
    for model, speeds in found.items():
        cells = [f"{statistics.median(s):,.0f} ({min(s):,.0f} to {max(s):,.0f})" for s in speeds.values()]
        against, of_twice = ratios(speeds)
        table.add_row(model, *cells, f"{against:.2f}", f"{of_twice:.0%}")
    console.print(table)
    path = json_path.with_name("bench-processes.json")
    figures = {model: {str(side): list(s) for side, s in speeds.items()} for model, speeds in found.items()}
    path.write_text(json.dumps({"tokens_per_second": figures}, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {path}", style="dim")

"""`python -m tests.benchmarks --only tokenize`: `fmlm tokenize` against `datasets.map` with the same tokenizer.

Whole processes, in turn, several rounds; a line is a document. Speeds are of the text's bytes, with the start
of a process and without: that of a text of one line is taken off. Memory is that of all processes of a
command, shared pages counted once (Linux alone tells). Seconds of processors tell more than speeds where the
machine has other work.
"""

import itertools
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.commands import run_command
from tests.benchmarks.contest import NotRunError

MEGABYTES, QUICK_MEGABYTES = 30, 1
LIMIT = 900.0  # seconds for one run


@dataclass(frozen=True)
class Side:
    """One way with so many processes."""

    way: str
    processes: int

    def __str__(self) -> str:
        return f"{self.way}, {self.processes} {('process', 'processes')[self.processes > 1]}"

    def command(self, text: Path, tokenizer: Path) -> list[str]:
        """In an empty folder of its own."""
        python = [sys.executable, "-m"]
        if self.way == "fmlm":
            command = [*python, "fmlm_cli", "tokenize", str(text), "--documents", "line", "--out", "store"]
            return [*command, "--tokenizer", str(tokenizer), "--workers", str(self.processes)]
        command = [*python, "tests.benchmarks.stock_tokenizing", "stock", "--text", str(text), "--out", "."]
        return [*command, "--tokenizer", str(tokenizer), "--processes", str(self.processes)]


SIDES = tuple(Side(way, processes) for processes in (1, 2) for way in ("fmlm", "stock"))


@dataclass
class Runs:
    """Seconds of every run on the text and on one line, of processors on the text, and the most memory in GiB."""

    whole: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    memory: float = 0.0
    cpu: list[float] = field(default_factory=list)

    def speeds(self, megabytes: float) -> tuple[float, float]:
        """MB/s with the start and without, of medians."""
        whole, start = statistics.median(self.whole), statistics.median(self.start)
        return megabytes / whole, megabytes / max(whole - start, 1e-9)


def zipf_text(path: Path, megabytes: float, seed: int = 0) -> None:
    """Lines of made-up words, the n-th of which occurs as often as 1 / n: always the same text."""
    rng = random.Random(seed)
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(100_000)]
    weights = list(itertools.accumulate(1 / (n + 1) for n in range(len(words))))
    with path.open("w", encoding="ascii") as file:
        while file.tell() < megabytes * 1e6:
            drawn = rng.choices(words, cum_weights=weights, k=rng.randint(20, 200))
            ends = rng.choices([" ", ", ", ". "], [12, 1, 1], k=len(drawn))
            file.write("".join(word + end for word, end in zip(drawn, ends, strict=True)).strip() + "\n")


def memory_of_group(leader: int) -> float:
    """The memory of all processes of a session, in GiB; 0 where nothing tells."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == leader:
                total += _kilobytes((process / "smaps_rollup").read_text())
        except (OSError, ValueError):  # it is over, or not ours to look at
            continue
    return total / 2**20


def _kilobytes(rollup: str) -> int:
    return next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)


def measure(text: Path, tokenizer: Path, folder: Path, rounds: int) -> Mapping[Side, Runs]:
    """The sides in turn, so that whatever else the machine does is shared. Raises `NotRunError`."""
    line = folder / "line.txt"
    line.write_text("one line\nand another\n" * 20, encoding="utf-8")
    found = {side: Runs() for side in SIDES}
    for _ in range(rounds):
        for side, runs in found.items():
            for source, seconds, cpu in ((line, runs.start, []), (text, runs.whole, runs.cpu)):
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    ended = run_command(
                        side.command(source, tokenizer), Path(place), LIMIT, memory=memory_of_group
                    )
                seconds.append(ended.seconds)
                cpu.append(ended.cpu)
                runs.memory = max(runs.memory, ended.memory)
    return found


def main(
    console: Console, json_path: Path, *, rounds: int, quick: bool, text: Path | None, tokenizer: Path | None
) -> None:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory(prefix="fmlm-bench-") as name:
        folder = Path(name)
        if text is None:
            text = folder / "text.txt"
            zipf_text(text, QUICK_MEGABYTES if quick else MEGABYTES)
        text = text.resolve()
        try:
            if tokenizer is None:
                tokenizer = folder / "tokenizer"
                learn = [sys.executable, "-m", "tests.benchmarks.stock_tokenizing", "learn"]
                run_command([*learn, "--text", str(text), "--out", str(tokenizer)], folder, LIMIT)
            found = measure(text, tokenizer.resolve(), folder, 1 if quick else rounds)
        except NotRunError as error:
            console.print(f"tokenize: {error}")
            return
        megabytes = text.stat().st_size / 1e6
    console.print(table_of(found, megabytes))
    path = json_path.with_name("bench-tokenize.json")
    figures = {str(side): vars(runs) for side, runs in found.items()}
    path.write_text(json.dumps({"megabytes": megabytes, "runs": figures}, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {path}", style="dim")


def table_of(found: Mapping[Side, Runs], megabytes: float) -> Table:
    """Speeds and memory, and how they stand to the stock way with as many processes."""
    heads = ("MB/s", "without\nthe start", "times\nthe stock", "CPU s", "GiB", "of the\nstock")
    table = Table(f"{megabytes:,.1f} MB of text", *heads, title="medians of rounds")
    for side, runs in found.items():
        stock = found[Side("stock", side.processes)]
        (speed, apart), (stock_speed, _) = runs.speeds(megabytes), stock.speeds(megabytes)
        share = f"{runs.memory / stock.memory:.0%}" if stock.memory else ""
        speeds = (f"{speed:.2f}", f"{apart:.2f}", f"{speed / stock_speed:.2f}")
        cells = (*speeds, f"{statistics.median(runs.cpu):.1f}", f"{runs.memory:.2f}", share)
        table.add_row(str(side), *cells)
    return table

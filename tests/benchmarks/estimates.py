"""`python -m tests.benchmarks --only estimates`: what dry runs say, against the runs themselves.

Pre-training, going on, fine-tuning and a comparison of masks, each a process with --dry-run, and then one
without. Time is that of the whole process less what starting Python with its libraries takes, which is on
neither side. Speed is that of training: of a run all steps but two, which warm up. Memory is the most that
was resident. Disk is what a run leaves; the estimate is of the most that it needs meanwhile.

`python -m tests.benchmarks.estimates FILE WORDS` is a dry run that leaves its estimate in FILE.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.benchmarks.commands import run_command
from tests.benchmarks.contest import NotRunError

LIMIT = 600.0  # seconds for one process
WARM_UP = 2  # steps
CLOSE = {"tokens/s": 0.15, "memory": 0.10}  # how far an estimate may be off
UNITS = {"tokens/s": 1.0, "memory": 1e6, "time": 1.0, "disk": 1e6}
START = "import fmlm_cli.recipes.comparison, fmlm_cli.recipes.finetuning, fmlm_cli.cli.app"


@dataclass(frozen=True)
class Work:
    """A command. `words`: all but where it goes. `logs`: where its training records lie below its folder."""

    title: str
    words: Sequence[str]
    logs: str = "metrics.jsonl"


Figures = Mapping[str, float]


def works(folder: Path, *, quick: bool) -> list[Work]:
    """What is estimated and done; later ones begin from what the ones before have left."""
    rows = [
        *("--set", "sequence_length=128", "--set", "batch.size=32"),
        *("--set", "evaluation.max_rows=100"),
    ]
    tiny, mini, data = 6 if quick else 100, 3 if quick else 40, str(folder / "full")
    mini_run, texts = str(folder / "bert-mini"), folder / "texts"
    compared = [
        *("--set", "run.sequence_length=128", "--set", "run.batch.size=28", "--set", "run.data.max_rows=200"),
        *("--set", "run.evaluation.max_rows=32", "--set", "race.fresh_control=false"),
        *("--set", "variance.sequences=10", "--set", "variance.checkpoints=[start,late]"),
        *("--set", "variance.corruptions=[race]"),
    ]
    tuned = [*("--train", str(texts / "train.jsonl")), *("--dev", str(texts / "dev.jsonl"))]
    pretrain, steps = ["pretrain", "--data", data, *rows], f"{10 if quick else 25}-steps"
    return [
        Work("bert-tiny", [*pretrain, "--model", "bert-tiny", "--steps", str(tiny)]),
        Work("bert-mini", [*pretrain, "--model", "bert-mini", "--steps", str(mini)]),
        Work("continue", ["continue", "--from", mini_run, "--data", data, *rows, "--steps", str(mini)]),
        Work(
            "finetune",
            ["finetune", "--from", mini_run, *tuned, "--seeds", "2", "--epochs", "1" if quick else "3"],
            "cells/**/metrics.jsonl",
        ),
        Work(
            "compare-masks",
            [
                "compare-masks",
                "--data",
                data,
                "--model",
                "bert-tiny",
                "--seeds",
                "2",
                *compared,
                "--budget",
                steps,
            ],
            "race/**/metrics.jsonl",
        ),
    ]


def make_texts(folder: Path) -> None:
    """A labelled set of invented words, of log-normal lengths."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for split, number in (("train", 1000), ("dev", 200)):
        lines = []
        for length in np.clip(random.lognormal(3.2, 0.6, number), 4, 110).astype(int).tolist():
            words = " ".join(f"w{word}" for word in random.integers(0, 30_000, length))
            lines.append(json.dumps({"text": words, "label": int(random.integers(2))}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def predicted(work: Work, folder: Path) -> Figures:
    """What the dry run says."""
    file, out = folder / "estimate.json", folder / work.title
    command = [sys.executable, "-m", "tests.benchmarks.estimates", str(file), *work.words, "--out", str(out)]
    run_command([*command, "--dry-run"], folder, LIMIT)
    if out.exists():
        raise NotRunError(f"the dry run of {work.title} has left {out}")
    figures: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    return figures


def actual(work: Work, folder: Path, start: float) -> Figures:
    """What the run takes. `start`: seconds that any process takes to start."""
    out = folder / work.title
    ended = run_command([sys.executable, "-m", "fmlm_cli", *work.words, "--out", str(out)], folder, LIMIT)
    logs = [path.read_text(encoding="utf-8").splitlines() for path in sorted(out.glob(work.logs))]
    return {
        "tokens/s": speed_of([json.loads(line) for line in lines] for lines in logs),
        "memory": ended.memory * 2**30,
        "time": ended.seconds - start,
        "disk": float(sum(path.stat().st_size for path in out.rglob("*") if path.is_file())),
    }


def speed_of(logs: Iterable[Sequence[Mapping[str, Any]]]) -> float:
    """Tokens a second of some runs together, by their records, without the steps that warm up."""
    tokens, seconds = 0.0, 0.0
    for records in logs:
        training = [record for record in records if "learning_rate" in record]
        first, last = training[min(WARM_UP, len(training) - 1) - 1], training[-1]
        tokens += last["tokens"] - first["tokens"]
        seconds += last["seconds"] - first["seconds"]
    return tokens / max(seconds, 1e-9)


def ratios_of(said: Figures, was: Figures) -> str:
    """What a dry run said, as a share of what was, in a line."""
    return "estimate / run " + ", ".join(f"{name} {said[name] / was[name]:.2f}" for name in UNITS)


def table_of(found: Mapping[str, tuple[Figures, Figures]]) -> Table:
    """A line for each figure of each work, marked where the estimate is farther off than it may be."""
    table = Table("", "", "estimate", "run", "estimate / run", title="dry runs against the runs themselves")
    for title, (said, was) in found.items():
        for place, (name, unit) in enumerate(UNITS.items()):
            ratio = said[name] / was[name]
            far = abs(ratio - 1) > CLOSE.get(name, float("inf"))
            label = name if unit == 1 else f"{name}, MB"
            figures = (f"{figure[name] / unit:,.0f}" for figure in (said, was))
            table.add_row("" if place else title, label, *figures, f"{ratio:.2f}" + " (far)" * far)
    return table


def main(console: Console, json_path: Path, *, quick: bool = False) -> None:
    """Measure, print, write."""
    found: dict[str, tuple[Figures, Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="fmlm-bench-") as name:
        folder = Path(name)
        run_command([sys.executable, "-m", "tests.benchmarks.material", name, "full"], folder, LIMIT)
        make_texts(folder / "texts")
        start = min(run_command([sys.executable, "-c", START], folder, LIMIT).seconds for _ in range(2))
        console.print(f"start of a process {start:.1f} s", style="dim")
        for work in works(folder, quick=quick):
            try:
                said = predicted(work, folder)
                found[work.title] = said, actual(work, folder, start)
            except NotRunError as error:
                console.print(f"{work.title}: {error}")
                continue
            console.print(f"{work.title}: {ratios_of(*found[work.title])}", style="dim")
    console.print(table_of(found))
    path = json_path.with_name("bench-estimates.json")
    figures = {title: {"estimate": said, "run": was} for title, (said, was) in found.items()}
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {path}", style="dim")


def leave_estimate(file: Path, words: Sequence[str]) -> None:
    """Run a command; what it estimates is left in a file."""
    from fmlm_cli.__main__ import main as fmlm
    from fmlm_cli.recipes.shared.estimates import estimate as room

    tell: Callable[..., None] = room.tell_estimate

    def tell_and_keep(estimate: room.Estimate, *more: Any, **named: Any) -> None:
        figures = {
            "tokens/s": estimate.tokens_per_second,
            "memory": estimate.memory,
            "time": estimate.seconds,
            "disk": estimate.disk,
        }
        file.write_text(json.dumps({**figures, "all": asdict(estimate)}), encoding="utf-8")
        tell(estimate, *more, **named)

    room.tell_estimate = tell_and_keep
    sys.argv = ["fmlm", *words]
    fmlm()


if __name__ == "__main__":
    leave_estimate(Path(sys.argv[1]), sys.argv[2:])

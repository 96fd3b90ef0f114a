"""The course of a bench: options, material, the machine, the race, tables and JSON."""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks import tables
from tests.benchmarks.commands import Bench, run_command
from tests.benchmarks.contest import (
    Budget,
    Contestant,
    Fmlm,
    Line,
    Measured,
    NotRunError,
    Outcome,
    Pace,
    race,
)

QUICK = Pace(warm_up=1, windows=2, steps=1)


@dataclass(frozen=True)
class Plan:
    """A bench. `lines`: the most important one first. `seconds`: its budget; None: as long as it takes.

    `others`: names of further parts that --only knows.
    """

    lines: Sequence[Line]
    compared: str
    device: str
    rounds: int
    json: str
    seconds: float | None = None
    workers: int = 0
    others: tuple[str, ...] = ()


def options(plan: Plan, program: str, description: str | None) -> argparse.ArgumentParser:
    """The command line of a bench."""
    parser = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join((*(line.name for line in plan.lines), *plan.others))
    parser.add_argument("--only", action="append", metavar="NAME", help=f"a line, or several times: {names}")
    parser.add_argument("--rounds", type=_positive, default=plan.rounds, help="of all lines (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round of few steps: does it run?")
    parser.add_argument(
        "--seconds", type=float, default=plan.seconds, help="budget for all of it (%(default)s)"
    )
    parser.add_argument("--data", type=_store, metavar="STORE", help="fill rows from this token store")
    parser.add_argument(
        "--json", type=_writable, default=Path(plan.json), help="where figures go (%(default)s)"
    )
    return parser


def _store(text: str) -> Path:
    if not (Path(text) / "manifest.json").is_file():
        raise argparse.ArgumentTypeError(f"{text} is no token store (it has no manifest.json)")
    return Path(text)


def _writable(text: str) -> Path:
    """Where a file can be written; said before anything is measured."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written")
    return path


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def chosen_lines(plan: Plan, only: Sequence[str] | None) -> list[Line]:
    """The lines that --only names, or all. Raises `SystemExit` for a name that is none."""
    known = {*(line.name for line in plan.lines), *plan.others}
    unknown = [name for name in only or () if name not in known]
    if unknown:
        sys.exit(f"no line is called {', '.join(unknown)}: known are {', '.join(sorted(known))}")
    return [line for line in plan.lines if only is None or line.name in only]


def at_pace(line: Line, pace: Pace) -> Line:
    """The same line at another pace."""
    return replace(line, ours=replace(line.ours, pace=pace), theirs=replace(line.theirs, pace=pace))


def run_bench(plan: Plan, chosen: argparse.Namespace, console: Console) -> None:
    """Measure, print, write. Raises `SystemExit` where nothing can be measured."""
    budget = Budget(chosen.seconds)
    if importlib.util.find_spec("accelerate") is None:
        sys.exit("transformers' Trainer needs accelerate, which is not there: pip install accelerate")
    lines = chosen_lines(plan, chosen.only)
    if chosen.quick:
        lines = [at_pace(line, QUICK) for line in lines]
    with tempfile.TemporaryDirectory(prefix="fmlm-bench-") as name:
        try:
            bench, machine = _prepare(plan, Path(name), lines, chosen.data, budget)
        except NotRunError as error:
            sys.exit(f"the bench could not begin: {error}")
        console.print(tables.introduction(plan.compared, machine), "")
        rounds = 1 if chosen.quick else chosen.rounds
        outcome = race(lines, rounds, bench.measure, budget, lambda *what: _tell(console, *what))
        found = _figures(bench, lines, outcome, machine["peak"])
    console.print(
        "", tables.main_table(found), tables.start_table(found), tables.not_run_list(lines, outcome)
    )
    written = tables.to_json(plan.compared, machine, found, outcome)
    chosen.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {chosen.json}", style="dim")


def _prepare(
    plan: Plan, folder: Path, lines: Sequence[Line], data: Path | None, budget: Budget
) -> tuple[Bench, dict[str, Any]]:
    """Make what is trained on, and see what the machine is."""
    texts = {line.ours.workload.text for line in lines}
    stores: dict[str, Path] = {text: folder / text for text in texts}
    if data is not None and "full" in stores:
        stores["full"] = data.resolve()
    made = [text for text in stores if stores[text].parent == folder]
    python = (sys.executable, "-m")
    run_command([*python, "tests.benchmarks.material", str(folder), *made], folder, budget.left)
    said = run_command([*python, "tests.benchmarks.machine", plan.device], folder, budget.left).said
    machine = json.loads(said.splitlines()[-1])
    return Bench(folder, plan.device, stores, folder / "models", plan.workers), machine


def _figures(bench: Bench, lines: Sequence[Line], outcome: Outcome, peak: float) -> list[tables.Figures]:
    models = {line.ours.workload.model for line in lines}
    configs = {model: _read_json(bench.models / model / "config.json") for model in models}
    vocabulary = {
        text: int(_read_json(store / "manifest.json")["tokenizer"]["vocabulary"])
        for text, store in bench.stores.items()
    }
    return tables.figures_of(lines, outcome, configs, vocabulary, peak)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _tell(console: Console, contestant: Contestant, measured: Measured) -> None:
    """A line for each run, so that whoever waits sees how far it has come."""
    work = contestant.workload
    if isinstance(contestant, Fmlm):
        side = " ".join(("fmlm", *contestant.settings))
    else:
        side = "stock, compiled" if contestant.compiled else "stock"
    speed = tables.speed_of([measured])
    shape = f"{work.model} {work.rows} x {work.length}" + (", real lengths" if work.text == "real" else "")
    console.print(f"{shape:42} {side:34} {speed:10,.0f} tokens/s, {measured.process:.0f} s", style="dim")

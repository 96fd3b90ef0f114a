"""What was measured, as tables for people and as JSON for programs."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tests.benchmarks.contest import Contestant, Fmlm, Line, Measured, Outcome
from tests.benchmarks.machine import training_flops

WIDTH = 110


@dataclass(frozen=True)
class Ratio:
    """Their median, least and largest."""

    median: float
    lowest: float
    highest: float


def ratio_of(rounds: Sequence[tuple[Measured, Measured]]) -> Ratio:
    """Our speed over theirs: every window of ours over every one of theirs in the same round."""
    ratios = [a / b for ours, theirs in rounds for a in ours.speeds for b in theirs.speeds]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def speed_of(runs: Sequence[Measured]) -> float:
    """Tokens a second: the median over all windows."""
    return statistics.median(speed for run in runs for speed in run.speeds)


def memory_of(runs: Sequence[Measured]) -> float | None:
    """GiB: the median over runs."""
    known = [run.memory for run in runs if run.memory is not None]
    return statistics.median(known) if known else None


@dataclass(frozen=True)
class Figures:
    """A line of the table in numbers.

    Speeds are in tokens a second, shares are useful FLOP/s over the device's peak, `floor` is what a step of
    ours would take at that peak, in seconds.
    """

    line: Line
    rounds: Sequence[tuple[Measured, Measured]]
    flops_per_token: float
    peak: float

    @property
    def ours(self) -> list[Measured]:
        """Our runs."""
        return [run for run, _ in self.rounds]

    @property
    def theirs(self) -> list[Measured]:
        """The stock Trainer's."""
        return [run for _, run in self.rounds]

    @property
    def tokens_per_step(self) -> float:
        """Of ours, padding not counted."""
        return tokens_per_step(self.line, self.rounds)

    @property
    def floor(self) -> float:
        """Seconds that a step of ours takes at the peak."""
        return self.tokens_per_step * self.flops_per_token / self.peak

    def share(self, runs: Sequence[Measured]) -> float:
        """Useful share of the peak."""
        return speed_of(runs) * self.flops_per_token / self.peak


def tokens_per_step(line: Line, rounds: Sequence[tuple[Measured, Measured]]) -> float:
    """Of our side, padding not counted. A window that stands for a whole run has all the steps of it."""
    pace = line.ours.pace
    measured = [sum(tokens for tokens, _ in ours.windows) for ours, _ in rounds]
    steps = [pace.windows * pace.steps if ours.warm_up is not None else pace.total for ours, _ in rounds]
    return sum(measured) / sum(steps)


def figures_of(
    lines: Sequence[Line],
    outcome: Outcome,
    configs: Mapping[str, Mapping[str, Any]],
    vocabulary: Mapping[str, int],
    peak: float,
) -> list[Figures]:
    """Of all lines that both sides ran. `configs`: by model. `vocabulary`: by text."""
    found = []
    for line in lines:
        rounds = outcome.rounds(line)
        if rounds:
            work = line.ours.workload
            attended = tokens_per_step(line, rounds) / work.rows
            flops = training_flops(configs[work.model], vocabulary[work.text], attended)
            found.append(Figures(line, rounds, flops, peak))
    return found


def introduction(compared: str, machine: Mapping[str, Any]) -> RenderableType:
    """The lines that say what is compared, how, and on what."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    where = (
        f"{machine['device']}, {threads}, {machine['precision']}: matrix products on random "
        f"numbers at {machine['peak'] / 1e12:,.3g} TFLOP/s. {versions}"
    )
    return Group(Text(compared.replace("\n", " ")), Text(""), Text(where, style="dim"))


def main_table(figures: Sequence[Figures]) -> Table:
    """Speeds, their ratio, the share of the peak, the floor and the memory."""
    table = _table("training")
    for heading in ("fmlm\ntokens/s", "stock\ntokens/s"):
        table.add_column(heading, justify="right")
    table.add_column("times\n(lowest to highest)", justify="right")
    for heading in ("useful share\nfmlm, stock", "s a step\nfmlm, floor", "GiB\nfmlm, stock"):
        table.add_column(heading, justify="right")
    for found in figures:
        ours, theirs, ratio = speed_of(found.ours), speed_of(found.theirs), ratio_of(found.rounds)
        table.add_row(
            found.line.title,
            f"{ours:,.0f}",
            f"{theirs:,.0f}",
            Text.assemble((f"{ratio.median:.2f}", "bold"), f" ({ratio.lowest:.2f} to {ratio.highest:.2f})"),
            f"{found.share(found.ours):.0%}, {found.share(found.theirs):.0%}",
            f"{found.tokens_per_step / ours:.3g}, {found.floor:.3g}",
            f"{_gib(memory_of(found.ours))}, {_gib(memory_of(found.theirs))}",
        )
    return table


def start_table(figures: Sequence[Figures]) -> Table:
    """What a run takes beside its steady state."""
    table = _table(
        "beside the steady state, in seconds: the least of all runs; compiling is part of the warm-up"
    )
    for side in ("fmlm", "stock"):
        table.add_column(f"{side}: warm-up\n(its steps)", justify="right")
        table.add_column("the whole\ncommand", justify="right")
    table.add_column("fmlm waits\nfor data", justify="right")
    for found in figures:
        cells = [found.line.title]
        for contestant, runs in ((found.line.ours, found.ours), (found.line.theirs, found.theirs)):
            known = [run.warm_up for run in runs if run.warm_up is not None]
            warm_up = f"{min(known):.1f}" if known else "–"
            cells += [
                f"{warm_up} ({contestant.pace.warm_up})",
                f"{min(run.process for run in runs):.1f}",
            ]
        waited = [run.waited for run in found.ours if run.waited is not None]
        table.add_row(*cells, f"{statistics.median(waited):.1%}" if waited else "–")
    return table


def _table(title: str) -> Table:
    """An empty table whose first column has what room the others leave."""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 2),
        pad_edge=False,
        width=WIDTH,
        title=title,
        title_justify="left",
        title_style="bold",
    )
    table.add_column("setting", ratio=1)
    return table


def not_run_list(lines: Sequence[Line], outcome: Outcome) -> RenderableType:
    """What has no figures, and why."""
    rows = [(line, outcome.not_run[line.name]) for line in lines if line.name in outcome.not_run]
    texts = [Text(f"not run: {line.title} (--only {line.name}): {reason}") for line, reason in rows]
    return Padding(Group(*texts), (0, 0, 1, 0)) if texts else Group()


def to_json(
    compared: str, machine: Mapping[str, Any], figures: Sequence[Figures], outcome: Outcome
) -> dict[str, Any]:
    """All of it, every window included."""
    return {
        "compared": compared,
        "machine": dict(machine),
        "lines": [_line_to_json(found) for found in figures],
        "not_run": dict(outcome.not_run),
    }


def _line_to_json(found: Figures) -> dict[str, Any]:
    work, ratio = found.line.ours.workload, ratio_of(found.rounds)
    return {
        "name": found.line.name,
        "title": found.line.title,
        "workload": {"model": work.model, "rows": work.rows, "length": work.length, "text": work.text},
        "ratio": {"median": ratio.median, "lowest": ratio.lowest, "highest": ratio.highest},
        "flops_per_token": found.flops_per_token,
        "tokens_per_step": found.tokens_per_step,
        "floor_seconds_per_step": found.floor,
        "fmlm": _side_to_json(found, found.line.ours, found.ours),
        "stock": _side_to_json(found, found.line.theirs, found.theirs),
    }


def _side_to_json(found: Figures, contestant: Contestant, runs: Sequence[Measured]) -> dict[str, Any]:
    given: dict[str, Any] = (
        {"settings": list(contestant.settings), "bare": contestant.bare}
        if isinstance(contestant, Fmlm)
        else {"compiled": contestant.compiled}
    )
    return {
        **given,
        "tokens_per_second": speed_of(runs),
        "useful_share": found.share(runs),
        "memory_gib": memory_of(runs),
        "warm_up_steps": contestant.pace.warm_up,
        "runs": [
            {
                "windows": [{"tokens": tokens, "seconds": seconds} for tokens, seconds in run.windows],
                "warm_up_seconds": run.warm_up,
                "process_seconds": run.process,
                "memory_gib": run.memory,
                "data_wait_share": run.waited,
            }
            for run in runs
        ],
    }


def _gib(memory: float | None) -> str:
    return "–" if memory is None else f"{memory:.2f}"

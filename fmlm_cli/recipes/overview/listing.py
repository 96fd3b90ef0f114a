"""`fmlm runs`: what commands have made below some folders, in a table for each kind of results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmlm_cli import storage
from fmlm_cli.config import RunsSettings
from fmlm_cli.events import Caution, Emit, Grid, Note, ignore
from fmlm_cli.recipes.overview.differences import differing_settings, short_names
from fmlm_cli.recipes.overview.finding import FoundFolder, find_results
from fmlm_cli.recipes.overview.outcomes import (
    COMPARISON,
    TUNING,
    ComparisonReport,
    Outcome,
    TuningReport,
    changed_at,
    read_comparison,
    read_tuning,
)
from fmlm_cli.recipes.overview.reading import RunReport, read_run
from fmlm_cli.recipes.overview.tables import comparisons_table, names_of, runs_table, tunings_table, when

_MOST_COLUMNS = 6  # of settings that differ


@dataclass(frozen=True)
class OtherReport:
    """A folder of results of which no more can be told than why. `changed`: in seconds since 1970."""

    path: str
    kind: str
    changed: float | None


@dataclass(frozen=True)
class Overview:
    """All that was found. `differing`: settings in which the runs differ."""

    runs: list[RunReport]
    tunings: list[TuningReport]
    comparisons: list[ComparisonReport]
    others: list[OtherReport]
    differing: list[str]


_KEYS: dict[str, Callable[[RunReport], Any]] = {
    "name": lambda run: run.path,
    "state": lambda run: run.state,
    "loss": lambda run: run.last_loss,
    "best": lambda run: run.best_loss,
    "tokens": lambda run: run.tokens,
    "time": lambda run: run.seconds,
    "changed": lambda run: None if run.changed is None else -run.changed,
}


def list_runs(settings: RunsSettings, emit: Emit = ignore) -> Overview:
    """Find runs, fine-tunings and comparisons and tell of them.

    Raises `UserError` for a folder that is not there.
    """
    found = find_results(settings.folders)
    runs = [read_run(path) for path in _of_kind(storage.RUN.name, found)]
    key = _KEYS[settings.sort]
    runs.sort(key=lambda run: (key(run) is None, key(run), run.path))  # those without come last
    readable = [run.settings for run in runs if run.state != "damaged"]
    tunings = [read_tuning(path) for path in _of_kind(TUNING, found)]
    comparisons = [read_comparison(path) for path in _of_kind(COMPARISON, found)]
    for outcomes in (tunings, comparisons):
        if settings.sort == "changed":
            outcomes.sort(key=lambda outcome: -(outcome.changed or 0.0))
        elif settings.sort == "state":
            outcomes.sort(key=lambda outcome: outcome.state)
    known = (storage.RUN.name, TUNING, COMPARISON)
    others = [OtherReport(str(f.path), f.kind, changed_at(f.path)) for f in found if f.kind not in known]
    overview = Overview(runs, tunings, comparisons, others, differing_settings(readable))
    _tell(overview, settings, emit)
    return overview


def _of_kind(kind: str, found: Sequence[FoundFolder]) -> list[Path]:
    return [folder.path for folder in found if folder.kind == kind]


def _tell(overview: Overview, settings: RunsSettings, emit: Emit) -> None:
    outcomes: list[Outcome] = [*overview.tunings, *overview.comparisons]
    every: list[RunReport | Outcome | OtherReport] = [*overview.runs, *outcomes, *overview.others]
    names = names_of([each.path for each in every], settings.folders)
    if overview.runs:
        emit(runs_table(overview.runs, short_names(overview.differing[:_MOST_COLUMNS]), names))
    if len(overview.differing) > _MOST_COLUMNS:
        more = ", ".join(overview.differing[_MOST_COLUMNS:])
        emit(Note(f"they also differ in {more}: --json has all settings"))
    if overview.tunings:
        emit(tunings_table(overview.tunings, names))
    if overview.comparisons:
        emit(comparisons_table(overview.comparisons, names))
    for outcome in outcomes:
        for sentence in outcome.sentences:
            emit(Note(f"{names[outcome.path]}: {sentence}"))
    if overview.others:
        rows = [(names[o.path], o.kind, when(o.changed)) for o in overview.others]
        emit(Grid("others", ("", "kind", "changed"), rows))
    for each in every:
        if not isinstance(each, OtherReport) and each.problem:
            emit(Caution(f"{names[each.path]} {each.state}: {each.problem}"))
    if not every:
        emit(Note(f"no run of fmlm's in {', '.join(settings.folders)} or below"))

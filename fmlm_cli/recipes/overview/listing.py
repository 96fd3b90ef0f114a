"""`fmlm runs`: the runs below some folders in a table."""

import contextlib
import os
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmlm_cli import storage
from fmlm_cli.config import RunsSettings
from fmlm_cli.events import Caution, Emit, Grid, Note, clock_time, counted, ignore
from fmlm_cli.recipes.overview.differences import differing_settings, in_words, short_names, shown
from fmlm_cli.recipes.overview.finding import find_results
from fmlm_cli.recipes.overview.reading import RunReport, read_run

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_NARROW = 38  # letters of a line in the first column where the table is narrow
_MOST_COLUMNS = 6  # of settings that differ


@dataclass(frozen=True)
class OtherReport:
    """A folder of a fine-tuning or a comparison. `changed`: in seconds since 1970."""

    path: str
    kind: str
    state: str
    changed: float | None


@dataclass(frozen=True)
class Overview:
    """All that was found. `differing`: settings in which the runs differ."""

    runs: list[RunReport]
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
    """Find runs and tell of them. Raises `UserError` for a folder that is not there."""
    found = find_results(settings.folders)
    runs = [read_run(folder.path) for folder in found if folder.kind == storage.RUN.name]
    others = [_other(folder.path, folder.kind) for folder in found if folder.kind != storage.RUN.name]
    key = _KEYS[settings.sort]
    runs.sort(key=lambda run: (key(run) is None, key(run), run.path))  # those without come last
    readable = [run.settings for run in runs if run.state != "damaged"]
    overview = Overview(runs, others, differing_settings(readable))
    _tell(overview, settings, emit)
    return overview


def _other(path: Path, kind: str) -> OtherReport:
    if storage.worker_in(path) is not None:
        state = "running"
    else:
        state = "finished" if (path / "results.json").is_file() else "unfinished"
    newest = None
    with contextlib.suppress(OSError):  # what is at work there removes files
        newest = max(entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(path))
    return OtherReport(str(path), kind, state, newest)


def _tell(overview: Overview, settings: RunsSettings, emit: Emit) -> None:
    names = _names(overview, settings.folders)
    if overview.runs:
        emit(_table(overview, names))
    if overview.others:
        rows = [(names[o.path], o.kind, o.state, _when(o.changed)) for o in overview.others]
        emit(Grid("fine-tunings and comparisons", ("", "kind", "state", "changed"), rows))
    if len(overview.differing) > _MOST_COLUMNS:
        more = ", ".join(overview.differing[_MOST_COLUMNS:])
        emit(Note(f"they also differ in {more}: --json has all settings"))
    for run in overview.runs:
        if run.problem:
            emit(Caution(f"{names[run.path]} {run.state}: {run.problem}"))
    if not (overview.runs or overview.others):
        emit(Note(f"no run of fmlm's in {', '.join(settings.folders)} or below"))


def _table(overview: Overview, names: dict[str, str]) -> Grid:
    columns = short_names(overview.differing[:_MOST_COLUMNS])
    texts = {run.evaluation for run in overview.runs if run.evaluation}
    on = f", held-out loss on {' or '.join(sorted(texts))}" if texts else ""
    title = f"{counted(len(overview.runs), 'run')}{on}"
    figures = ("loss", "best", "tokens", "time", "changed")
    rows, narrow = [], []
    for run in overview.runs:
        values = (
            *(_loss(run.last_loss), _loss(run.best_loss), _compact(run.tokens)),
            *("" if run.seconds is None else clock_time(run.seconds), _when(run.changed)),
        )
        known = columns if run.state != "damaged" else {}
        cells = [shown(run.settings.get(name)) if name in known else "" for name in columns]
        rows.append((names[run.path], run.state_in_words, *cells, *values))
        about = textwrap.wrap(", ".join(in_words(run.settings, known)), _NARROW)
        narrow.append(("\n  ".join((names[run.path], run.state_in_words, *about)), *values))
    return Grid(title, ("", "state", *columns.values(), *figures), rows, Grid(title, ("", *figures), narrow))


def _names(overview: Overview, folders: Sequence[str]) -> dict[str, str]:
    """What each is called: its path in the one folder that was named, or its whole path."""
    paths = [*(run.path for run in overview.runs), *(other.path for other in overview.others)]
    if len(folders) > 1:
        return {path: path for path in paths}
    return {path: os.path.relpath(path, folders[0]) if path != folders[0] else path for path in paths}


def _loss(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.3f}"


def _compact(number: int | None) -> str:
    """12.3M."""
    if number is None:
        return ""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return str(number)


def _when(changed: float | None) -> str:
    """3 min ago; of what is older than a month the date."""
    if changed is None:
        return ""
    ago = max(time.time() - changed, 0.0)
    if ago > 30 * 86_400:
        return time.strftime("%Y-%m-%d", time.localtime(changed))
    size, unit = next((size, unit) for size, unit in _UNITS if ago >= size or size == 1)
    return f"{ago / size:.0f} {unit} ago"

"""What is found, as tables: one for each kind of results."""

import os
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence

from fmlm_cli.events import Grid, clock_time, counted
from fmlm_cli.recipes.overview.differences import in_words, shown
from fmlm_cli.recipes.overview.outcomes import ArmLoss, ComparisonReport, Outcome, TaskScore, TuningReport
from fmlm_cli.recipes.overview.reading import RunReport

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_NARROW = 38  # letters of a line in the first column where the table is narrow
Row = tuple[Sequence[str], Sequence[str]]  # what it is about, and figures


def names_of(paths: Iterable[str], folders: Sequence[str]) -> dict[str, str]:
    """What each is called: its path in the one folder that was named, or its whole path."""
    if len(folders) > 1:
        return {path: path for path in paths}
    return {path: os.path.relpath(path, folders[0]) if path != folders[0] else path for path in paths}


def runs_table(runs: Sequence[RunReport], columns: Mapping[str, str], names: Mapping[str, str]) -> Grid:
    """A row for each run. `columns`: settings in which they differ, with their short names."""
    texts = {run.evaluation for run in runs if run.evaluation}
    on = f", held-out loss on {' or '.join(sorted(texts))}" if texts else ""
    title = f"{counted(len(runs), 'run')}{on}"
    figures = ("loss", "best", "tokens", "time", "changed")
    rows, narrow = [], []
    for run in runs:
        values = (
            *(_loss(run.last_loss), _loss(run.best_loss), _compact(run.tokens)),
            *("" if run.seconds is None else clock_time(run.seconds), when(run.changed)),
        )
        known = columns if run.state != "damaged" else {}
        cells = [shown(run.settings.get(name)) if name in known else "" for name in columns]
        rows.append((names[run.path], run.state_in_words, *cells, *values))
        about = textwrap.wrap(", ".join(in_words(run.settings, known)), _NARROW)
        narrow.append(("\n  ".join((names[run.path], run.state_in_words, *about)), *values))
    return Grid(title, ("", "state", *columns.values(), *figures), rows, Grid(title, ("", *figures), narrow))


def tunings_table(tunings: Sequence[TuningReport], names: Mapping[str, str]) -> Grid:
    """A row for each task and checkpoint."""
    return _grid(
        f"{counted(len(tunings), 'fine-tuning')}, development score in %: mean ± sd over seeds",
        ("task", "checkpoint"),
        ("score", "seeds", "best rate"),
        [(each, [_of_task(score) for score in each.scores]) for each in tunings],
        names,
    )


def _of_task(score: TaskScore) -> Row:
    mean = "diverged" if score.mean is None else f"{100 * score.mean:.1f}"
    spread = "" if score.sd is None else f" ± {100 * score.sd:.1f}"
    rate = "" if score.learning_rate is None else f"{score.learning_rate:g}"
    seeds = f"{score.seeds} of {score.seeds + score.diverged}" if score.diverged else str(score.seeds)
    return (score.task, score.checkpoint), (f"{mean}{spread}", seeds, rate)


def comparisons_table(comparisons: Sequence[ComparisonReport], names: Mapping[str, str]) -> Grid:
    """A row for each arm."""
    return _grid(
        f"{counted(len(comparisons), 'comparison')}, held-out loss (nats): mean over seeds, 95 % interval",
        ("masking",),
        ("loss", "minus baseline", "p (Holm)", "seeds"),
        [(each, [_of_arm(arm) for arm in each.arms]) for each in comparisons],
        names,
    )


def _of_arm(arm: ArmLoss) -> Row:
    difference = p = ""
    if arm.difference is not None:
        difference = f"{arm.difference:+.3f}"
    if arm.difference is not None and arm.low is not None and arm.high is not None:
        difference += f" ({arm.low:+.3f} to {arm.high:+.3f})"
    if arm.p_adjusted is not None:
        p = "< 0.001" if arm.p_adjusted < 0.001 else f"{arm.p_adjusted:.2g}"
    name = f"{arm.masking}, {arm.role}" if arm.role else arm.masking
    loss = "diverged" if arm.mean is None else f"{arm.mean:.3f}"
    return (name,), (loss, difference, p, str(arm.seeds))


def _grid(
    title: str,
    about: Sequence[str],
    figures: Sequence[str],
    found: Sequence[tuple[Outcome, Sequence[Row]]],
    names: Mapping[str, str],
) -> Grid:
    """Folders and the rows of each; a folder is named in the first of them."""
    empty: Row = ("",) * len(about), ("",) * len(figures)
    rows, narrow = [], []
    for outcome, own in found:
        for place, (whats, values) in enumerate(own or [empty]):
            name, state, changed = (names[outcome.path], outcome.state, when(outcome.changed))
            begin = (name, state) if place == 0 else ("", "")
            end = changed if place == 0 else ""
            rows.append((*begin, *whats, *values, end))
            what = textwrap.wrap(", ".join(filter(None, whats)), _NARROW)
            lines = [
                *([name, f"  {state}, {changed}"] if place == 0 else []),
                *(f"  {line}" for line in what),
            ]
            # Beside the line that they are about, which is the last but those that it goes on in.
            down = "\n" * (len(lines) - max(len(what), 1))
            narrow.append(("\n".join(lines), *(f"{down}{value}" for value in values)))
    header = ("", "state", *about, *figures, "changed")
    return Grid(title, header, rows, Grid(title, ("", *figures), narrow))


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


def when(changed: float | None) -> str:
    """3 min ago; of what is older than a month the date."""
    if changed is None:
        return ""
    ago = max(time.time() - changed, 0.0)
    if ago > 30 * 86_400:
        return time.strftime("%Y-%m-%d", time.localtime(changed))
    size, unit = next((size, unit) for size, unit in _UNITS if ago >= size or size == 1)
    return f"{ago / size:.0f} {unit} ago"

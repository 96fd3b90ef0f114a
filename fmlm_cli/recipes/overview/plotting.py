"""`fmlm plot`: the curves of some runs, in a picture or in the terminal."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmlm_cli import storage
from fmlm_cli.analysis.report.figures.drawing import write_picture
from fmlm_cli.analysis.report.figures.runs import RunCurves, draw_runs
from fmlm_cli.analysis.smoothing import smoothed
from fmlm_cli.analysis.statistics import Floats
from fmlm_cli.config import PlotSettings
from fmlm_cli.engine.records import evaluations_of, read_metrics
from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.events import Chart, Emit, Line, Note, counted, ignore
from fmlm_cli.recipes.overview.differences import labels_of, printable
from fmlm_cli.recipes.overview.finding import find_results
from fmlm_cli.recipes.overview.reading import read_settings

_ENDINGS = (".png", ".svg", ".pdf")
_X_LABELS = {"steps": "optimizer step", "tokens": "tokens forwarded", "hours": "hours of training"}


def plot_runs(settings: PlotSettings, emit: Emit = ignore) -> list[RunCurves]:
    """Draw the losses of runs; the curves. Raises `UserError` for what is no run, or has nothing to draw."""
    if settings.out is not None and Path(settings.out).suffix.lower() not in _ENDINGS:
        raise UserError(f"--out {settings.out}: give a name that ends in {', '.join(_ENDINGS)}")
    runs = _runs_of(settings.runs)
    records = {run.root: _records(run) for run in runs}
    labels = labels_of([str(run.root) for run in runs], [read_settings(run) for run in runs])
    name = _evaluation(settings.evaluation, list(records.values()))
    curves = [
        _curves(label, own, settings.x, name) for label, own in zip(labels, records.values(), strict=True)
    ]
    if settings.out is None:
        _show(curves, _X_LABELS[settings.x], name, emit)
    else:
        draw = functools.partial(draw_runs, curves, _X_LABELS[settings.x], printable(name))
        write_picture(draw, Path(settings.out), settings.width)
        emit(Note(f"{counted(len(curves), 'run')} drawn in {settings.out}"))
    return curves


def _runs_of(names: Sequence[str]) -> list[storage.RunDirectory]:
    """The runs that are named, and those below folders that are none."""
    runs: dict[Path, storage.RunDirectory] = {}
    for name in names:
        found = [result.path for result in find_results([name]) if result.kind == storage.RUN.name]
        if not found:
            raise UserError(f"{name} is no run of fmlm's, and there is none below it")
        runs |= {path.resolve(): storage.RunDirectory(path) for path in found}
    return list(runs.values())


def _records(run: storage.RunDirectory) -> list[dict[str, Any]]:
    records = read_metrics(run.metrics) if run.metrics.is_file() else []
    if not any("loss" in record or "eval_loss" in record for record in records):
        raise UserError(f"{run.root} has no records yet: there is nothing to draw")
    return records


def _evaluation(asked: str | None, runs: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """The held-out text whose loss is drawn: each run's first is the one that decides."""
    names = dict.fromkeys(name for records in runs for name in evaluations_of(records))
    if asked is None:
        return next(iter(names), "")
    if asked not in names:
        raise unknown_name("held-out text", asked, names)
    return asked


def _curves(label: str, records: Sequence[Mapping[str, Any]], x: str, name: str) -> RunCurves:
    training = [record for record in records if "loss" in record and "learning_rate" in record]
    evaluations = evaluations_of(records).get(name, [])
    steps, losses = _finite([(record["step"], record["loss"]) for record in training])
    at, held_out = _finite([(record["step"], record["eval_loss"]) for record in evaluations])
    place = _places(training, x)
    return RunCurves(label, place(steps), losses, smoothed(losses), place(at), held_out)


def _finite(points: Sequence[tuple[float, float]]) -> tuple[Floats, Floats]:
    values = np.array(points, np.float64).reshape(-1, 2)
    x, y = values[np.isfinite(values).all(axis=1)].T
    return x, y


def _places(training: Sequence[Mapping[str, Any]], x: str) -> Any:
    """A function from steps to what they are drawn against; evaluations have no time of their own."""
    if x == "steps":
        return lambda steps: steps
    scale, field = (1, "tokens") if x == "tokens" else (3600, "seconds")
    steps = [0, *(record["step"] for record in training)]
    values = [0.0, *(float(record[field]) / scale for record in training)]
    return lambda at: np.interp(at, steps, values)


def _show(curves: Sequence[RunCurves], x_label: str, name: str, emit: Emit) -> None:
    """Two charts under each other."""
    training = [Line(run.label, run.x.tolist(), run.smooth.tolist()) for run in curves]
    held_out = [Line(run.label, run.x_held_out.tolist(), run.held_out.tolist()) for run in curves]
    if any(line.x for line in training):
        emit(Chart("training loss (nats), smoothed", x_label, training))
    if any(line.x for line in held_out):
        on = f" on {name}" if name else ""
        emit(Chart(f"held-out loss{on} (nats)", x_label, held_out))

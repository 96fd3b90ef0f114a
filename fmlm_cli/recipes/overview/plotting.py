"""`fmlm plot`: the curves of runs, comparisons and fine-tunings, in a picture or in the terminal."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmlm_cli import storage
from fmlm_cli.analysis.report.figures.drawing import write_picture
from fmlm_cli.analysis.report.figures.runs import Panel, RunCurves, draw_panels, draw_runs
from fmlm_cli.analysis.smoothing import smoothed
from fmlm_cli.analysis.statistics import Floats
from fmlm_cli.config import PlotSettings
from fmlm_cli.engine.records import evaluations_of, read_metrics
from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.events import Chart, Emit, Line, Note, counted, ignore
from fmlm_cli.recipes.overview.curves import arms_panel, scores_panel
from fmlm_cli.recipes.overview.differences import labels_of, printable
from fmlm_cli.recipes.overview.finding import find_results
from fmlm_cli.recipes.overview.outcomes import (
    COMPARISON,
    TUNING,
    comparison_results,
    damage_told,
    tuning_results,
)
from fmlm_cli.recipes.overview.reading import read_settings

_ENDINGS = (".png", ".svg", ".pdf")
_X_LABELS = {"steps": "optimizer step", "tokens": "tokens forwarded", "hours": "hours of training"}


def plot_runs(settings: PlotSettings, emit: Emit = ignore) -> list[RunCurves]:
    """Draw the losses of runs, of a comparison's arms, the scores of a fine-tuning; the curves of the runs.

    Raises `UserError` for what is none of these, or has nothing to draw.
    """
    if settings.out is not None and Path(settings.out).suffix.lower() not in _ENDINGS:
        raise UserError(f"--out {settings.out}: give a name that ends in {', '.join(_ENDINGS)}")
    runs, outcomes = _found(settings.runs, settings.x)
    if runs and outcomes and settings.out is not None:
        raise UserError(
            f"--out {settings.out}: runs, and means over seeds as of {outcomes[0].title.partition(':')[0]}, "
            "take a picture each: name either"
        )
    records = {run.root: _records(run) for run in runs}
    labels = labels_of([str(run.root) for run in runs], [read_settings(run) for run in runs])
    name = _evaluation(settings.evaluation, list(records.values()))
    curves = [
        _curves(label, own, settings.x, name) for label, own in zip(labels, records.values(), strict=True)
    ]
    if settings.out is None:
        _show(curves, _X_LABELS[settings.x], name, emit)
        for panel in outcomes:
            lines = [Line(curve.label, curve.x.tolist(), curve.y.tolist()) for curve in panel.curves]
            emit(Chart(panel.title, panel.x_label, lines))
        return curves
    draw = (
        functools.partial(draw_panels, outcomes)
        if outcomes
        else functools.partial(draw_runs, curves, _X_LABELS[settings.x], printable(name))
    )
    write_picture(draw, Path(settings.out), settings.width)
    drawn = len(curves) or sum(len(panel.curves) for panel in outcomes)
    emit(Note(f"{counted(drawn, 'run' if curves else 'curve')} drawn in {settings.out}"))
    return curves


def _found(names: Sequence[str], x: str) -> tuple[list[storage.RunDirectory], list[Panel]]:
    """The runs that are named, and those below folders that are none; and comparisons and fine-tunings.

    A comparison that is finished stands for the runs in it.
    """
    runs: dict[Path, storage.RunDirectory] = {}
    outcomes: dict[Path, Panel] = {}
    for name in names:
        found = find_results([name])
        panels = {
            result.path.resolve(): panel
            for result in found
            if (panel := _panel_of(result.path, result.kind, x)) is not None
        }
        paths = [result.path for result in found if result.kind == storage.RUN.name]
        own = {path.resolve(): storage.RunDirectory(path) for path in paths}
        own = {path: run for path, run in own.items() if panels.keys().isdisjoint(path.parents)}
        if not own and not panels:
            raise UserError(
                f"{name} is no run of fmlm's, and there is none below it, nor a comparison or a fine-tuning "
                "with results"
            )
        runs, outcomes = runs | own, outcomes | panels
    return list(runs.values()), list(outcomes.values())


def _panel_of(folder: Path, kind: str, x: str) -> Panel | None:
    with damage_told(folder):
        if kind == COMPARISON:
            compared = comparison_results(folder)
            return arms_panel(folder, compared, x, _X_LABELS[x]) if compared is not None else None
        tuned = tuning_results(folder) if kind == TUNING else None
        return scores_panel(folder, tuned) if tuned is not None else None


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
    """Those that single precision can hold: of what no training leaves a picture could not be scaled."""
    values = np.array(points, np.float64).reshape(-1, 2)
    x, y = values[(np.abs(values) <= np.finfo(np.float32).max).all(axis=1)].T
    return x, y


def _places(training: Sequence[Mapping[str, Any]], x: str) -> Any:
    """A function from steps to what they are drawn against; evaluations have no time of their own."""
    if x == "steps":
        return lambda steps: steps
    scale, field = (1, "tokens") if x == "tokens" else (3600, "seconds")
    steps = [0, *(record["step"] for record in training)]
    if lacking := [record["step"] for record in training if field not in record]:
        raise UserError(f"--x {x}: the record of step {lacking[0]} has no {field}: --x steps needs none")
    values = [0.0, *(record[field] / scale for record in training)]
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

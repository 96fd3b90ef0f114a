"""Loss curves of several runs over each other, and what comparisons and fine-tunings found, over time."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmlm_cli.analysis.report.figures.drawing import MARKERS, colour, dash, panels
from fmlm_cli.analysis.report.figures.noise import TWO_COLUMNS
from fmlm_cli.analysis.report.values import compact
from fmlm_cli.analysis.statistics import Floats

_LETTERS = 12.5  # of the legend in an inch
_MANY_POINTS = 40  # beyond which markers are no help


@dataclass(frozen=True)
class RunCurves:
    """A run's losses. `training`, `smooth`: at `x`, float64[records]; `held_out`: at `x_held_out`."""

    label: str
    x: Floats
    training: Floats
    smooth: Floats
    x_held_out: Floats
    held_out: Floats

    @property
    def ends_at(self) -> str:
        """The last held-out loss, in words."""
        return f": {self.held_out[-1]:.3f}" if len(self.held_out) else ""


@dataclass(frozen=True)
class MeanCurve:
    """A mean over seeds, float64[points], at `x`."""

    label: str
    x: Floats
    y: Floats


@dataclass(frozen=True)
class Panel:
    """Curves that can be compared. `x_label`: what x counts. `places`: decimals that their ends deserve."""

    title: str
    x_label: str
    places: int
    curves: Sequence[MeanCurve]


def draw_panels(each: Sequence[Panel], width: float) -> Figure:
    """Panels under each other, each with its legend beside it, or below where the figure is narrow."""
    beside = width >= TWO_COLUMNS
    height = 2.9 if beside else 2.6 + 0.2 * max(len(panel.curves) for panel in each)
    figure, grid = panels(width, height * len(each), len(each), 1)
    for (axes,), panel in zip(grid, each, strict=True):
        for place, curve in enumerate(panel.curves):
            text = f"{curve.label}: {curve.y[-1]:.{panel.places}f}"
            label = textwrap.fill(text, 28 if beside else max(int(width * _LETTERS) - 8, 20))
            axes.plot(
                curve.x,
                curve.y,
                color=colour(place),
                linestyle=dash(place),
                marker=MARKERS[place % len(MARKERS)],
                markersize=4 if len(curve.x) < _MANY_POINTS else 0,
                linewidth=1.4,
                label=label,
            )
        axes.set_title(textwrap.fill(panel.title, 80 if beside else 46))
        axes.set_xlabel(panel.x_label)
        axes.xaxis.set_major_formatter(lambda value, _: compact(value))
        axes.locator_params(axis="x", nbins=5, integer=True)
        if all(len(curve.x) == 1 for curve in panel.curves):
            axes.set_xticks([panel.curves[0].x[0]])
        axes.grid(axis="y")
        anchor = (1.01, 1.0) if beside else (0.0, -0.24)
        axes.legend(loc="upper left", bbox_to_anchor=anchor, handlelength=3.2, borderaxespad=0)
    return figure


def draw_runs(curves: Sequence[RunCurves], x_label: str, held_out: str, width: float) -> Figure:
    """Training loss, smooth over faint, beside held-out loss, or above it where the figure is narrow.

    `held_out`: on what.
    """
    rows, columns = (1, 2) if width >= TWO_COLUMNS else (2, 1)
    legend_columns = 2 if columns == 2 and len(curves) > 2 else 1
    legend = [_wrapped(run, width / legend_columns) for run in curves]
    lines = sum(text.count("\n") + 1 for text in legend) / legend_columns
    figure, grid = panels(width, 2.9 * rows + 0.17 * lines + 0.15, rows, columns, sharey=True)
    training, evaluation = (axes for row in grid for axes in row)
    for place, (run, label) in enumerate(zip(curves, legend, strict=True)):
        _draw(training, evaluation, run, place, label)
    _look_at_smooth(training, curves)
    training.set_title("training loss, smoothed (nats)")
    evaluation.set_title(f"held-out loss{f' on {held_out}' if held_out else ''} (nats)")
    for axes in (training, evaluation):
        axes.set_xlabel(x_label)
        axes.xaxis.set_major_formatter(lambda value, _: compact(value))
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="y")
    evaluation.tick_params(labelleft=True)
    figure.legend(
        *evaluation.get_legend_handles_labels(),
        loc="outside lower left",
        ncols=legend_columns,
        handlelength=3.2,
    )
    return figure


def _draw(training: Axes, evaluation: Axes, run: RunCurves, place: int, label: str) -> None:
    own = colour(1 + place)
    training.plot(run.x, run.training, color=own, linewidth=0.6, alpha=0.22)
    training.plot(run.x, run.smooth, color=own, linewidth=1.4)
    evaluation.plot(
        run.x_held_out,
        run.held_out,
        color=own,
        linestyle=dash(1 + place),
        marker=MARKERS[place % len(MARKERS)],
        markersize=4,
        linewidth=1.4,
        label=label,
    )


def _look_at_smooth(axes: Axes, curves: Sequence[RunCurves]) -> None:
    """Single steps that jump out of the picture would squeeze all that is to be compared."""
    seen = np.concatenate([part for run in curves for part in (run.smooth, run.held_out)])
    if len(seen):
        room = 0.05 * max(np.ptp(seen), 1e-3)
        axes.set_ylim(seen.min() - room, seen.max() + room)


def _wrapped(run: RunCurves, width: float) -> str:
    return textwrap.fill(f"{run.label}{run.ends_at}", max(int(width * _LETTERS) - 8, 20))

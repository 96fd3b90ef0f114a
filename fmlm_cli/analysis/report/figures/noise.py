"""Figures of gradient variance and coverage; `race` has those of trained models.

Each is drawn for a width in inches; below `TWO_COLUMNS` panels are stacked.

Intervals are drawn as lines from end to end, not as error bars around a value, about which they need not be
symmetrical.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmlm_cli.analysis.report.figures.drawing import (
    GRID,
    INK,
    MARKERS,
    PAPER,
    STEPS,
    colour,
    dash,
    panels,
)
from fmlm_cli.analysis.report.values import Arms, Estimate, measurement, percent
from fmlm_cli.analysis.results.variance import VarianceResult

TWO_COLUMNS = 5.5
INTERVAL: dict[str, Any] = {"linewidth": 2.2, "alpha": 0.45, "solid_capstyle": "butt"}


# ---------------------------------------------------------------- gradient variance


def draw_covariance(entries: Sequence[VarianceResult], width: float) -> Figure:
    """c(h) / sigma^2 against the Hamming distance: a panel by corruption, a line by checkpoint."""
    corruptions = list(dict.fromkeys(entry.corruption for entry in entries))
    beside = width >= TWO_COLUMNS and len(corruptions) > 1
    rows, columns = (1, len(corruptions)) if beside else (len(corruptions), 1)
    figure, grid = panels(width, 3.2 * rows, rows, columns, sharey=True)
    every = [axes for row in grid for axes in row]
    names = list(dict.fromkeys((entry.name, entry.step) for entry in entries))
    for axes, corruption in zip(every, corruptions, strict=True):
        for entry in entries:
            if entry.corruption == corruption:
                place = names.index((entry.name, entry.step))
                _correlations(axes, entry, place, 0.012 * (place - (len(names) - 1) / 2))
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_title(corruption)
        axes.set_xlabel("Hamming distance h / 2τ (1: no token in both)")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.grid(axis="y")
    every[0].set_ylabel("correlation of gradients, c(h)/σ²")
    every[0].legend(loc="upper right")
    return figure


def _correlations(axes: Axes, entry: VarianceResult, place: int, shift: float) -> None:
    """A line, `shift`ed so that the intervals of several lie beside each other."""
    at = [correlation.distance + shift for correlation in entry.correlations]
    estimates = [Estimate.of(correlation) for correlation in entry.correlations]
    for x, estimate in zip(at, estimates, strict=True):
        axes.plot([x] * 2, [estimate.low, estimate.high], color=colour(1 + place), **INTERVAL)
    axes.plot(
        at,
        [estimate.value for estimate in estimates],
        color=colour(1 + place),
        linestyle=dash(1 + place),
        marker=MARKERS[place % len(MARKERS)],
        markersize=4,
        linewidth=1.4,
        label=f"{entry.name}, step {entry.step:,}",
    )


def draw_ratios(entries: Sequence[VarianceResult], width: float) -> Figure:
    """Var_full / Var_random of every measurement, by the masks alone and with the rows' variance in both."""
    figure, ((axes,),) = panels(width, 1.5 + 0.42 * len(entries), 1, 1)
    kinds = (
        ([entry.ratio for entry in entries], "o", 1, "masks of one row"),
        ([entry.repeated_ratio for entry in entries], "s", 2, "with the rows’ part"),
    )
    for (ratios, marker, series, label), offset in zip(kinds, (-0.12, 0.12), strict=True):
        for place, ratio in enumerate(ratios):
            draw_estimate(axes, Estimate.of(ratio), place + offset, colour(series), marker)
        axes.plot([], [], marker, color=colour(series), markersize=4.5, label=label)
    _one(axes)
    name_rows(axes, [measurement(entry) for entry in entries], width)
    axes.set_xlabel("variance, full / random")
    legend_above(axes, 2)
    return figure


def draw_equal_compute(entries: Sequence[VarianceResult], width: float) -> Figure:
    """What a step of as many rows varies by, relative to different rows with one random mask each."""
    figure, ((axes,),) = panels(width, 1.5 + 0.42 * len(entries), 1, 1)
    steps = [entry.equal_compute for entry in entries]
    kinds = (
        ([step.random_masks for step in steps], "s", 2, "K random masks of each of B/K rows"),
        ([step.segments for step in steps], "o", 1, "all K segments of each of B/K rows"),
    )
    for (ratios, marker, series, label), offset in zip(kinds, (-0.12, 0.12), strict=True):
        for place, ratio in enumerate(map(Estimate.of, ratios)):
            draw_estimate(axes, ratio, place + offset, colour(series), marker)
            end = (max(ratio.value, ratio.high), place + offset)
            axes.annotate(ratio.point(), end, (3, 0), textcoords="offset points", va="center")
        axes.plot([], [], marker, color=colour(series), markersize=4.5, label=label)
    _one(axes)
    axes.margins(x=0.12)
    name_rows(axes, [measurement(entry) for entry in entries], width)
    axes.set_xlabel("variance of a step, relative to B different rows with one random mask each")
    legend_above(axes, 1 if width < TWO_COLUMNS else 2)
    return figure


def _one(axes: Axes) -> None:
    """The place of no difference, and nought, are in the figure."""
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]), right=max(1.08, axes.get_xlim()[1]))


# ---------------------------------------------------------------- coverage


def draw_coverage(times: Mapping[str, Sequence[float]], arms: Arms, width: float) -> Figure:
    """For each arm the shares of the tokens that were masked never, once, twice, ... in all passes."""
    names = list(times)
    figure, ((axes,),) = panels(width, 1.2 + 0.4 * len(names), 1, 1)
    last = min(len(STEPS) - 1, max(map(len, times.values())) - 1)
    for k in range(last + 1):
        widths = [sum(shares[k:] if k == last else shares[k : k + 1]) for shares in times.values()]
        begins = [sum(shares[:k]) for shares in times.values()]
        label = ("never", "once", "twice", "3 times", "4 times", "5 times")[k]
        more = any(len(shares) > last + 1 for shares in times.values()) and k == last
        axes.barh(range(len(names)), widths, left=begins, height=0.66, color=STEPS[k], edgecolor=PAPER,
                  linewidth=0.8, label=f"{label} or more" if more else label)  # fmt: skip
        for place, (begin, share) in enumerate(zip(begins, widths, strict=True)):
            if share >= 0.09:
                axes.text(begin + share / 2, place, percent(share), ha="center", va="center",
                          color="#fefefe" if k < 3 else "#101010")  # fmt: skip
    name_rows(axes, [arms.label(name) for name in names], width)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    axes.set_xlabel("share of the maskable tokens")
    axes.grid(visible=False)
    legend_above(axes, 3 if width < TWO_COLUMNS else 6)
    return figure


# ---------------------------------------------------------------- shared


def draw_estimate(axes: Axes, estimate: Estimate, place: float, series_colour: str, marker: str) -> None:
    """An estimate as a marker, its interval as a line."""
    if estimate.bounded:
        axes.plot([estimate.low, estimate.high], [place] * 2, color=series_colour, **INTERVAL)
    axes.plot([estimate.value], [place], marker, color=series_colour, markersize=4.5)


def name_rows(axes: Axes, names: Sequence[str], width: float, text: int | None = None) -> None:
    """Rows from top to bottom, their names wrapped to what the width leaves for them."""
    room = text or (30 if width >= TWO_COLUMNS else 18)
    wrapped = [textwrap.fill(textwrap.shorten(name, 3 * room, placeholder=" ..."), room) for name in names]
    axes.set_yticks(range(len(names)), wrapped)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID)


def legend_above(axes: Axes, columns: int) -> None:
    """A legend between the title and the axes."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        borderaxespad=0.2,
        handlelength=1.2,
        columnspacing=1.2,
    )

"""The figures of a comparison of maskings: gradient variance and coverage; `report_figures` has those of trained models. Each is drawn for a width in inches; below `TWO_COLUMNS` panels are stacked.

Intervals are drawn as lines from end to end, not as error bars around a value: those of a bootstrap need not hold it.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmlm_cli.analysis.report_drawing import (
    GRID,
    INK,
    MARKERS,
    PAPER,
    SOFT,
    STEPS,
    colour,
    dash,
    panels,
)
from fmlm_cli.analysis.report_values import (
    Arms,
    Estimate,
    Json,
    measurement,
    number,
    percent,
)

TWO_COLUMNS = 5.5
INTERVAL: dict[str, Any] = {"linewidth": 2.2, "alpha": 0.45, "solid_capstyle": "butt"}


# ---------------------------------------------------------------- gradient variance


def draw_covariance(entries: Sequence[Json], width: float) -> Figure:
    """c(h) / sigma^2 against the Hamming distance, one line for each measurement."""
    figure, ((axes,),) = panels(width, 3.5, 1, 1)
    for place, entry in enumerate(entries):
        found = [
            (number(own.get("distance")), Estimate.of(own)) for own in entry.get("correlations") or [] if own
        ]
        points = [(at, own) for at, own in found if at is not None and own is not None]
        own_colour = colour(1 + place)
        shift = 0.006 * (place - (len(entries) - 1) / 2)  # intervals of one distance beside each other
        for at, own in points:
            if own.low is not None and own.high is not None:
                axes.plot([at + shift] * 2, [own.low, own.high], color=own_colour, **INTERVAL)
        axes.plot(
            [at + shift for at, _ in points],
            [own.value for _, own in points],
            color=own_colour,
            linestyle=dash(1 + place),
            marker=MARKERS[place % len(MARKERS)],
            markersize=4,
            linewidth=1.4,
            label=textwrap.fill(measurement(entry), 34),
        )
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xlabel("Hamming distance h / 2τ (1: no token in both masks)")
    axes.set_ylabel("correlation of the gradients, c(h)/σ²")
    axes.grid(axis="y")
    axes.legend(loc="upper right")
    return figure


def draw_ratios(entries: Sequence[Json], width: float) -> Figure:
    """Var_full / Var_random of every measurement, by the masks alone and with the data's variance in both."""
    names = [measurement(entry) for entry in entries]
    figure, ((axes,),) = panels(width, 1.5 + 0.42 * len(entries), 1, 1)
    kinds = (("ratio", "o", 1, "masks of one sequence"), ("repeated_ratio", "s", 2, "masks and data"))
    for offset, (key, marker, series, label) in zip((-0.14, 0.14), kinds, strict=True):
        for place, entry in enumerate(entries):
            draw_estimate(axes, Estimate.of(entry.get(key)), place + offset, colour(series), marker)
        axes.plot([], [], marker, color=colour(series), markersize=4.5, label=label)
    axes.axvline(1, color=INK, linewidth=0.8)
    name_rows(axes, names, width)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]), right=max(1.08, axes.get_xlim()[1]))
    axes.set_xlabel("variance, full / random")
    legend_above(axes, 2)
    return figure


def draw_steps(entries: Sequence[Json], width: float) -> Figure:
    """Step variances at equal compute, and above them the ratio for one sequence, one panel for each measurement."""
    names = ["one sequence: segments / random masks"]
    for entry in entries:
        names += [
            own["name"] for own in entry.get("steps") or [] if own and own.get("name") not in (None, *names)
        ]
    columns = min(len(entries), 3) if width >= TWO_COLUMNS else 1
    rows = -(-len(entries) // columns)
    figure, grid = panels(width, (0.7 + 0.4 * len(names)) * rows, rows, columns, sharex=True, sharey=True)
    every = [axes for row in grid for axes in row]
    for axes, entry in zip(every, entries, strict=False):
        _step_bars(axes, entry, names)
        axes.set_title(textwrap.fill(measurement(entry), 26 if columns > 1 else 44))
    for axes in every[len(entries) :]:
        axes.set_visible(False)
    name_rows(every[0], names, width, text=26)
    for axes in grid[-1]:
        axes.set_xlabel("relative variance")
    return figure


def _step_bars(axes: Axes, entry: Json, names: Sequence[str]) -> None:
    relative = {own.get("name"): Estimate.of(own.get("relative")) for own in entry.get("steps") or [] if own}
    found = [Estimate.of(entry.get("ratio")), *(relative.get(name) for name in names[1:])]
    for place, own in enumerate(found):
        if own is None:
            continue
        series = 2 if place == 0 else 1
        axes.barh(place, own.value, height=0.56, color=colour(series), alpha=0.8)
        if own.low is not None and own.high is not None:
            axes.plot([own.low, own.high], [place] * 2, color=INK, linewidth=1.1)
        end = max(own.value, own.high or 0.0, 0.0)
        axes.annotate(own.point(most=2), (end, place), (3, 0), textcoords="offset points", va="center")
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.axhline(0.5, color=SOFT, linewidth=0.7, linestyle=(0, (2, 2)))
    axes.grid(axis="x")
    axes.margins(x=0.2)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(left=min(0.0, *(own.value for own in found if own is not None)) if any(found) else 0.0)


# ---------------------------------------------------------------- coverage


def draw_coverage(times: Mapping[str, Sequence[float]], arms: Arms, width: float) -> Figure:
    """For each arm the shares of the tokens that were masked never, once, twice, ... in all passes."""
    names = list(times)
    figure, ((axes,),) = panels(width, 1.2 + 0.4 * len(names), 1, 1)
    last = min(len(STEPS) - 1, max(len(own) for own in times.values()) - 1)
    for k in range(last + 1):
        shares = [sum(own[k:]) if k == last else sum(own[k : k + 1]) for own in times.values()]
        begins = [sum(own[:k]) for own in times.values()]
        label = ("never", "once", "twice", "3 times", "4 times", "5 times")[k]
        more = any(len(own) > last + 1 for own in times.values()) and k == last
        axes.barh(range(len(names)), shares, left=begins, height=0.66, color=STEPS[k], edgecolor=PAPER,
                  linewidth=0.8, label=f"{label} or more" if more else label)  # fmt: skip
        for place, (begin, share) in enumerate(zip(begins, shares, strict=True)):
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


def draw_estimate(
    axes: Axes, estimate: Estimate | None, place: float, own_colour: str, marker: str, scale: float = 1.0
) -> None:
    """An estimate as a marker, its interval as a line; nothing for None."""
    if estimate is None:
        return
    if estimate.low is not None and estimate.high is not None:
        axes.plot([scale * estimate.low, scale * estimate.high], [place] * 2, color=own_colour, **INTERVAL)
    axes.plot([scale * estimate.value], [place], marker, color=own_colour, markersize=4.5)


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

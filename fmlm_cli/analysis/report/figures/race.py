"""Figures of trained models: loss curves, values by seed, paired differences, scores, a sweep."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmlm_cli.analysis.report.figures.drawing import INK, MARKERS, PAPER, SOFT, colour, dash, panels
from fmlm_cli.analysis.report.figures.noise import TWO_COLUMNS, draw_estimate, name_rows
from fmlm_cli.analysis.report.values import Arms, Estimate, Ratio, compact
from fmlm_cli.analysis.results.comparison import BestResult, BySeed, PointResult
from fmlm_cli.analysis.statistics import Floats

Dots = Mapping[str, BySeed]  # by arm
Estimates = Mapping[str, Estimate]  # by arm, where there is one
_WIDE = 4  # times that ratios are apart, from where on their axis is logarithmic
_OUT_OF_SIGHT = 5  # times as far from the baseline as the median arm
_LEGEND = 32  # letters of a label, where three stand beside each other
Curve = tuple[Floats, Floats, Floats, Floats]  # tokens, mean, and the interval's ends

# ---------------------------------------------------------------- race


def draw_curves(
    curves: Mapping[str, Curve],
    gaps: Mapping[str, Curve],
    arms: Arms,
    labels: Mapping[str, str],
    by_frequency: float,
    width: float,
) -> Figure:
    """Held-out loss against tokens forwarded, and above the baseline's, with intervals over seeds.

    `by_frequency`: the loss of word frequencies alone, a line where it would not squeeze the curves.
    """
    beside = width >= TWO_COLUMNS and bool(gaps)
    rows, columns = (1, 2) if beside else (1 + bool(gaps), 1)
    longest = max(len(labels[name]) for name in curves)
    legend_columns = (2 if longest > _LEGEND else 3) if width >= TWO_COLUMNS else 1
    legend = 0.2 * -(-(len(curves) + 1) // legend_columns)
    figure, grid = panels(width, 3.0 * rows + legend, rows, columns)
    axes = [panel for row in grid for panel in row]
    for name, curve in curves.items():
        _curve(axes[0], curve, arms.place(name), labels[name])
    _by_frequency(axes[0], by_frequency)
    axes[0].set_title("Held-out loss (nats)")
    for name, curve in gaps.items():
        _curve(axes[1], curve, arms.place(name), labels[name])
        _band(axes[1], curve, arms.place(name))
    if gaps:
        axes[1].axhline(0, color=colour(0), linewidth=1.4)
        axes[1].set_title(textwrap.fill(f"Minus {arms.base}, by seed", 34))
        _look_at_means(axes[1], list(gaps.values()))
    for panel in axes:
        panel.set_xlabel("tokens forwarded")
        panel.xaxis.set_major_formatter(lambda value, _: compact(value))
        panel.locator_params(axis="x", nbins=5)
        panel.grid(axis="y")
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower left",
        ncols=legend_columns,
    )
    return figure


def _by_frequency(axes: Axes, loss: float) -> None:
    """A dashed line, if it is no further from the curves than they reach."""
    low, high = axes.get_ylim()
    if 2 * low - high <= loss <= 2 * high - low:
        label = f"word frequencies alone: {loss:.3f}"
        axes.axhline(loss, color=SOFT, linestyle="--", linewidth=1, label=label)


def _curve(axes: Axes, curve: Curve, place: int, label: str) -> None:
    label = textwrap.shorten(label, 2 * _LEGEND, placeholder=" ...")
    axes.plot(curve[0], curve[1], color=colour(place), linestyle=dash(place), linewidth=1.4, label=label)


def _band(axes: Axes, curve: Curve, place: int) -> None:
    tokens, _, low, high = curve
    if np.isfinite(low).all():
        axes.fill_between(tokens, low, high, color=colour(place), alpha=0.14, linewidth=0)


def _look_at_means(axes: Axes, curves: Sequence[Curve]) -> None:
    """What would squeeze most lines into one may leave the figure: wide intervals, an arm far off."""
    ends = [abs(mean[-1]) for _, mean, _, _ in curves]
    near = [
        curve for curve, away in zip(curves, ends, strict=True) if away <= _OUT_OF_SIGHT * np.median(ends)
    ]
    means = np.concatenate([mean for _, mean, _, _ in near or curves])
    low, high = min(means.min(), 0.0), max(means.max(), 0.0)
    room = max(high - low, 1e-6)
    axes.set_ylim(max(low - room, axes.get_ylim()[0]), min(high + room, axes.get_ylim()[1]))


def draw_pairs(
    values: Dots,
    compared: Estimates,
    arms: Arms,
    width: float,
    *,
    measured: str,
    against: str,
    reference: float,
) -> Figure:
    """Each seed's value for every arm, seeds joined by lines, and beside it each arm's difference.

    `measured`, `against`: what the two panels show. `reference`: no difference, in the second panel.
    """
    names = list(values)
    beside = width >= TWO_COLUMNS
    height = 1.0 + 0.42 * len(names)
    figure, grid = panels(
        width, height * (1 if beside else 2), *((1, 2) if beside else (2, 1)), sharey=beside
    )
    left, right = (panel for row in grid for panel in row)
    ratios = any(isinstance(estimate, Ratio) for estimate in compared.values())
    _seeds(left, values, arms, joined=not ratios)  # each ratio's tokens are down to a loss of its own
    for place, name in enumerate(names):
        if name in compared:
            draw_estimate(right, compared[name], place, colour(arms.place(name)), "o")
    if ratios:
        left.xaxis.set_major_formatter(lambda value, _: compact(value))
        left.locator_params(axis="x", nbins=4)
        _as_ratios(right)
    right.axvline(reference, color=INK, linewidth=0.8)
    far = _far(compared)
    if far and not ratios:
        near = [name for name in names if name not in far]
        seen = [value for name in near for value in values[name].values() if value is not None]
        means = {name: float(np.mean([v for v in values[name].values() if v is not None])) for name in far}
        _look_at(left, seen, {names.index(name): (mean, f"{mean:.4g}") for name, mean in means.items()})
        ends = [end for name in near if name in compared for end in (compared[name].low, compared[name].high)]
        texts = {names.index(n): (compared[n].value, compared[n].point(sign=True)) for n in far}
        _look_at(right, [*ends, reference], texts)
    for axes, title in ((left, measured), (right, against)):
        axes.set_title(textwrap.fill(title, 30))
        if axes is left or not beside:
            name_rows(axes, [arms.label(name) for name in names], width)
        axes.grid(axis="x")
    right.tick_params(axis="y", length=0)
    return figure


def _as_ratios(axes: Axes) -> None:
    """A logarithmic axis where ratios are far apart."""
    low, high = axes.get_xlim()
    if low <= 0 or high > _WIDE * low:
        axes.set_xscale("log", base=2)
        low, high = axes.get_xlim()
        axes.set_xticks(
            [at for at in (0.01, 0.03, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64) if low <= at <= high]
        )
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axes.minorticks_off()


def _far(compared: Estimates) -> list[str]:
    """Arms several times as far off as the median arm: beside them the others would be one line."""
    away = {name: abs(estimate.value) for name, estimate in compared.items()}
    limit = _OUT_OF_SIGHT * float(np.median(list(away.values()))) if away else 0.0
    return [name for name, distance in away.items() if distance > limit > 0]


def _look_at(axes: Axes, inside: Sequence[float], outside: Mapping[int, tuple[float, str]]) -> None:
    """Show what is `inside`; of what lies `outside`, by place, only which way and how far."""
    finite = [value for value in inside if np.isfinite(value)]
    room = 0.06 * (max(finite) - min(finite))
    axes.set_xlim(min(finite) - room, max(finite) + room)
    for place, (value, text) in outside.items():
        right = value > min(finite)
        axes.annotate(
            f"{text} →" if right else f"← {text}",
            (0.98 if right else 0.02, place),
            xycoords=("axes fraction", "data"),
            ha="right" if right else "left",
            va="center",
        )


def _seeds(axes: Axes, values: Dots, arms: Arms, *, joined: bool) -> None:
    """A dot for a seed, a bar for the mean, a cross at the edge for no value; `joined`: seeds by lines."""
    seeds = list(dict.fromkeys(seed for by_seed in values.values() for seed in by_seed))
    spread = np.linspace(-0.16, 0.16, len(seeds)) if len(seeds) > 1 else np.zeros(1)
    for seed, offset in zip(seeds, spread, strict=True):
        path = [
            (by_seed[seed], place + offset)
            for place, by_seed in enumerate(values.values())
            if by_seed.get(seed) is not None
        ]
        if path and joined:
            axes.plot(*zip(*path, strict=True), color=SOFT, linewidth=0.6, alpha=0.5)
    for place, (name, by_seed) in enumerate(values.items()):
        finite = [value for value in by_seed.values() if value is not None]
        for seed, offset in zip(seeds, spread, strict=True):
            if (value := by_seed.get(seed)) is not None:
                axes.plot([value], [place + offset], MARKERS[0], color=colour(arms.place(name)), markersize=4)
            elif seed in by_seed:
                edge = axes.get_yaxis_transform()
                axes.plot([0.985], [place + offset], "x", color=SOFT, markersize=4, transform=edge)
        if finite:
            axes.plot([np.mean(finite)] * 2, [place - 0.32, place + 0.32], color=INK, linewidth=1.3)


# ---------------------------------------------------------------- downstream, sweep


def draw_downstream(values: Dots, compared: Estimates, arms: Arms, measure: str, width: float) -> Figure:
    """Each seed's score (%) by arm, and the paired differences in percentage points."""
    percents = {
        arm: {seed: None if score is None else 100 * score for seed, score in by_seed.items()}
        for arm, by_seed in values.items()
    }
    points = {name: estimate.times(100) for name, estimate in compared.items()}
    return draw_pairs(
        percents,
        points,
        arms,
        width,
        measured=f"{measure} (%) by seed",
        against=f"Minus {arms.base} (points), 95 % interval",
        reference=0.0,
    )


def draw_sweep(axis_names: Sequence[str], points: Sequence[PointResult], width: float) -> Figure:
    """A heat map over two axes, a panel for each combination of the others; dots if there is one axis."""
    if len(axis_names) < 2:
        return _sweep_line(axis_names[0], points, width)
    across, down, *panel_axes = axis_names
    means = [point.mean for point in points if point.mean is not None] or [0.0]
    groups: dict[str, list[PointResult]] = {}
    for point in points:
        if point.mean is not None:
            title = ", ".join(f"{key} {point.settings[key]}" for key in panel_axes)
            groups.setdefault(title, []).append(point)
    xs, ys = (_distinct(points, name) for name in (across, down))
    figure, grid = panels(
        width, (0.9 + 0.4 * len(ys)) * max(1, len(groups)), max(1, len(groups)), 1, sharex=True
    )
    for (axes,), (title, panel_points) in zip(grid, groups.items(), strict=True):
        _heat(axes, panel_points, (across, xs), (down, ys), (min(means), max(means)))
        axes.set_title(title)
        axes.set_ylabel(down)
    grid[-1][0].set_xlabel(across)
    return figure


def _heat(
    axes: Axes,
    points: Sequence[PointResult],
    across: tuple[str, Sequence[str]],
    down: tuple[str, Sequence[str]],
    ends: tuple[float, float],
) -> None:
    """Cells as shapes, not as an image, each with its mean; the lower the loss, the darker."""
    (x_name, xs), (y_name, ys) = across, down
    table = np.full((len(ys), len(xs)), np.nan)
    for point in points:
        row, column = ys.index(str(point.settings[y_name])), xs.index(str(point.settings[x_name]))
        table[row, column] = point.mean
    low, high = ends
    cells = np.ma.masked_invalid(table)
    axes.pcolormesh(cells, cmap="Blues_r", vmin=low, vmax=high + 1e-12, edgecolors=PAPER, linewidth=1)
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            ink = "#fefefe" if value < low + 0.5 * (high - low) else "#101010"
            axes.text(column + 0.5, row + 0.5, f"{value:.4g}", ha="center", va="center", color=ink)
    axes.set_xticks(np.arange(len(xs)) + 0.5, xs)
    axes.set_yticks(np.arange(len(ys)) + 0.5, ys)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)


def _sweep_line(name: str, points: Sequence[PointResult], width: float) -> Figure:
    """The values of each point, in order, joined at their means."""
    figure, ((axes,),) = panels(width, 3.0, 1, 1)
    labels = [str(point.settings[name]) for point in points]
    for place, point in enumerate(points):
        dots = [value for value in point.values.values() if value is not None]
        axes.plot([place] * len(dots), dots, "o", color=colour(1), markersize=4)
    means = [(place, point.mean) for place, point in enumerate(points) if point.mean is not None]
    if means:
        axes.plot(*zip(*means, strict=True), color=colour(1), linewidth=1.2)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel(name)
    axes.set_ylabel("held-out loss (nats)")
    axes.grid(axis="y")
    return figure


def draw_best(bests: Sequence[BestResult], base: str, width: float) -> Figure:
    """Each strategy's losses at its best settings, a dot for a seed, and its difference from `base`."""
    beside = width >= TWO_COLUMNS
    height = 1.0 + 0.42 * len(bests)
    figure, grid = panels(
        width, height * (1 if beside else 2), *((1, 2) if beside else (2, 1)), sharey=beside
    )
    left, right = (panel for row in grid for panel in row)
    others = [best.strategy for best in bests if best.strategy != base]
    for place, best in enumerate(bests):
        shade = colour(0 if best.strategy == base else 1 + others.index(best.strategy))
        dots = [value for value in best.values.values() if value is not None]
        left.plot(dots, np.linspace(place - 0.16, place + 0.16, len(dots)), "o", color=shade, markersize=4)
        if best.mean is not None:
            left.plot([best.mean] * 2, [place - 0.32, place + 0.32], color=INK, linewidth=1.3)
        if best.paired is not None and best.paired.n:
            draw_estimate(right, Estimate.of(best.paired), place, shade, "o")
    right.axvline(0.0, color=INK, linewidth=0.8)
    titles = "Held-out loss (nats) by seed", f"Minus {base}, interval of both tests"
    for axes, title in zip((left, right), titles, strict=True):
        axes.set_title(textwrap.fill(title, 30))
        if axes is left or not beside:
            name_rows(axes, [best.strategy for best in bests], width)
        axes.grid(axis="x")
    right.tick_params(axis="y", length=0)
    return figure


def _distinct(points: Sequence[PointResult], name: str) -> list[str]:
    return list(dict.fromkeys(str(point.settings[name]) for point in points))

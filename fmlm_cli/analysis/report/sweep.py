"""The report's part about the sweep: its points, and each strategy at the best of its other settings."""

import functools
from collections.abc import Mapping, Sequence

from fmlm_cli.analysis.report.figures.race import draw_best, draw_sweep
from fmlm_cli.analysis.report.findings.race import visible
from fmlm_cli.analysis.report.findings.sweep import (
    at_best,
    lowest,
    other_axes,
    otherwise,
    points_told,
    setting_words,
    short_names,
)
from fmlm_cli.analysis.report.parts import Exhibit, Part, ReportTable
from fmlm_cli.analysis.report.race import PAIRED, difference_and_p, paired_data
from fmlm_cli.analysis.report.values import DASH, Arms, compact, spell
from fmlm_cli.analysis.results.comparison import BySeed, Measurements, PointResult, SweepResult

_HEADER = ("passes", "mean", "by seed", "against", "difference", "p (Holm)", "smallest visible")


def sweep_part(results: Measurements, arms: Arms) -> Part:
    """An ablation over settings."""
    sweep, title = results.sweep, "Sweep"
    if sweep is None:
        return Part(
            "sweep",
            title,
            missing="No settings were varied. Give lists of values, such as `--set sweep.segments=[3,5,7]`, "
            "and run the same command with `--resume --only race` to add it.",
        )
    exhibits = [_points(sweep, arms)]
    if sweep.best:
        exhibits.append(_best(sweep, *at_best(results)))
    return Part("sweep", title, exhibits)


def _points(sweep: SweepResult, arms: Arms) -> Exhibit:
    axes, points = list(sweep.axes), sweep.points
    by_name = {point.name: point for point in points}
    return Exhibit(
        "sweep",
        "What does each setting change?",
        f"{lowest(points)} {points_told(points)}",
        "Final held-out loss (nats), mean over seeds at each point, darker is lower; measured on the same "
        "masks of the same rate at every point, to which some are nearer than others. Each point is compared "
        "with random masking under the same settings of a run and at the same mask rate, of the sweep or of "
        f"the race. {PAIRED} Points are corrected together; those that share a baseline pool their spread.",
        functools.partial(draw_sweep, axes, points),
        [
            {
                **point.settings,
                "passes": point.passes,
                "seed": str(seed),
                "loss": loss,
                "against": point.against,
                **paired_data(point.paired),
            }
            for point in points
            for seed, loss in point.values.items()
        ],
        ReportTable(
            [*short_names(axes).values(), *_HEADER],
            [_row(point, axes, by_name, arms) for point in points],
        ),
    )


def _row(
    point: PointResult, axes: Sequence[str], by_name: Mapping[str, PointResult], arms: Arms
) -> tuple[str, ...]:
    pair = point.paired
    seen = DASH if pair is None else visible(pair)
    settings = (str(point.settings[axis]) for axis in axes)
    against = _reference(point, by_name, arms)
    return (
        *settings,
        compact(point.passes),
        spell(point.mean, 3),
        _losses(point.values),
        against,
        *difference_and_p(pair),
        seen,
    )


def _reference(point: PointResult, by_name: Mapping[str, PointResult], arms: Arms) -> str:
    """What a point is compared with: another by the settings in which it differs, or the race's baseline."""
    if point.against is None:
        return DASH
    other = by_name.get(point.against)
    if other is None:
        return f"{arms.base} of the race"
    differ = {name: value for name, value in other.settings.items() if value != point.settings[name]}
    return str(differ["strategy"]) if list(differ) == ["strategy"] else setting_words(differ)


def _losses(values: BySeed) -> str:
    return ", ".join("diverged" if loss is None else spell(loss, 3) for loss in values.values())


def _best(sweep: SweepResult, says: str) -> Exhibit:
    others = other_axes(sweep)
    base = next((best.strategy for best in sweep.best if best.paired is None), "random")
    return Exhibit(
        "best",
        "Each strategy at its best",
        says,
        f"Of the combinations of {others} that every seed finished, each seed’s is chosen by the mean loss "
        "of the other seeds, and its own loss there counts, so that no choice is judged by the run that made "
        "it. Differences are paired by seed. Where combinations are about as good, seeds choose with the "
        "same luck, and these losses spread too little; so the t-test at what all seeds together chose has "
        "to tell the two as well: p is the larger, after Holm’s correction over the strategies, and the "
        "interval holds both 95 % Student-t intervals.",
        functools.partial(draw_best, sweep.best, base),
        [
            {
                "strategy": best.strategy,
                **(best.settings or {}),
                "seeds that chose otherwise": best.otherwise,
                "seed": str(seed),
                "loss": loss,
                **paired_data(best.paired),
            }
            for best in sweep.best
            for seed, loss in best.values.items()
        ],
        ReportTable(
            (
                "strategy",
                f"best {others}",
                "seeds that chose otherwise",
                "mean",
                "by seed",
                f"minus {base}",
                "p (Holm)",
            ),
            [
                (
                    best.strategy,
                    "none finished" if best.settings is None else ", ".join(map(str, best.settings.values())),
                    otherwise(best),
                    spell(best.mean, 3),
                    _losses(best.values),
                    *(("baseline", DASH) if best.paired is None else difference_and_p(best.paired)),
                )
                for best in sweep.best
            ],
        ),
    )

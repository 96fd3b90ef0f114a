"""The report's parts: what was measured, in sentences, tables and figures, before it is HTML or Markdown.

This module has gradient variance and coverage; `race` and `tasks` have the trained models.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fmlm_cli.analysis.report.figures.drawing import Drawing
from fmlm_cli.analysis.report.figures.noise import (
    draw_covariance,
    draw_coverage,
    draw_equal_compute,
    draw_ratios,
)
from fmlm_cli.analysis.report.findings import noise
from fmlm_cli.analysis.report.findings.coverage import coverage_in_words
from fmlm_cli.analysis.report.values import (
    DASH,
    Arms,
    Estimate,
    compact,
    measurement,
    percent,
    spell,
)
from fmlm_cli.analysis.results.comparison import Measurements
from fmlm_cli.analysis.results.coverage import CoverageResult
from fmlm_cli.analysis.results.plain import as_json
from fmlm_cli.analysis.results.variance import IntervalResult, VarianceResult

Row = dict[str, Any]
Variances = Sequence[VarianceResult]


@dataclass(frozen=True)
class ReportTable:
    """Rows of texts under a header; the first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Exhibit:
    """A figure with what it shows, how it was computed, and its data.

    `name`: of its files. `data`: rows for CSV and JSON, unrounded.
    """

    name: str
    title: str
    says: str
    how: str
    draw: Drawing
    data: Sequence[Row]
    table: ReportTable | None = None


@dataclass(frozen=True)
class Part:
    """A chapter of the report. Without exhibits, `missing` says what would make them."""

    name: str
    title: str
    exhibits: Sequence[Exhibit] = ()
    missing: str = ""
    notes: Sequence[str] = field(default_factory=tuple)


def absent(what: str, only: str) -> str:
    """What to do for a part that was not measured."""
    return f"{what} Run the same command with `--resume --only {only}` to add it."


# ---------------------------------------------------------------- gradient variance


def variance_part(results: Measurements) -> Part:
    """Covariance against distance, ratios, and what a step makes of them."""
    entries, title = results.variance, "Gradient variance"
    if not entries:
        return Part("variance", title, missing=absent("Gradient variance was not measured.", "variance"))
    note = (
        "“start”, “early” and “late” are the baseline’s model before, after a tenth and at the end of its "
        "first run. [MASK] only: every masked token is shown as [MASK]; 80/10/10: 10 % of them as a random "
        "token and 10 % as they are. Intervals are over rows; another run’s model would add to the spread. "
        "After its start the model has been trained on these rows."
    )
    return Part(
        "variance", title, [_covariance(entries), _ratios(entries), _equal_compute(entries)], notes=[note]
    )


def _sizes(entries: Variances) -> str:
    """How much stands behind the intervals."""
    entry = entries[-1]
    short = (
        f"; {entry.left_out:,} of {entry.looked_at:,} rows were left out, with fewer than "
        f"{2 * entry.segments} maskable tokens"
        if entry.left_out
        else ""
    )
    sketch = (
        " Gradients were projected at random, which adds a relative error of "
        f"{percent(entry.relative_error)} at most."
        if entry.relative_error
        else ""
    )
    masks = {"word": "masks of whole words", "span": "masks of spans"}.get(
        entry.unit, f"masks of single {entry.unit}s"
    )
    return (
        f"K = {entry.segments}, {masks}; {entry.sequences:,} rows of {entry.store}{short}; "
        f"{entry.gradients:,} gradients of each over {compact(entry.parameters)} weights, in float32 without "
        f"dropout. Intervals: 95 %, jackknife over rows with Student’s t.{sketch}"
    )


def _covariance(entries: Variances) -> Exhibit:
    last = noise.latest(entries)
    near, far = (find(last.correlations, key=lambda correlation: correlation.distance) for find in (min, max))
    end = Estimate.of(far)
    sign = {
        "below": "below zero, so that masks without a token in common cancel part of each other’s noise",
        "above": "above zero, so that masks without a token in common add to each other’s noise",
        "undecided": "not told from zero",
    }[end.against(0)]
    return Exhibit(
        "covariance",
        "Do masks that are further apart give gradients that are less alike?",
        f"The correlation of two gradients of a row goes from {Estimate.of(near).text()} for the same mask "
        f"to {end.text()} for masks without a token in common, {sign} ({noise.measured(last)}).",
        "c(h)/σ², the covariance of the gradients of one row under two masks at Hamming distance h over the "
        "variance under one (both as traces): the intraclass correlation of pairs, (MSB − MSW)/(MSB + MSW) "
        "with the mean squares between and within pairs. Both masks of a pair are corrupted independently, "
        "also at distance 0; with [MASK] only, that leaves equal inputs there, and 1 is the control that it "
        f"has to be. {_sizes(entries)}",
        functools.partial(draw_covariance, entries),
        [{**_identified(entry), **as_json(c)} for entry in entries for c in entry.correlations],
        ReportTable(
            ("measurement", *(f"h/2τ = {correlation.distance:g}" for correlation in last.correlations)),
            [
                (measurement(entry), *(Estimate.of(correlation).text() for correlation in entry.correlations))
                for entry in entries
            ],
        ),
    )


def _identified(entry: VarianceResult) -> Row:
    return {"name": entry.name, "step": entry.step, "corruption": entry.corruption}


def _columns(intervals: Mapping[str, IntervalResult]) -> Row:
    """Intervals by name as columns of the data."""
    return {
        f"{name}.{end}": value
        for name, interval in intervals.items()
        for end, value in as_json(interval).items()
    }


def _texts(intervals: Mapping[str, IntervalResult]) -> list[str]:
    return [Estimate.of(interval).text() for interval in intervals.values()]


def _of_one_row(entry: VarianceResult) -> dict[str, IntervalResult]:
    """What the masks of one row make of the variance, in the order of the table."""
    return {
        "ratio": entry.ratio,
        "repeated_ratio": entry.repeated_ratio,
        "identity.right": entry.identity["right"],
        "identity.difference": entry.identity["difference"],
        "components.ratio": entry.components.ratio,
    }


def _ratios(entries: Variances) -> Exhibit:
    return Exhibit(
        "ratios",
        "How much less do the masks of one row vary?",
        noise.noise_of_masks(noise.latest(entries)),
        "Circles, full / random: variance of the mean gradient over the K segments of a row, over that of K "
        "random masks, pooled over rows (a ratio of sums of unbiased mean squares). Over whole passes, with "
        "the weights held fixed, that is all there is to compare, as every arm sees the same rows. Squares: "
        "with the variance that the choice of rows adds to both, as in a few steps. The identity "
        "1 + (K − 1) c(2τ)/σ² is the same ratio from the segments’ covariance: the difference should hold "
        f"zero. {_sizes(entries)}",
        functools.partial(draw_ratios, entries),
        [{**_identified(entry), **_columns(_of_one_row(entry))} for entry in entries],
        ReportTable(
            (
                "measurement",
                "held-out loss",
                "full / random",
                "with the rows’ part",
                "1 + (K − 1) c(2τ)/σ²",
                "difference",
                "rows / masks, variance",
            ),
            [(measurement(entry), spell(entry.loss, 2), *_texts(_of_one_row(entry))) for entry in entries],
        ),
    )


def _of_a_step(entry: VarianceResult) -> dict[str, IntervalResult]:
    """What a step of as many rows varies by."""
    return {
        "equal_compute.random_masks": entry.equal_compute.random_masks,
        "equal_compute.segments": entry.equal_compute.segments,
    }


def _equal_compute(entries: Variances) -> Exhibit:
    return Exhibit(
        "equal-compute",
        "And at equal compute, in a training step?",
        noise.equal_compute(noise.latest(entries)),
        "Variance of a mean gradient over B forwarded rows, relative to B different rows with one random "
        "mask each (1, dashed), weights held fixed. With K masks of each of B/K rows it is "
        "K(δ² + M)/(δ² + σ²), where δ² is the part of the choice of rows, σ² that of one mask, and "
        "M = σ²/K for random masks, V for the segments of a full exploration. One segment a step of B "
        "different rows (scope epoch) is a random mask by itself: 1. K passes over the same B rows, against "
        f"K B different ones, give the same two numbers. {_sizes(entries)}",
        functools.partial(draw_equal_compute, entries),
        [
            {**_identified(entry), **_columns({"ratio": entry.ratio, **_of_a_step(entry)})}
            for entry in entries
        ],
        ReportTable(
            (
                "measurement",
                "B rows, 1 random mask or segment",
                "B/K rows, K random masks",
                "B/K rows, all K segments (scope batch)",
                "for one row, full / random",
            ),
            [
                (measurement(entry), "1", *_texts({**_of_a_step(entry), "ratio": entry.ratio}))
                for entry in entries
            ],
        ),
    )


# ---------------------------------------------------------------- coverage


def coverage_part(results: Measurements, arms: Arms) -> Part:
    """How often the tokens are masked."""
    coverage, title = results.coverage, "Coverage"
    if not coverage:
        return Part("coverage", title, missing=absent("Coverage was not measured.", "coverage"))
    times = {name: reached.times_masked for name, reached in coverage.items()}
    rows = next(iter(coverage.values())).rows
    exhibit = Exhibit(
        "coverage",
        "How often is each token predicted?",
        coverage_in_words(coverage, arms),
        f"Counted over the maskable tokens of {rows:,} rows, with the masks that training draws, in whole "
        "passes: as many as the race makes, but one at least and at most 4 K masks of a row. Hamming "
        "distances are of K masks of a row, as shares of the largest possible.",
        functools.partial(draw_coverage, times, arms),
        [
            {"arm": name, "times_masked": k, "share": share}
            for name, shares in times.items()
            for k, share in enumerate(shares)
        ],
        _coverage_table(coverage, arms),
    )
    return Part("coverage", title, [exhibit])


def _coverage_table(coverage: Mapping[str, CoverageResult], arms: Arms) -> ReportTable:
    rows = []
    for name, reached in coverage.items():
        hamming = reached.hamming
        distances = (DASH, DASH) if hamming is None else (f"{hamming.mean:.3g}", percent(hamming.disjoint))
        shares = percent(reached.never_masked), percent(sum(reached.times_masked[2:]))
        rows.append((arms.label(name), f"{reached.epochs:,}", arms.passes(name), *shares, *distances))
    header = (
        "arm",
        "passes looked at",
        "passes of the race",
        "never masked",
        "twice or more",
        "mean distance",
        "disjoint pairs",
    )
    return ReportTable(header, rows)

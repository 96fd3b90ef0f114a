"""The report's parts: what was measured, in sentences, tables and figures, before it is HTML or Markdown.

This module has gradient variance and coverage; `report_race` and `report_tasks` have the trained models.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fmlm_cli.analysis.report import findings
from fmlm_cli.analysis.report.figures.drawing import Drawing
from fmlm_cli.analysis.report.figures.noise import (
    draw_covariance,
    draw_coverage,
    draw_equal_compute,
    draw_ratios,
)
from fmlm_cli.analysis.report.values import (
    DASH,
    Arms,
    Estimate,
    Json,
    compact,
    measurement,
    percent,
    spell,
)

Row = dict[str, Any]


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


def variance_part(results: Json) -> Part:
    """Covariance against distance, ratios, and what a step makes of them."""
    entries, title = results["variance"], "Gradient variance"
    if not entries:
        return Part("variance", title, missing=absent("Gradient variance was not measured.", "variance"))
    note = (
        "“start”, “early” and “late” are the baseline’s model before, after a tenth and at the end of its first run. [MASK] only: "
        "every masked token is shown as [MASK]; 80/10/10: 10 % of them as a random token and 10 % as they are. Intervals are over rows; "
        "another run’s model would add to the spread. After its start the model has been trained on these rows."
    )
    return Part(
        "variance", title, [_covariance(entries), _ratios(entries), _equal_compute(entries)], notes=[note]
    )


def _sizes(entries: Sequence[Json]) -> str:
    """How much stands behind the intervals."""
    entry = entries[-1]
    left, seen = entry["left_out"], entry["looked_at"]
    short = (
        f"; {left:,} of {seen:,} rows were left out, with fewer than {2 * entry['segments']} maskable tokens"
        if left
        else ""
    )
    error = entry["relative_error"]
    sketch = (
        f" Gradients were projected at random, which adds a relative error of {percent(error)} at most."
        if error
        else ""
    )
    return (
        (
            f"K = {entry['segments']}, masks of single {entry['unit']}s; {entry['sequences']:,} rows of {entry['store']}{short}; "
            f"{entry['gradients']:,} gradients of each over {compact(entry['parameters'])} weights, in float32 without dropout. Intervals: "
            f"95 % percentile bootstrap over rows.{sketch}"
        )
        .replace("masks of single words", "masks of whole words")
        .replace("masks of single spans", "masks of spans")
    )


def _covariance(entries: Sequence[Json]) -> Exhibit:
    last = findings.latest(entries)
    near, far = (find(last["correlations"], key=lambda own: own["distance"]) for find in (min, max))
    end = Estimate.of(far)
    sign = {
        "below": "below zero, so that masks without a token in common cancel part of each other’s noise",
        "above": "above zero, so that masks without a token in common add to each other’s noise",
        "undecided": "not told from zero",
    }[end.against(0)]
    return Exhibit(
        "covariance",
        "Do masks that are further apart give gradients that are less alike?",
        f"The correlation of two gradients of a row goes from {Estimate.of(near).text()} for the same mask to {end.text()} for masks without a "
        f"token in common, {sign} ({findings.measured(last)}).",
        "c(h)/σ², the covariance of the gradients of one row under two masks at Hamming distance h over the variance under one "
        "(both as traces): the intraclass correlation of pairs, (MSB − MSW)/(MSB + MSW) with the mean squares between and "
        "within pairs. Both masks of a pair are corrupted independently, also at distance 0; with [MASK] only, that leaves equal "
        f"inputs there, and 1 is the control that it has to be. {_sizes(entries)}",
        functools.partial(draw_covariance, entries),
        [{**_identified(entry), **own} for entry in entries for own in entry["correlations"]],
        ReportTable(
            ("measurement", *(f"h/2τ = {own['distance']:g}" for own in last["correlations"])),
            [
                (measurement(entry), *(Estimate.of(own).text() for own in entry["correlations"]))
                for entry in entries
            ],
        ),
    )


def _identified(entry: Json) -> Row:
    return {key: entry[key] for key in ("name", "step", "corruption")}


def _ratios(entries: Sequence[Json]) -> Exhibit:
    keys = ("ratio", "repeated_ratio", "identity.right", "identity.difference", "components.ratio")
    return Exhibit(
        "ratios",
        "How much less do the masks of one row vary?",
        findings.noise_of_masks(findings.latest(entries)),
        "Circles, full / random: variance of the mean gradient over the K segments of a row, over that of K random masks, pooled over rows "
        "(a ratio of sums of unbiased mean squares). Over whole passes that is all there is to compare, as every arm sees the same rows. "
        "Squares: with the variance that the choice of rows adds to both, as in a few steps. The identity "
        "1 + (K − 1) c(2τ)/σ² is the same ratio from the segments’ covariance: the difference should hold zero. "
        f"{_sizes(entries)}",
        functools.partial(draw_ratios, entries),
        [{**_identified(own), **_flat(own, keys)} for own in entries],
        ReportTable(
            ("measurement", "held-out loss", "full / random", "with the rows’ part", "1 + (K − 1) c(2τ)/σ²", "difference", "rows / masks, variance"),
            [
                (measurement(own), spell(own["loss"], 2), *(Estimate.of(_at(own, key)).text() for key in keys))
                for own in entries
            ],
        ),
    )  # fmt: skip


def _at(entry: Json, key: str) -> Json:
    """The part of an entry at a dotted key."""
    for name in key.split("."):
        entry = entry[name]
    return entry


def _flat(entry: Json, keys: Sequence[str]) -> Row:
    """Estimates at dotted keys as columns."""
    return {f"{key}.{end}": _at(entry, key)[end] for key in keys for end in ("value", "low", "high")}


def _equal_compute(entries: Sequence[Json]) -> Exhibit:
    keys = ("ratio", "equal_compute.random_masks", "equal_compute.segments")
    return Exhibit(
        "equal-compute",
        "And at equal compute, in a training step?",
        findings.equal_compute(findings.latest(entries)),
        "Variance of a mean gradient over B forwarded rows, relative to B different rows with one random mask each (1, dashed), weights held "
        "fixed. With K masks of each of B/K rows it is K(δ² + M)/(δ² + σ²), where δ² is the part of the choice of rows, σ² that of one mask, and M = σ²/K for "
        "random masks, V for the segments of a full exploration. One segment a step of B different rows (scope epoch) is a random mask by itself: 1. "
        f"K passes over the same B rows, against K B different ones, give the same two numbers. {_sizes(entries)}",
        functools.partial(draw_equal_compute, entries),
        [{**_identified(own), **_flat(own, keys)} for own in entries],
        ReportTable(
            ("measurement", "B rows, 1 random mask or segment", "B/K rows, K random masks", "B/K rows, all K segments (scope batch)", "for one row, full / random"),
            [
                (measurement(own), "1", *(Estimate.of(_at(own, key)).text() for key in (*keys[1:], keys[0])))
                for own in entries
            ],
        ),
    )  # fmt: skip


# ---------------------------------------------------------------- coverage


def coverage_part(results: Json, arms: Arms) -> Part:
    """How often the tokens are masked."""
    found, title = results["coverage"], "Coverage"
    if not found:
        return Part("coverage", title, missing=absent("Coverage was not measured.", "coverage"))
    times: Mapping[str, Sequence[float]] = {name: own["times_masked"] for name, own in found.items()}
    rows = next(iter(found.values()))["rows"]
    exhibit = Exhibit(
        "coverage",
        "How often is each token predicted?",
        findings.coverage_in_words(found, arms),
        f"Counted over the maskable tokens of {rows:,} rows, with the masks that training draws, in whole passes: as many as the race makes, "
        "but one at least and at most 4 K masks of a row. Hamming distances are of K masks of a row, as shares of the largest possible.",
        functools.partial(draw_coverage, times, arms),
        [
            {"arm": name, "times_masked": k, "share": share}
            for name, own in times.items()
            for k, share in enumerate(own)
        ],
        _coverage_table(found, arms),
    )
    return Part("coverage", title, [exhibit])


def _coverage_table(found: Mapping[str, Json], arms: Arms) -> ReportTable:
    rows = []
    for name, own in found.items():
        hamming = own["hamming"]
        apart = (DASH, DASH) if hamming is None else (f"{hamming['mean']:.3g}", percent(hamming["disjoint"]))
        shares = percent(own["never_masked"]), percent(sum(own["times_masked"][2:]))
        rows.append((arms.label(name), f"{own['epochs']:,}", arms.passes(name), *shares, *apart))
    header = (
        "arm",
        "passes looked at",
        "passes of the race",
        "never masked",
        "twice or more",
        "mean distance",
        "disjoint pairs",
    )
    return ReportTable(header, rows)  # fmt: skip

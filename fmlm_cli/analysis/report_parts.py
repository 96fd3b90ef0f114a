"""The report's parts: what was measured, in sentences, tables and figures, before it is HTML or Markdown.

This module has gradient variance and coverage; `report_race` and `report_tasks` have the trained models.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fmlm_cli.analysis.comparison_figures import draw_covariance, draw_coverage, draw_ratios, draw_steps
from fmlm_cli.analysis.report_drawing import Drawing
from fmlm_cli.analysis.report_values import (
    DASH,
    Arms,
    Estimate,
    Json,
    count,
    measurement,
    number,
    numbers,
    part,
    percent,
    ratio_text,
    spell,
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of texts under a header; the first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Exhibit:
    """A figure with what it shows, how it was computed, and its data.

    `name`: of its files. `data`: rows for CSV and JSON, unrounded. `words`: sentences that belong to it. `folded`: whether
    the table is shown on demand only.
    """

    name: str
    title: str
    says: str
    how: str
    draw: Drawing
    data: Sequence[Row]
    table: Table | None = None
    words: Sequence[str] = ()
    folded: bool = False


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
    return f"{what} Run the same command with `--only {only}` to add it."


# ---------------------------------------------------------------- gradient variance


def variance_part(results: Json) -> Part:
    """Covariance against distance, ratios, and what a step makes of them."""
    entries = [entry for entry in results.get("variance") or [] if entry]
    title = "Gradient variance"
    if not entries:
        return Part("variance", title, missing=absent("Gradient variance was not measured.", "variance"))
    makers = (_covariance, _ratios, _steps)
    return Part("variance", title, [made for make in makers if (made := make(entries)) is not None])


def _sizes(entries: Sequence[Json]) -> str:
    """How much stands behind the intervals."""
    sequences, gradients = (
        sorted({int(own) for entry in entries if (own := number(entry.get(key))) is not None})
        for key in ("sequences", "gradients")
    )
    spell_all = " or ".join(f"{own:,}" for own in sequences) or "an unknown number of"
    each = f", {' or '.join(f'{own:,}' for own in gradients)} gradients of each" if gradients else ""
    errors = [own for entry in entries if (own := number(entry.get("relative_error")))]
    sketch = (
        f" Gradients were projected at random, which adds a relative error of at most {percent(max(errors))} (standard deviation)."
        if errors
        else ""
    )
    masks = sorted({int(own) for entry in entries if (own := number(entry.get("segments"))) is not None})
    k = f"K = {' or '.join(map(str, masks))}; " if masks else ""
    return (
        f"{k}n = {spell_all} sequences{each}, in float32 with dropout off. Intervals: 95 % percentile bootstrap over sequences, "
        f"resampled whole.{sketch}"
    )


def _covariance(entries: Sequence[Json]) -> Exhibit | None:
    shown = [entry for entry in entries if entry.get("correlations")]
    rows = [
        (entry, own, estimate)
        for entry in shown
        for own in entry["correlations"]
        if (estimate := Estimate.of(own)) is not None and number(own.get("distance")) is not None
    ]
    if not rows:
        return None
    last = [(own, estimate) for entry, own, estimate in rows if entry is shown[-1]] or [
        (own, e) for _, own, e in rows
    ]
    (near, first), (far, end) = (pick(last, key=lambda pair: pair[0]["distance"]) for pick in (min, max))
    sign = {
        "below": "below zero, so masks that share no token cancel part of each other’s noise",
        "above": "above zero, so masks that share no token add to each other’s noise",
        "undecided": "not told from zero",
    }[end.against(0)]
    return Exhibit(
        "covariance",
        "Do masks that are further apart give gradients that are less alike?",
        f"From a distance of {near['distance']:g} to {far['distance']:g} the correlation of two gradients of a sequence goes "
        f"from {first.point(most=3)} to {end.text(most=3)}, {sign} ({measurement(shown[-1])}).",
        "c(h)/σ², the covariance of the gradients of one sequence under two masks at Hamming distance h over the variance under one "
        "(both as traces): the intraclass correlation of pairs, (MSB − MSW)/(MSB + MSW) with the mean squares between and "
        f"within pairs, from pairs drawn at each distance. {_sizes(shown)}",
        functools.partial(draw_covariance, shown),
        [
            {**_identified(entry), **{key: own.get(key) for key in ("distance", "value", "low", "high")}}
            for entry, own, _ in rows
        ],
        Table(
            ("measurement", "distance", "c(h)/σ²", "95 % interval"),
            [
                (
                    measurement(entry),
                    f"{own['distance']:.3g}",
                    estimate.point(most=3),
                    estimate.ends(most=3),
                )
                for entry, own, estimate in rows
            ],
        ),
        folded=True,
    )


def _identified(entry: Json) -> Row:
    return {
        "checkpoint": entry.get("name"),
        "step": entry.get("step"),
        "corruption": entry.get("corruption")
        if not isinstance(entry.get("corruption"), dict)
        else measurement({"name": "", **entry}).rpartition(", ")[2],
    }


def _ratios(entries: Sequence[Json]) -> Exhibit | None:
    found = [(entry, own) for entry in entries if (own := Estimate.of(entry.get("ratio"))) is not None]
    if not found:
        return None
    below, above = (sum(own.against(1) == side for _, own in found) for side in ("below", "above"))
    entry, ratio = found[-1]
    keys = ("ratio", "repeated_ratio", "identity.right", "identity.difference", "components.ratio")
    return Exhibit(
        "ratios",
        "How much less do the masks of one sequence vary?",
        f"The mean gradient over the K segments of a sequence has {ratio.text(most=3)} times the variance it has over K random "
        f"masks ({measurement(entry)}); the whole interval lies below 1 in {below} of {count(len(found), 'measurement')}"
        + (f", above 1 in {above}." if above else "."),
        "Circles: Var_full / Var_random over masks, given the sequence, pooled over sequences (a ratio of sums of unbiased mean squares). "
        "Squares: the same with the variance that the choice of sequences makes in both, which is what a repeated pass over the "
        "same sequences has. The identity 1 + (K − 1) c(2τ)/σ² is the same ratio found from the segments’ covariance: its "
        f"difference should hold zero. {_sizes(entries)}",
        functools.partial(draw_ratios, [entry for entry, _ in found]),
        [{**_identified(own), **_flat(own, keys)} for own, _ in found],
        Table(
            (
                "measurement",
                "loss",
                "full / random",
                "with data",
                "1 + (K − 1) c(2τ)/σ²",
                "difference",
                "data / mask variance",
            ),
            [_ratio_row(own) for own, _ in found],
        ),
    )


def _ratio_row(entry: Json) -> tuple[str, ...]:
    identity = part(entry, "identity")
    return (
        measurement(entry),
        spell(number(entry.get("loss")), 2),
        ratio_text(Estimate.of(entry.get("ratio"))),
        ratio_text(Estimate.of(entry.get("repeated_ratio"))),
        ratio_text(Estimate.of(identity.get("right"))),
        ratio_text(Estimate.of(identity.get("difference"))),
        ratio_text(Estimate.of(part(entry, "components").get("ratio"))),
    )


def _flat(entry: Json, keys: Sequence[str]) -> Row:
    """Estimates at dotted keys as columns."""
    row: Row = {}
    for key in keys:
        own = part(entry, *key.split("."))
        row |= {f"{key}.{end}": own.get(end) for end in ("value", "low", "high")}
    return row


def segments_step(entry: Json) -> Json:
    """The step that forwards the K segments of each sequence at once; empty if there is none."""
    for own in entry.get("steps") or []:
        if own and "segment" in str(own.get("name")) and number(own.get("masks")) not in (None, 1.0):
            return part(own)
    return {}


def _steps(entries: Sequence[Json]) -> Exhibit | None:
    shown = [entry for entry in entries if numbers([part(own, "relative").get("value") for own in entry.get("steps") or []])]  # fmt: skip
    if not shown:
        return None
    rows = [(entry, own) for entry in shown for own in entry["steps"] if own]
    return Exhibit(
        "equal-compute",
        "And at equal compute, in a training step?",
        _steps_in_words(shown[-1]),
        "Variance of a mean gradient over all rows forwarded, relative to as many distinct sequences with one random mask "
        "each (1, the yardstick), weights held fixed: (δ² + M)/N for N sequences, where δ² is the data’s part and M the masks’ part for "
        "one sequence. Bars that begin with “K steps” are of a window of K steps and relative to K steps of distinct "
        "sequences. The uppermost bar is the ratio of the figure before, which knows nothing of how many sequences fit a step. "
        f"{_sizes(shown)}",
        functools.partial(draw_steps, shown),
        [
            {
                **_identified(entry),
                "ratio_of_one_sequence": part(entry, "ratio").get("value"),
                **{key: own.get(key) for key in ("name", "rows", "sequences", "masks")},
                **{f"relative.{end}": part(own, "relative").get(end) for end in ("value", "low", "high")},
            }
            for entry, own in rows
        ],
        Table(
            ("measurement", "forwarded", "sequences", "masks of each", "relative variance", "one sequence"),
            [
                (
                    measurement(entry),
                    str(own.get("name")),
                    spell(number(own.get("sequences")), 0),
                    spell(number(own.get("masks")), 0),
                    ratio_text(Estimate.of(own.get("relative"))),
                    ratio_text(Estimate.of(entry.get("ratio"))),
                )
                for entry, own in rows
            ],
        ),
        folded=True,
    )


def _steps_in_words(entry: Json) -> str:
    own = segments_step(entry)
    relative, ratio = Estimate.of(own.get("relative")), Estimate.of(entry.get("ratio"))
    if relative is None:
        return (
            f"What a step’s gradient varies by, for the same number of rows forwarded ({measurement(entry)})."
        )
    side = relative.against(1)
    verdict = {
        "above": "more than with distinct sequences and one random mask each",
        "below": "less than with distinct sequences and one random mask each",
        "undecided": "not told from distinct sequences with one random mask each",
    }[side]
    beside = "" if ratio is None else f"; per sequence the ratio is {ratio.point(most=3)}"
    return (
        f"With all segments of fewer sequences in one step, a step’s variance is {relative.text(most=3)} times the yardstick, "
        f"{verdict}{beside} ({measurement(entry)})."
    )


# ---------------------------------------------------------------- coverage


def coverage_part(results: Json, arms: Arms) -> Part:
    """How often the tokens are masked."""
    found = part(results, "coverage")
    times = {name: own for name in arms.of_part(found) if (own := numbers(found[name].get("times_masked")))}
    title = "Coverage"
    if not times:
        return Part("coverage", title, missing=absent("Coverage was not measured.", "coverage"))
    never = {name: number(found[name].get("never_masked")) for name in times}
    never = {name: times[name][0] if own is None else own for name, own in never.items()}
    exhibit = Exhibit(
        "coverage",
        "How often is each token predicted?",
        _coverage_in_words(never, found, arms),
        "Counted over the maskable tokens of the rows that were looked at, with the masks that training draws; no interval, as "
        "nothing is estimated but from which rows were looked at.",
        functools.partial(draw_coverage, times, arms),
        [
            {"arm": name, "times_masked": k, "share": share}
            for name, own in times.items()
            for k, share in enumerate(own)
        ],
        _coverage_table(times, never, found, arms),
        folded=False,
    )
    return Part("coverage", title, [exhibit])


def _coverage_table(
    times: Mapping[str, Any], never: Mapping[str, float | None], found: Json, arms: Arms
) -> Table:
    distances = list(
        dict.fromkeys(
            key
            for name in times
            for key, own in part(found[name], "hamming").items()
            if number(own) is not None and key not in ("masks", "pairs")  # counts, not distances
        )
    )
    rows = []
    for name in times:
        hamming = part(found[name], "hamming")
        own = [
            arms.label(name),
            spell(number(found[name].get("epochs")), 0),
            percent(never[name]),
            percent(sum(times[name][2:])),
        ]
        rows.append([*own, *(_plain(number(hamming.get(key))) for key in distances)])
    header = ["arm", "passes", "never masked", "twice or more"]
    return Table([*header, *(f"Hamming distance, {key.replace('_', ' ')}" for key in distances)], rows)


def _plain(value: float | None) -> str:
    return DASH if value is None else f"{value:.3g}"


def _coverage_in_words(never: Mapping[str, float | None], found: Json, arms: Arms) -> str:
    least = min(never, key=lambda name: never[name] or 0.0)
    base = arms.baseline if arms.baseline in never else next(iter(never))
    passes = number(found[least].get("epochs"))
    after = "" if passes is None else f"After {count(int(passes), 'pass', 'passes')} "
    text = f"{after}{arms.label(base)} leaves {percent(never[base])} of the tokens never masked"
    if never[least] == never[base]:
        return f"{text}, and no arm leaves fewer."
    return f"{text}, {arms.label(least)} {percent(never[least])}."

"""The report's part about the race: loss curves, final losses, tokens to reach a loss."""

import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import stats

from fmlm_cli.analysis.report import findings
from fmlm_cli.analysis.report.figures.race import Curve, draw_curves, draw_pairs
from fmlm_cli.analysis.report.parts import Exhibit, Part, ReportTable, Row, absent
from fmlm_cli.analysis.report.values import (
    DASH,
    Arms,
    Estimate,
    Json,
    Ratio,
    compact,
    decimals,
    probability,
    rounded_up,
    spell,
)
from fmlm_cli.analysis.statistics import Floats, moving_average

_WINDOW = 3  # evaluations that are averaged, as for tokens to reach a loss
PAIRED = (
    "Differences are paired by seed, with the 95 % Student-t interval of each comparison alone; p of the two-sided paired t-test, after "
    "Holm’s correction over the masking strategies (a control is a test of its own). “Smallest visible” is the true difference that would be told "
    "with a probability of 80 %, were the spread seen the true one."
)


def race_part(results: Json, arms: Arms) -> Part:
    """Curves, final losses, tokens to reach a loss."""
    race, title = results["race"], "Race"
    if not race:
        return Part("race", title, missing=absent("No models were trained.", "race"))
    controls = [name for name in arms.own if arms.is_control(name)]
    notes = [f"For scale only, not to be chosen: {arms.listed(controls)}."] if controls else []
    exhibits = [*_curves(race, arms), _final(race, arms), *_tokens(race, arms)]
    return Part("race", title, exhibits, notes=notes)


def _smoothed(race: Json, arm: str) -> Mapping[str, Floats]:
    """Losses by seed, float64[evaluations], smoothed."""
    return {seed: moving_average(own["losses"], _WINDOW) for seed, own in race["curves"][arm].items()}


def _mean_curve(tokens: Floats, by_seed: Sequence[Floats]) -> Curve:
    """Mean and t interval over seeds, at each evaluation."""
    table = np.stack(by_seed)
    mean, n = table.mean(axis=0), len(table)
    half = np.full_like(mean, np.nan)
    if n > 1:
        half = stats.t.isf(0.025, n - 1) * table.std(axis=0, ddof=1) / np.sqrt(n)
    return tokens, mean, mean - half, mean + half


def _curves(race: Json, arms: Arms) -> Iterator[Exhibit]:
    losses = {name: own for name in arms.own if (own := _smoothed(race, name))}
    if not losses:
        return
    tokens = {
        name: np.mean([own["tokens"] for own in race["curves"][name].values()], axis=0) for name in losses
    }
    curves = {name: _mean_curve(tokens[name], list(own.values())) for name, own in losses.items()}
    base = losses.get(arms.baseline, {})
    gaps = {}
    for name, own in losses.items():
        differences = [own[seed] - base[seed] for seed in own if seed in base]
        if name != arms.baseline and differences:
            gaps[name] = _mean_curve(tokens[name], differences)
    lowest = min((n for n in curves if not arms.is_control(n)), key=lambda name: curves[name][1][-1])
    yield Exhibit(
        "loss-curves",
        "How does the held-out loss fall?",
        f"The lowest of the masking strategies, {arms.label(lowest)}, falls from {curves[lowest][1][0]:.3f} to {curves[lowest][1][-1]:.3f} nats in "
        f"{compact(tokens[lowest][-1])} tokens.",
        f"Masked-LM loss on held-out rows under masks that are the same for all arms, smoothed over {_WINDOW} evaluations. Left: the mean over seeds. "
        "Right: the difference from the baseline seed by seed, which share initial weights and data order, with its 95 % Student-t interval, pointwise; an arm that is far off leaves the panel.",
        functools.partial(draw_curves, curves, gaps, arms),
        [
            {"arm": name, "seed": seed, "step": step, "tokens": at, "loss": loss}
            for name in losses
            for seed, own in race["curves"][name].items()
            for step, at, loss in zip(own["steps"], own["tokens"], own["losses"], strict=True)
        ],
    )  # fmt: skip


def _final(race: Json, arms: Arms) -> Exhibit:
    final, paired = race["final"], race["paired"]
    values = {name: final[name]["values"] for name in arms.own}
    return Exhibit(
        "final-loss",
        "Which arm ends lowest?",
        findings.told(paired, arms, "held-out loss", "nats"),
        f"Left: held-out loss (nats) at the end, a dot for each seed, seeds joined by lines; the bar is the mean. Right: arm minus {arms.base}. "
        f"{PAIRED} A cross marks a seed that diverged.",
        functools.partial(
            draw_pairs,
            values,
            {name: Estimate.of(own, "mean") for name, own in paired.items() if own["n"]},
            arms,
            measured="Held-out loss (nats) by seed",
            against=f"Minus {arms.base}, 95 % interval",
            reference=0.0,
        ),
        [
            {"arm": name, "passes": arms.own[name]["passes"], "seed": seed, "loss": loss, **paired_data(paired.get(name))}
            for name, own in values.items()
            for seed, loss in own.items()
        ],
        paired_table(final, paired, arms),
    )  # fmt: skip


def paired_data(own: Json | None) -> Row:
    """A paired comparison as columns of the data."""
    return {f"paired.{key}": value for key, value in own.items()} if own else {}


def paired_table(
    found: Mapping[str, Json], paired: Mapping[str, Json], arms: Arms, scale: float = 1
) -> ReportTable:
    """A row for each arm: every seed's own value, mean, spread, and the difference from the baseline with its test."""
    seeds = list(dict.fromkeys(seed for own in found.values() for seed in own["values"]))
    spreads = [scale * own["sd"] for own in found.values() if own["sd"]]
    places = min(4, decimals(min(spreads))) if spreads else 3

    def shown(value: float | None) -> str:
        return spell(None if value is None else scale * value, places)

    rows = []
    for name, own in found.items():
        texts = [shown(own["values"].get(seed)) for seed in seeds]
        pair = paired.get(name)
        rows.append(
            (
                arms.label(name),
                arms.passes(name),
                *texts,
                shown(own["mean"]),
                shown(own["sd"]),
                *_compared(pair, scale),
            )
        )
    header = ["arm", "passes", *(f"seed {seed}" for seed in seeds), "mean", "sd"]
    return ReportTable([*header, f"minus {arms.base}", "p", "p (Holm)", "smallest visible"], rows)  # fmt: skip


def _compared(pair: Json | None, scale: float) -> tuple[str, str, str, str]:
    if pair is None:
        return ("baseline", DASH, DASH, DASH)
    if pair["p_value"] is None:
        return (pair["note"], DASH, DASH, DASH)
    seen = rounded_up(scale * pair["detectable"])
    difference = Estimate.of(pair, "mean").times(scale).text(sign=True)
    return (difference, probability(pair["p_value"]), probability(pair["p_adjusted"]), seen)


def _tokens(race: Json, arms: Arms) -> Iterator[Exhibit]:
    reached = race["tokens_to_reach"]
    if not reached:
        return
    ratios = {name: own["ratio"] for name, own in reached.items()}
    yield Exhibit(
        "tokens-to-reach",
        "How many tokens does it save?",
        _tokens_in_words(ratios, arms),
        f"Tokens forwarded until the held-out loss, smoothed over {_WINDOW} evaluations, is first at the target, between two evaluations by linear "
        f"interpolation. Each arm’s target is the lowest loss that all runs of it and of {arms.base} reach, or the one that was asked for; it is the "
        "worst of these runs that sets it. Ratios: geometric mean over seeds, with the 95 % Student-t interval of the logarithms.",
        functools.partial(
            draw_pairs,
            {name: own["values"] for name, own in reached.items()},
            {name: Ratio.of(own) for name, own in ratios.items() if own["value"] is not None},
            arms,
            measured="Tokens to the target, by seed",
            against=f"Ratio to {arms.base}, 95 % interval",
            reference=1.0,
        ),
        [
            {"arm": name, "passes": arms.own[name]["passes"], "target": own["target"], "seed": seed, "tokens": at,
             "baseline": own["baseline"][seed], **{f"ratio.{key}": value for key, value in own["ratio"].items()}}
            for name, own in reached.items()
            for seed, at in own["values"].items()
        ],
        _tokens_table(reached, arms),
    )  # fmt: skip


def _tokens_table(reached: Mapping[str, Json], arms: Arms) -> ReportTable:
    seeds = list(dict.fromkeys(seed for own in reached.values() for seed in own["values"]))
    rows = []
    for name, own in reached.items():
        cells = [
            " / ".join(
                "not reached" if at is None else compact(at) for at in (own["values"][s], own["baseline"][s])
            )
            for s in seeds
        ]
        ratio = own["ratio"]
        text = ratio["note"] if ratio["p_value"] is None else Ratio.of(ratio).text()
        rows.append(
            (
                arms.label(name),
                arms.passes(name),
                f"{own['target']:.3f}",
                *cells,
                text,
                probability(ratio["p_adjusted"]),
            )
        )
    header = [
        "arm",
        "passes",
        "target",
        *(f"seed {seed}, arm / {arms.base}" for seed in seeds),
        "ratio",
        "p (Holm)",
    ]
    return ReportTable(header, rows)  # fmt: skip


def _tokens_in_words(ratios: Mapping[str, Json], arms: Arms) -> str:
    found = {
        name: Ratio.of(ratios[name])
        for name in arms.candidates
        if name in ratios and ratios[name]["p_value"] is not None
    }
    if not found:
        return f"No arm can be compared with {arms.base} by the tokens that it takes to a loss."
    best = min(found, key=lambda name: found[name].value)
    told = ratios[best]["better"] is not None
    return (
        f"To the loss that both reach, {arms.label(best)} takes {found[best].text()} times the tokens of {arms.base}"
        f"{'' if told else ', not told from as many after Holm’s correction'}."
    )  # fmt: skip

"""The report's part about the race: loss curves, final losses, tokens to reach a loss."""

import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import stats

from fmlm_cli.analysis.report.figures.race import Curve, draw_curves, draw_pairs
from fmlm_cli.analysis.report.findings.learning import frequencies_alone, lowest
from fmlm_cli.analysis.report.findings.race import tokens_saved, told_by_loss, visible
from fmlm_cli.analysis.report.findings.reruns import in_words
from fmlm_cli.analysis.report.parts import Exhibit, Part, ReportTable, Row, absent
from fmlm_cli.analysis.report.values import (
    DASH,
    Arms,
    Estimate,
    Ratio,
    compact,
    decimals,
    percent,
    probability,
    spell,
)
from fmlm_cli.analysis.results.comparison import (
    Measurements,
    PairedResult,
    RaceResult,
    ReachResult,
    SpreadResult,
)
from fmlm_cli.analysis.results.plain import as_json
from fmlm_cli.analysis.statistics import Floats, moving_average

_WINDOW = 3  # evaluations that are averaged, as for tokens to reach a loss
PAIRED = (
    "Differences are paired by seed, with the 95 % Student-t interval of each comparison alone; p of the "
    "two-sided paired t-test, after Holm’s correction over the masking strategies (a control is a test of "
    "its own). “Smallest visible” is the true difference that would be told with a probability of 80 %, were "
    "the spread seen the true one; in brackets, the same at the ends of that spread’s 95 % interval. It is "
    "pooled over arms (residual mean square of arms × seeds), but for one out of line with the others."
)


def race_part(results: Measurements, arms: Arms) -> Part:
    """Curves, final losses, tokens to reach a loss."""
    race, title = results.race, "Race"
    if race is None:
        return Part("race", title, missing=absent("No models were trained.", "race"))
    controls, saved = arms.listed(arms.controls), tokens_saved(race, arms)
    notes = [f"For scale only, not to be chosen: {controls}."] if controls else []
    notes += [] if saved else [_no_tokens(race, arms)]
    tokens = [_tokens(race, arms, saved, given=_target_given(results))] if saved else []
    exhibits = [*_curves(race, arms), _final(race, arms), *tokens, *_reruns(race, arms, results.steps)]
    return Part("race", title, exhibits, notes=notes)


def _target_given(results: Measurements) -> bool:
    """Whether the loss to reach was asked for."""
    return results.settings.get("race", {}).get("target_loss") is not None


def _no_tokens(race: RaceResult, arms: Arms) -> str:
    """Why nothing is said of tokens to a loss."""
    by_note: dict[str, list[str]] = {}
    for name, reach in race.tokens_to_reach.items():
        if not arms.is_control(name):
            by_note.setdefault(reach.ratio.note or "nothing learnt", []).append(name)
    why = "; ".join(f"{note}: {arms.listed(names)}" for note, names in by_note.items()) or "runs diverged"
    return f"Tokens to the same loss are not compared ({why})."


def _smoothed(race: RaceResult, arm: str) -> Mapping[int, Floats]:
    """Losses by seed, float64[evaluations], smoothed."""
    return {seed: moving_average(run.losses, _WINDOW) for seed, run in race.curves[arm].items()}


def _mean_curve(tokens: Floats, by_seed: Sequence[Floats]) -> Curve:
    """Mean and t interval over seeds, at each evaluation."""
    table = np.stack(by_seed)
    mean, n = table.mean(axis=0), len(table)
    half = np.full_like(mean, np.nan)
    if n > 1:
        half = stats.t.isf(0.025, n - 1) * table.std(axis=0, ddof=1) / np.sqrt(n)
    return tokens, mean, mean - half, mean + half


def _curves(race: RaceResult, arms: Arms) -> Iterator[Exhibit]:
    losses = {name: by_seed for name in arms.by_name if (by_seed := _smoothed(race, name))}
    if not losses:
        return
    tokens = {name: np.mean([run.tokens for run in race.curves[name].values()], axis=0) for name in losses}
    curves = {name: _mean_curve(tokens[name], list(by_seed.values())) for name, by_seed in losses.items()}
    by_frequency = frequencies_alone(race)
    assert by_frequency is not None  # there are runs
    labels = {name: marked(arms.label(name), race.final[name]) for name in curves}
    yield Exhibit(
        "loss-curves",
        "How does the held-out loss fall?",
        _course(curves, lowest(race, arms), by_frequency, arms),
        "Masked-LM loss on held-out rows under masks that are the same for all arms of a seed, smoothed over "
        f"{_WINDOW} evaluations. Left (or above): the mean over seeds; dashed, if it is near, the loss of "
        "word frequencies alone on the same tokens. Right (or below): the difference from the baseline seed "
        "by seed, which share initial weights and data order, with its 95 % Student-t interval, pointwise; "
        "an arm that is far off leaves the panel.",
        functools.partial(draw_curves, curves, _gaps(race, losses, tokens, arms), arms, labels, by_frequency),
        [
            {"arm": name, "seed": str(seed), "step": step, "tokens": at, "loss": loss}
            for name in losses
            for seed, run in race.curves[name].items()
            for step, at, loss in zip(run.steps, run.tokens, run.losses, strict=True)
        ],
    )


def _course(curves: Mapping[str, Curve], name: str | None, by_frequency: float, arms: Arms) -> str:
    """From where to where the lowest arm goes."""
    scale = f"word frequencies alone come to {by_frequency:.3f}"
    if name is None:
        return f"No masking ended with every seed; {scale}."
    tokens, mean, *_ = curves[name]
    return (
        f"The lowest of the masking strategies, {arms.label(name)}, goes from {mean[0]:.3f} to "
        f"{mean[-1]:.3f} nats in {compact(tokens[-1])} tokens; {scale}."
    )


def _gaps(
    race: RaceResult, losses: Mapping[str, Mapping[int, Floats]], tokens: Mapping[str, Floats], arms: Arms
) -> dict[str, Curve]:
    """What each compared arm's loss is above the baseline's."""
    compared = [name for name, pair in race.paired.items() if pair.n]
    baseline = losses.get(arms.baseline, {})
    return {
        name: _mean_curve(tokens[name], [losses[name][seed] - baseline[seed] for seed in baseline])
        for name in arms.by_name
        if name in compared
    }


def _final(race: RaceResult, arms: Arms) -> Exhibit:
    final, paired = race.final, race.paired
    values = {name: final[name].values for name in arms.by_name}
    return Exhibit(
        "final-loss",
        "Which arm ends lowest?",
        told_by_loss(race, arms),
        "Left (or above): held-out loss (nats) at the end, a dot for each seed, seeds joined by lines; the "
        f"bar is the mean. Right (or below): arm minus {arms.base}. {PAIRED} A cross marks a seed "
        "that diverged.",
        functools.partial(
            draw_pairs,
            values,
            {name: Estimate.of(pair) for name, pair in paired.items() if pair.n},
            arms,
            measured="Held-out loss (nats) by seed",
            against=f"Minus {arms.base}, 95 % interval",
            reference=0.0,
        ),
        [
            {
                "arm": name,
                "passes": arms.by_name[name].passes,
                "seed": str(seed),
                "loss": loss,
                **paired_data(paired.get(name)),
            }
            for name, by_seed in values.items()
            for seed, loss in by_seed.items()
        ],
        paired_table(final, paired, arms),
    )


def paired_data(pair: PairedResult | None) -> Row:
    """A paired comparison as columns of the data."""
    return {f"paired.{name}": value for name, value in as_json(pair).items()} if pair else {}


def paired_table(
    spreads: Mapping[str, SpreadResult], paired: Mapping[str, PairedResult], arms: Arms, scale: float = 1
) -> ReportTable:
    """A row for each arm: values by seed, mean, spread, difference from the baseline and its test."""
    seeds = list(dict.fromkeys(seed for spread in spreads.values() for seed in spread.values))
    deviations = [scale * spread.sd for spread in spreads.values() if spread.sd]
    places = min(4, decimals(min(deviations))) if deviations else 3

    def shown(value: float | None) -> str:
        return spell(None if value is None else scale * value, places)

    rows = [
        (
            arms.label(name),
            arms.passes(name),
            *(shown(spread.values.get(seed)) for seed in seeds),
            marked(shown(spread.mean), spread),
            shown(spread.sd),
            *compared(paired.get(name), scale),
        )
        for name, spread in spreads.items()
    ]
    header = ["arm", "passes", *(f"seed {seed}" for seed in seeds), "mean", "sd"]
    return ReportTable([*header, f"minus {arms.base}", "p", "p (Holm)", "smallest visible"], rows)


def marked(text: str, spread: SpreadResult) -> str:
    """A text about an arm's runs, with how many there are where some diverged."""
    there, seeds = len(spread.values) - len(spread.lacking), len(spread.values)
    return f"{text} ({there} of {seeds} seeds)" if 0 < there < seeds else text


def difference_and_p(pair: PairedResult | None) -> tuple[str, str]:
    """A comparison of losses, or why there is none, and p after correction."""
    if pair is None:
        return DASH, DASH
    difference = Estimate.of(pair).text(sign=True) if pair.tested else pair.note or ""
    return difference, probability(pair.p_adjusted)


def compared(pair: PairedResult | None, scale: float) -> tuple[str, str, str, str]:
    """Difference from the baseline, p, p after correction, smallest visible difference."""
    if pair is None:
        return ("baseline", DASH, DASH, DASH)
    if not pair.tested:
        return (pair.note or "", DASH, DASH, DASH)
    difference = Estimate.of(pair).times(scale).text(sign=True)
    return (difference, probability(pair.p_value), probability(pair.p_adjusted), visible(pair, scale))


def _tokens(race: RaceResult, arms: Arms, saved: str, *, given: bool) -> Exhibit:
    """`saved`: what is said of it. `given`: whether the loss to reach was asked for."""
    reached = race.tokens_to_reach
    ratios = {name: reach.ratio for name, reach in reached.items()}
    # Which of the two outweighs the other differs: see tests/benchmarks/RESULTS.md.
    caveat = (
        ""
        if given
        else " The faster of the two gets there in mid-schedule, the other at the end of its decay: a run "
        "whose schedule ends there has the decay, and fewer steps at high rates, and may need more tokens or "
        "fewer (race.rerun_to_target trains it)."
    )
    return Exhibit(
        "tokens-to-reach",
        "How many tokens does it save?",
        saved + caveat,
        f"Tokens forwarded until the held-out loss, smoothed over {_WINDOW} evaluations, is first at the "
        "target, between two evaluations by linear interpolation. The target is the lowest loss that an arm "
        f"and {arms.base} both reach with a seed, so where the higher of the two ends, or the one that was "
        "asked for. Ratios: geometric mean over seeds, with the 95 % Student-t interval of the logarithms.",
        functools.partial(
            draw_pairs,
            {name: reach.values for name, reach in reached.items()},
            {name: Ratio.of(ratio) for name, ratio in ratios.items() if ratio.value is not None},
            arms,
            measured="Tokens to the target, by seed",
            against=f"Ratio to {arms.base}, 95 % interval",
            reference=1.0,
        ),
        [
            {
                "arm": name,
                "passes": arms.by_name[name].passes,
                "seed": str(seed),
                "target": reach.targets[seed],
                "tokens": tokens,
                "baseline": reach.baseline[seed],
                **{f"ratio.{key}": value for key, value in as_json(reach.ratio).items()},
            }
            for name, reach in reached.items()
            for seed, tokens in reach.values.items()
        ],
        _tokens_table(reached, arms),
    )


def _tokens_table(reached: Mapping[str, ReachResult], arms: Arms) -> ReportTable:
    seeds = list(dict.fromkeys(seed for reach in reached.values() for seed in reach.values))
    rows = []
    for name, reach in reached.items():
        cells = [
            f"{_until(reach.values[seed])} / {_until(reach.baseline[seed])} to {spell(reach.targets[seed])}"
            for seed in seeds
        ]
        ratio = Ratio.of(reach.ratio).text() if reach.ratio.tested else reach.ratio.note or ""
        adjusted = probability(reach.ratio.p_adjusted)
        rows.append((arms.label(name), arms.passes(name), *cells, ratio, adjusted))
    by_seed = (f"seed {seed}, arm / {arms.base}" for seed in seeds)
    return ReportTable(["arm", "passes", *by_seed, "ratio", "p (Holm)"], rows)


def _until(tokens: float | None) -> str:
    return "not reached" if tokens is None else compact(tokens)


def _reruns(race: RaceResult, arms: Arms, steps: int) -> Iterator[Exhibit]:
    """Arms that came to the baseline's loss sooner than after all `steps`, trained for so long alone."""
    again = race.reruns
    if not again:
        return
    baseline = race.final[arms.baseline]
    values = {arms.baseline: baseline.values, **{name: rerun.values for name, rerun in again.items()}}
    yield Exhibit(
        "reruns",
        "And with a schedule that ends there?",
        " ".join(in_words(name, rerun, arms) for name, rerun in again.items()),
        "Each arm that took fewer tokens to a loss was trained again from the same weights for that share of "
        "the steps (the geometric mean over seeds), so that its learning rate has fallen where it is "
        f"measured, as that of {arms.base} has at its own end. Differences are paired by seed, with the 95 % "
        "Student-t interval of each comparison alone; p after Holm’s correction over these reruns.",
        functools.partial(
            draw_pairs,
            values,
            {name: Estimate.of(rerun.paired) for name, rerun in again.items() if rerun.paired.n},
            arms,
            measured="Held-out loss (nats) by seed",
            against=f"Minus {arms.base}, 95 % interval",
            reference=0.0,
        ),
        [
            {
                "arm": name,
                "steps": rerun.steps,
                "seed": str(seed),
                "loss": loss,
                **paired_data(rerun.paired),
            }
            for name, rerun in again.items()
            for seed, loss in rerun.values.items()
        ],
        _reruns_table(race, arms, steps),
    )


def _reruns_table(race: RaceResult, arms: Arms, steps: int) -> ReportTable:
    baseline = race.final[arms.baseline]
    rows = [(arms.base, f"{steps:,}", percent(1.0), spell(baseline.mean, 3), DASH, DASH)]
    for name, rerun in race.reruns.items():
        own = (f"{rerun.steps:,}", percent(rerun.share), spell(rerun.mean, 3))
        rows.append((arms.label(name), *own, *difference_and_p(rerun.paired)))
    header = ("arm", "steps", "of the tokens", "held-out loss", f"minus {arms.base}", "p (Holm)")
    return ReportTable(header, rows)

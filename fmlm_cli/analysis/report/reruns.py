"""The report's exhibit about arms that were trained again, with schedules of their own."""

import functools
from collections.abc import Iterator

from fmlm_cli.analysis.report.figures.race import draw_pairs
from fmlm_cli.analysis.report.findings.reruns import in_words
from fmlm_cli.analysis.report.parts import Exhibit, ReportTable
from fmlm_cli.analysis.report.race import paired_data
from fmlm_cli.analysis.report.values import DASH, Arms, Estimate, percent, probability, spell
from fmlm_cli.analysis.results.comparison import RaceResult


def rerun_exhibit(race: RaceResult, arms: Arms) -> Iterator[Exhibit]:
    """Arms that came to the baseline's loss sooner, trained for so long alone; nothing without any."""
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
        _table(race, arms),
    )


def _table(race: RaceResult, arms: Arms) -> ReportTable:
    baseline = race.final[arms.baseline]
    rows = [(arms.base, "all", percent(1.0), spell(baseline.mean, 3), DASH, DASH)]
    for name, rerun in race.reruns.items():
        pair = rerun.paired
        compared = (pair.note or "", DASH)
        if pair.tested:
            compared = (Estimate.of(pair).text(sign=True), probability(pair.p_adjusted))
        own = (f"{rerun.steps:,}", percent(rerun.share), spell(rerun.mean, 3))
        rows.append((arms.label(name), *own, *compared))
    header = ("arm", "steps", "of the tokens", "held-out loss", f"minus {arms.base}", "p (Holm)")
    return ReportTable(header, rows)

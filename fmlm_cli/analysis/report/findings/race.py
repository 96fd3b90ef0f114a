"""What was found of trained models, in sentences.

Two arms are "told apart" where Holm's p is at most 0.05; "smallest visible" is the true difference that would
be told with a probability of 80 %. Of arms without a value with every seed nothing is said but that. What is
said of an arm that was chosen for what it showed has the interval that holds for all it was chosen among.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from fmlm_cli.analysis.report.findings import learning
from fmlm_cli.analysis.report.values import DASH, Arms, Estimate, Ratio, p_is, rounded_up
from fmlm_cli.analysis.results.comparison import (
    Measurements,
    PairedResult,
    RaceResult,
    RatioResult,
    SpreadResult,
)
from fmlm_cli.analysis.statistics import ALPHA, PairedDifference, paired_difference
from fmlm_cli.events import numbered

Paired = Mapping[str, PairedResult]  # by arm


# ---------------------------------------------------------------- which masking


def headline(results: Measurements, arms: Arms) -> Iterator[str]:
    """Which masking, where models were trained."""
    race = results.race
    if race is None:
        return
    lowest, best = learning.lowest(race, arms), chosen(race, arms)
    told = {name: race.paired[name].better for name in arms.candidates}
    worse = [name for name, winner in told.items() if winner == arms.baseline]
    if lowest is None or not any(race.paired[name].n for name in arms.candidates):
        yield f"Nothing could be compared with {arms.base}: runs diverged"
    elif not learning.anything_learnt(race, arms):
        yield learning.too_short(results, race, lowest)
    elif best is not None:
        yield _better(race.paired[best], arms.label(best), arms.base)
    elif any(name == winner for name, winner in told.items()):
        yield f"No masking that has learnt anything could be told to be better than {arms.base}"
    elif worse:
        verb = "is" if len(worse) == 1 else "are"
        yield f"No masking could be told to be better than {arms.base}; {arms.listed(worse)} {verb} worse"
    else:
        yield f"No masking could be told from {arms.base}"


def chosen(race: RaceResult, arms: Arms) -> str | None:
    """The lowest of those that have learnt something and are told to be better than the baseline.

    Those come first whose simultaneous interval says so too. It does of one at least that Holm's correction
    tells from the baseline, but that one may be worse.
    """
    better = [n for n in arms.candidates if race.paired[n].better == n and learning.learnt(race, n)]
    sure = [name for name in better if (race.paired[name].simultaneous_high or 0.0) < 0]
    return min(sure or better, key=lambda name: learning.mean_loss(race, name), default=None)


def _better(pair: PairedResult, label: str, base: str) -> str:
    difference = simultaneous(pair)
    gain = Estimate(-difference.value, -difference.high, -difference.low)
    if gain.low <= 0:
        p = p_is(pair.p_adjusted)
        return f"{label} is better than {base} ({p} after Holm’s correction), by how much is open"
    return f"{label} is better than {base}: held-out loss lower by {_with_reason(gain, pair, 'nats')}"


def simultaneous(pair: PairedResult | RatioResult, kind: type[Estimate] = Estimate) -> Estimate:
    """A comparison with the interval that holds for all that were tested with it."""
    low, high = (math.nan if end is None else end for end in (pair.simultaneous_low, pair.simultaneous_high))
    assert pair.value is not None
    return kind(pair.value, low, high)


def _with_reason(estimate: Estimate, pair: PairedResult | RatioResult, unit: str) -> str:
    """A chosen comparison, and why its interval is wider than another's."""
    among = "" if pair.tests == 1 else f", allowing for the choice among {pair.tests}"
    return f"{estimate.point()} {unit} ({estimate.ends()}{among})"


def told(
    paired: Paired,
    arms: Arms,
    what: str,
    unit: str,
    scale: float = 1,
    words: tuple[str, str] = ("better", "worse"),
) -> str:
    """Which arms are told from the baseline, which way, and how small a difference could have been seen."""
    candidates = {name: paired[name] for name in arms.candidates if name in paired}
    tested = {name: pair for name, pair in candidates.items() if pair.tested}
    if not tested:
        why = [f"{arms.label(name)}: {pair.note}" for name, pair in candidates.items()] or [
            "there is one arm"
        ]
        return f"Nothing could be tested by {what} ({'; '.join(why)})."
    better = [name for name, pair in tested.items() if pair.better == name]
    worse = [name for name, pair in tested.items() if pair.better == arms.baseline]
    sides = zip(words, (better, worse), strict=True)
    clauses = [f"{word} than {arms.base}: {arms.listed(names)}" for word, names in sides if names]
    undecided = [name for name in tested if name not in (*better, *worse)]
    if undecided:
        from_it = f"not told from it: {arms.listed(undecided)}"
        clauses.append(from_it if clauses else f"none told from {arms.base}")
    seeds = next(iter(tested.values())).n
    return (
        f"By {what}, {'; '.join(clauses)}. The smallest difference that {seeds} seeds can be expected to "
        f"show is {_range_of(list(tested.values()), unit, scale)}."
    )


def _range_of(pairs: Sequence[PairedResult], unit: str, scale: float) -> str:
    """What can be seen, from the smallest to the largest, and what is not known of it; all rounded up."""
    low, high = (rounded_up(scale * end(pair.detectable or 0.0 for pair in pairs)) for end in (min, max))
    least = rounded_up(scale * min(pair.detectable_low or 0.0 for pair in pairs))
    most = rounded_up(scale * max(pair.detectable_high or 0.0 for pair in pairs))
    value = f"{low} {unit}" if low == high else f"{low} to {high} {unit}, by arm"
    return f"{value}; so few runs leave that between {least} and {most}"


def visible(pair: PairedResult, scale: float = 1) -> str:
    """The smallest difference that can be seen and its range, rounded up: 0.08 (0.05 to 0.17)."""
    if pair.detectable is None or pair.detectable_low is None or pair.detectable_high is None:
        return DASH
    value, low, high = (
        rounded_up(scale * end) for end in (pair.detectable, pair.detectable_low, pair.detectable_high)
    )
    return f"{value} ({low} to {high})"


def told_by_loss(race: RaceResult, arms: Arms) -> str:
    """The same of final losses. Of runs that have learnt nothing, none is called the better one."""
    if learning.anything_learnt(race, arms):
        return told(race.paired, arms, "held-out loss", "nats")
    text = told(race.paired, arms, "held-out loss", "nats", words=("lower", "higher"))
    if not any(race.paired[name].better for name in arms.candidates):
        return text
    return f"{text} Before anything is learnt, a lower loss is no better masking."


# ---------------------------------------------------------------- how sure


def seen(results: Measurements, arms: Arms) -> Iterator[str]:
    """How small a difference the seeds could show, and on what the loss is measured."""
    race, evaluation = results.race, results.evaluation
    if race is None:
        return
    assert evaluation is not None  # without which there is no race
    yield told_by_loss(race, arms)
    yield (
        f"The loss is that of {evaluation.masks}, whatever an arm trains on, in held-out rows of "
        f"{evaluation.store}. Seeds differ in order, masks and new weights. {rows_of_seeds(results)}"
    )


def rows_of_seeds(results: Measurements) -> str:
    """Which rows are drawn anew with each seed, and so what intervals over seeds hold for."""
    kinds = [("training", results.data)] + ([("held-out", results.evaluation)] if results.evaluation else [])
    texts = {kind: f"{_of(rows.rows, rows.of_rows)} {kind} rows" for kind, rows in kinds}
    anew = [texts[kind] for kind, rows in kinds if rows.by_seed]
    same = [texts[kind] for kind, rows in kinds if not rows.by_seed]
    if not same:
        drawn = f"Each seed draws its own {' and '.join(anew)}"
        return f"{drawn}, so intervals hold for another sample of this text."
    shared = (
        f"{' and '.join(same)}, the same with every seed: another sample of text would add to the spread."
    )
    if anew:
        return f"Each seed draws its own {' and '.join(anew)}, but there are {shared}"
    return f"There are {shared}"


def _of(rows: int, of_rows: int) -> str:
    return f"{rows:,} of {of_rows:,}" if rows < of_rows else f"{rows:,}"


def diverged(results: Measurements, arms: Arms) -> Iterator[str]:
    """Which arms lack a run or a score, and so are shown, but not compared."""
    if results.race is None:
        return
    gone = {name: spread.lacking for name, spread in results.race.final.items()}
    if any(gone.values()):
        yield f"Diverged: {_not_compared(gone, arms)}"
    for task, scores in (results.downstream or {}).items():
        more = {name: own.lacking for name, own in scores.arms.items() if own.lacking != gone[name]}
        if any(more.values()):
            yield f"Without a score in {task}: {_not_compared(more, arms)}"


def _not_compared(gone: Mapping[str, Sequence[int]], arms: Arms) -> str:
    clauses = [f"{arms.label(name)} with {numbered('seed', seeds)}" for name, seeds in gone.items() if seeds]
    without = f", and nothing is compared with {arms.base}" if gone.get(arms.baseline) else ""
    return f"{', '.join(clauses)}; shown, not compared{without}."


def runner_up(results: Measurements, arms: Arms) -> Iterator[str]:
    """Whether the lowest two candidates can be told apart."""
    lowest = two_lowest(results.race, arms) if results.race is not None else None
    if lowest is None or not lowest[2].testable:
        return
    first, second, pair, pairs = lowest
    p = min(1.0, pairs * pair.p_value)
    word = "is better than" if p <= ALPHA else "cannot be told from"
    difference = Estimate(pair.mean, *pair.simultaneous(pairs)).text(sign=True)
    correction = f", corrected for all {pairs} pairs" if pairs > 1 else ""
    yield (
        f"Of the two lowest, {arms.label(first)} {word} {arms.label(second)}: {difference} nats, "
        f"{p_is(p)}{correction}."
    )


def two_lowest(race: RaceResult, arms: Arms) -> tuple[str, str, PairedDifference, int] | None:
    """The lowest two candidates, their difference, and from how many pairs it was chosen.

    The test alone would hold its level without a correction, as neighbours are closer than any two; the
    interval would not, with several behind the lowest of which the luckiest comes second.
    """
    names = [n for n in arms.candidates if race.paired[n].tested and learning.learnt(race, n)]
    if len(names) < 2:
        return None
    first, second = sorted(names, key=lambda name: learning.mean_loss(race, name))[:2]
    pair = paired_difference(*_sides(race.final[first], race.final[second]))
    return first, second, pair, math.comb(len(names), 2)


def _sides(*spreads: SpreadResult) -> list[list[float]]:
    """Values by seed, of arms that lack none."""
    return [[value for value in spread.values.values() if value is not None] for spread in spreads]


def control(results: Measurements, arms: Arms) -> Iterator[str]:
    """What more text would do, beside what masking does: a test of its own against the baseline."""
    if results.race is None:
        return
    for name in arms.controls:
        pair = results.race.paired[name]
        if pair.tested:
            difference = Estimate.of(pair).text(sign=True)
            yield (
                f"For scale: rows that never come twice, {arms.label(name)}, against {arms.base}: "
                f"{difference} nats, {p_is(pair.p_value)}."
            )


def tokens_saved(race: RaceResult, arms: Arms) -> str:
    """How many tokens the candidate that takes the fewest takes to a loss; empty where none was compared."""
    ratios = {name: reach.ratio for name, reach in race.tokens_to_reach.items()}
    tested = {
        name: ratios[name]
        for name in arms.candidates
        if name in ratios and ratios[name].tested and learning.learnt(race, name)
    }
    if not tested:
        return ""
    best = min(tested, key=lambda name: tested[name].value or math.inf)
    ratio = _with_reason(simultaneous(tested[best], Ratio), tested[best], "times")
    untold = ", not told from as many" if tested[best].better is None else ""
    return (
        f"To the loss that both reach with a seed, {arms.label(best)} takes {ratio} the tokens of "
        f"{arms.base}{untold}."
    )


def downstream(results: Measurements, arms: Arms) -> Iterator[str]:
    """Which arms are told from the baseline by each task."""
    for task, scores in (results.downstream or {}).items():
        paired = {name: arm.paired for name, arm in scores.arms.items() if arm.paired is not None}
        yield told(paired, arms, f"{task} ({scores.split} {scores.measure})", "points", 100)

"""What was found of trained models, in sentences.

Two arms are "told apart" where Holm's p is at most 0.05; "smallest visible" is the true difference that would
be told with a probability of 80 %.
"""

from collections.abc import Iterator, Mapping, Sequence

from fmlm_cli.analysis.report.values import DASH, Arms, Estimate, probability, rounded_up
from fmlm_cli.analysis.results.comparison import Measurements, PairedResult, SpreadResult
from fmlm_cli.analysis.statistics import PairedDifference, paired_difference

Paired = Mapping[str, PairedResult]  # by arm

_ALPHA = 0.05


def headline(results: Measurements, arms: Arms) -> Iterator[str]:
    """Which masking, where models were trained."""
    race = results.race
    if race is None:
        return
    paired = {name: race.paired[name] for name in arms.candidates}
    better = [name for name, pair in paired.items() if pair.better == name]
    worse = [name for name, pair in paired.items() if pair.better == arms.baseline]
    if better:
        losses = {name: _loss(race.final[name]) for name in paired}
        best = min(better, key=losses.__getitem__)
        lowest = len(paired) > 1 and losses[best] == min(losses.values())
        of = f", the lowest of {len(paired)}," if lowest else ""  # which flatters it
        difference = Estimate.of(paired[best])
        gain = Estimate(-difference.value, -difference.high, -difference.low)
        yield f"{arms.label(best)}{of} is better than {arms.base}: held-out loss lower by {gain.text()} nats"
    elif worse:
        verb = "is" if len(worse) == 1 else "are"
        yield f"No masking could be told to be better than {arms.base}; {arms.listed(worse)} {verb} worse"
    elif any(pair.n for pair in paired.values()):
        yield f"No masking could be told from {arms.base}"
    else:
        yield f"Nothing could be compared with {arms.base}: runs diverged"


def _loss(spread: SpreadResult) -> float:
    """The mean; an arm that has none comes last."""
    return float("inf") if spread.mean is None else spread.mean


def told(paired: Paired, arms: Arms, what: str, unit: str, scale: float = 1) -> str:
    """Which arms are told from the baseline, which way, and how small a difference could have been seen."""
    candidates = {name: paired[name] for name in arms.candidates if name in paired}
    tested = {name: pair for name, pair in candidates.items() if pair.tested}
    if not tested:
        why = next((pair.note for pair in candidates.values()), "there is one arm")
        return f"Nothing could be tested by {what}: {why}."
    better = [name for name, pair in tested.items() if pair.better == name]
    worse = [name for name, pair in tested.items() if pair.better == arms.baseline]
    sides = (("better", better), ("worse", worse))
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


def seen(results: Measurements, arms: Arms) -> Iterator[str]:
    """How small a difference the seeds could show, and on what the loss is measured."""
    race, evaluation = results.race, results.evaluation
    if race is None:
        return
    assert evaluation is not None  # without which there is no race
    yield told(race.paired, arms, "held-out loss", "nats")
    yield (
        f"The loss is that of {evaluation.masks}, whatever an arm trains on: {evaluation.rows:,} held-out "
        f"rows of {evaluation.store}, the same for all. Seeds differ in order, masks and new weights; "
        f"another sample of text would add to the spread."
    )


def runner_up(results: Measurements, arms: Arms) -> Iterator[str]:
    """Whether the best two candidates can be told apart."""
    if results.race is None:
        return
    final, paired = results.race.final, results.race.paired
    names = [name for name in arms.candidates if paired[name].tested]
    if len(names) < 2:
        return
    first, second = sorted(names, key=lambda name: _loss(final[name]))[:2]
    pair = _difference(final[first], final[second])
    if pair.testable:
        word = "is better than" if pair.p_value <= _ALPHA else "cannot be told from"
        yield f"Of the two lowest, {arms.label(first)} {word} {arms.label(second)}: {_in_words(pair)}."


def control(results: Measurements, arms: Arms) -> Iterator[str]:
    """What more text would do, beside what masking does."""
    if results.race is None:
        return
    final, paired = results.race.final, results.race.paired
    others = [name for name in (arms.baseline, *arms.candidates) if None not in final[name].values.values()]
    for name in arms.controls:
        if not paired[name].tested:
            continue
        lowest = min(others, key=lambda other: _loss(final[other]))
        pair = _difference(final[name], final[lowest])
        if pair.testable:
            yield (
                f"For scale: rows that never come twice, {arms.label(name)}, against the lowest of the "
                f"others, {arms.label(lowest)}: {_in_words(pair)}."
            )


def _difference(first: SpreadResult, second: SpreadResult) -> PairedDifference:
    """First minus second, paired by seed; neither has diverged."""
    sides = ([spread.values[seed] for seed in first.values] for spread in (first, second))
    return paired_difference(*([value for value in side if value is not None] for side in sides))


def _in_words(pair: PairedDifference) -> str:
    """A difference of losses that belongs to no family of tests."""
    difference = Estimate(pair.mean, pair.low, pair.high).text(sign=True)
    return f"{difference} nats, p {_equals(probability(pair.p_value))}, not corrected"


def _equals(text: str) -> str:
    return text if text.startswith("<") else f"= {text}"


def downstream(results: Measurements, arms: Arms) -> Iterator[str]:
    """Which arms are told from the baseline by each task."""
    for task, scores in (results.downstream or {}).items():
        paired = {name: arm.paired for name, arm in scores.arms.items() if arm.paired is not None}
        yield told(paired, arms, f"{task} ({scores.split} {scores.measure})", "points", 100)

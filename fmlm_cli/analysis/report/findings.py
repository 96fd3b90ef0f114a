"""What a comparison found, in sentences computed from its intervals: for the terminal and the report alike.

Two arms are "told apart" where Holm's p is at most 0.05; "smallest visible" is the true difference that would
be told with a probability of 80 %.
"""

from collections.abc import Iterator, Mapping, Sequence

from fmlm_cli.analysis.report.values import (
    Arms,
    Estimate,
    compact,
    percent,
    probability,
    rounded_up,
    spell,
)
from fmlm_cli.analysis.results.comparison import (
    MASK_ONLY,
    CoverageResult,
    Measurements,
    PairedResult,
    SpreadResult,
    VarianceResult,
    Verdict,
)
from fmlm_cli.analysis.statistics import PairedDifference, paired_difference
from fmlm_cli.events import counted

Paired = Mapping[str, PairedResult]  # by arm

_ALPHA = 0.05
FEW = 20  # sequences or fewer, whose bootstrap intervals are too narrow


def verdict(results: Measurements) -> Verdict:
    """What the numbers say."""
    arms = Arms.of(results)
    headline, *sentences = [
        *_headline(results, arms),
        *_seen(results, arms),
        *_runner_up(results, arms),
        *_control(results, arms),
        *_downstream(results, arms),
        *_variance(results),
        *_coverage(results, arms),
        *_passes(results, arms),
    ] or ["Nothing was measured yet"]
    return Verdict(headline.rstrip("."), tuple(sentences), _cost(results, arms))


# ---------------------------------------------------------------- race


def _headline(results: Measurements, arms: Arms) -> Iterator[str]:
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
    visible = _range_of([pair.detectable for pair in tested.values()], unit, scale)
    seeds = next(iter(tested.values())).n
    return (
        f"By {what}, {'; '.join(clauses)}. "
        f"The smallest difference that {seeds} seeds can be expected to show is {visible}."
    )


def _range_of(differences: Sequence[float | None], unit: str, scale: float) -> str:
    """From the smallest to the largest, rounded up."""
    known = [difference for difference in differences if difference is not None]
    low, high = (rounded_up(scale * end(known)) for end in (min, max))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}, by arm"


def _seen(results: Measurements, arms: Arms) -> Iterator[str]:
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


def _runner_up(results: Measurements, arms: Arms) -> Iterator[str]:
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


def _control(results: Measurements, arms: Arms) -> Iterator[str]:
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


def _downstream(results: Measurements, arms: Arms) -> Iterator[str]:
    for task, scores in (results.downstream or {}).items():
        paired = {name: arm.paired for name, arm in scores.arms.items() if arm.paired is not None}
        yield told(paired, arms, f"{task} ({scores.split} {scores.measure})", "points", 100)


# ---------------------------------------------------------------- gradient variance


def latest(entries: Sequence[VarianceResult]) -> VarianceResult:
    """The measurement to speak of: of the last checkpoint, under the race's corruption if it is there."""
    newest = [entry for entry in entries if entry.step == entries[-1].step]
    return next((entry for entry in newest if entry.corruption != MASK_ONLY), newest[-1])


def noise_of_masks(entry: VarianceResult) -> str:
    """The ratio for the masks of one sequence."""
    ratio = Estimate.of(entry.ratio)
    side = {"below": "less", "above": "more", "undecided": "not told from as much"}[
        _against_one(ratio, entry)
    ]
    return (
        f"Over whole passes the {entry.segments} segments of each row make {ratio.text()} times the gradient "
        f"noise of as many random masks: {side} ({measured(entry)})."
    )


def equal_compute(entry: VarianceResult) -> str:
    """What becomes of it in a step that forwards as many rows."""
    ratio, k = Estimate.of(entry.equal_compute.segments), entry.segments
    side = {
        "above": "more, so within a step it does not pay",
        "below": "less, so within a step it pays too",
        "undecided": "not told from as much",
    }[_against_one(ratio, entry)]
    return (
        f"Within one step, for the same rows forwarded, all {k} segments of fewer rows (scope batch) vary "
        f"{ratio.text()} times as much as one random mask each of {k} times as many different rows: {side}."
    )


def _against_one(ratio: Estimate, entry: VarianceResult) -> str:
    """On which side of 1, where there are rows enough to say so."""
    return ratio.against(1) if entry.sequences > FEW else "undecided"


def measured(entry: VarianceResult) -> str:
    """On what gradients were measured, in short."""
    few = ", too few for their intervals to be trusted" if entry.sequences <= FEW else ""
    return f"{entry.name}, {entry.corruption}, {counted(entry.sequences, 'row')}{few}"


def _variance(results: Measurements) -> Iterator[str]:
    """The ratio for one sequence never without that at equal compute."""
    if results.variance:
        entry = latest(results.variance)
        yield f"{noise_of_masks(entry)} {equal_compute(entry)}"


# ---------------------------------------------------------------- coverage, passes, cost


def coverage_in_words(coverage: Mapping[str, CoverageResult], arms: Arms) -> str:
    """How much each arm leaves unpredicted, after its own passes."""
    by_passes: dict[int, list[str]] = {}
    for name, reached in coverage.items():
        by_passes.setdefault(reached.epochs, []).append(f"{arms.label(name)} {percent(reached.never_masked)}")
    texts = [
        f"after {counted(passes, 'pass', 'passes')}: {', '.join(shares)}"
        for passes, shares in by_passes.items()
    ]
    return f"Tokens never predicted {'; '.join(texts)}."


def _coverage(results: Measurements, arms: Arms) -> Iterator[str]:
    if results.coverage:
        yield coverage_in_words(results.coverage, arms)


def _passes(results: Measurements, arms: Arms) -> Iterator[str]:
    """Where scope epoch has no chance to do anything."""
    if results.race is None:
        return
    passes = {
        name: arm.passes for name, arm in arms.by_name.items() if arm.cycle > 1 and arm.passes is not None
    }
    single = [name for name, number in passes.items() if number <= 1]
    few = [f"{arms.label(name)} made {number:.2f}" for name, number in passes.items() if 1 < number < 2]
    if single:
        yield (
            f"{arms.listed(single)} made at most one pass over the data, and scope epoch differs from random "
            "masking from the second one on: fewer rows (--set run.data.max_rows=N) or a larger budget would "
            "show what it does."
        )
    if few:
        yield f"Scope epoch masks differently only rows that come twice, and {', '.join(few)} passes."


def _cost(results: Measurements, arms: Arms) -> str:
    """What every run takes."""
    trained = [arm for arm in arms.by_name.values() if arm.tokens_per_second]
    seconds = [arm.seconds for arm in trained if arm.seconds is not None]
    speeds = [arm.tokens_per_second for arm in trained if arm.tokens_per_second is not None]
    if results.race is None or not trained:
        return ""
    minutes = _range(spell(min(seconds) / 60, 1), spell(max(seconds) / 60, 1))
    speed = _range(compact(min(speed.low for speed in speeds)), compact(max(speed.high for speed in speeds)))
    text = (
        f"Every run forwards {results.steps:,} steps of {results.batch_size:,} rows, "
        f"{compact(trained[0].tokens)} tokens: {minutes} minutes with its evaluations on {results.device}, "
        f"training at {speed} tokens a second."
    )
    packed = next((arm for arm in arms.by_name.values() if arm.masks_per_sequence > 1), None)
    if packed is not None:
        text += (
            f" A step of {packed.label} has {packed.sequences_per_step:,} different rows instead of "
            f"{results.batch_size:,}."
        )
    return text


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"

"""What a comparison found, in sentences computed from its intervals: for the terminal and the report alike.

Two arms are "told apart" where Holm's p is at most 0.05; "smallest visible" is the true difference that would be told with
a probability of 80 %.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fmlm_cli.analysis.report.values import (
    Arms,
    Estimate,
    Json,
    compact,
    percent,
    probability,
    rounded_up,
    spell,
)
from fmlm_cli.analysis.statistics import PairedDifference, paired_difference
from fmlm_cli.events import counted

_ALPHA = 0.05
FEW = 20  # sequences or fewer, whose bootstrap intervals are too narrow


def verdict(results: Json) -> dict[str, Any]:
    """`headline`: which masking. `sentences`: how sure, and what else was found. `cost`: of time and data."""
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
    return {"headline": headline.rstrip("."), "sentences": sentences, "cost": _cost(results, arms)}


# ---------------------------------------------------------------- race


def _headline(results: Json, arms: Arms) -> Iterator[str]:
    race = results["race"]
    if race is None:
        return
    paired = {name: race["paired"][name] for name in arms.candidates}
    better = [name for name, own in paired.items() if own["better"] == name]
    worse = [name for name, own in paired.items() if own["better"] == arms.baseline]
    if better:
        means = {name: own["mean"] for name, own in race["final"].items() if name in paired}
        best = min(better, key=means.__getitem__)
        lowest = len(paired) > 1 and means[best] == min(mean for mean in means.values() if mean is not None)
        of = f", the lowest of {len(paired)}," if lowest else ""  # which flatters it
        own = Estimate.of(paired[best], "mean")
        gain = Estimate(-own.value, -own.high, -own.low)
        yield f"{arms.label(best)}{of} is better than {arms.base}: held-out loss lower by {gain.text()} nats"
    elif worse:
        verb = "is" if len(worse) == 1 else "are"
        yield f"No masking could be told to be better than {arms.base}; {arms.listed(worse)} {verb} worse"
    elif any(own["n"] for own in paired.values()):
        yield f"No masking could be told from {arms.base}"
    else:
        yield f"Nothing could be compared with {arms.base}: runs diverged"


def told(paired: Mapping[str, Json], arms: Arms, what: str, unit: str, scale: float = 1) -> str:
    """Which arms are told from the baseline, which way, and how small a difference could have been seen."""
    own = {name: paired[name] for name in arms.candidates if name in paired}
    tested = {name: pair for name, pair in own.items() if pair["p_value"] is not None}
    if not tested:
        return f"Nothing could be tested by {what}: {next((p['note'] for p in own.values()), 'there is one arm')}."
    better = [name for name, pair in tested.items() if pair["better"] == name]
    worse = [name for name, pair in tested.items() if pair["better"] == arms.baseline]
    sides = (("better", better), ("worse", worse))
    said = [f"{word} than {arms.base}: {arms.listed(names)}" for word, names in sides if names]
    rest = [name for name in tested if name not in (*better, *worse)]
    if rest:
        said.append(f"not told from it: {arms.listed(rest)}" if said else f"none told from {arms.base}")
    ends = [
        rounded_up(scale * end(float(pair["detectable"]) for pair in tested.values())) for end in (min, max)
    ]
    seeds = next(iter(tested.values()))["n"]
    visible = f"{ends[0]} {unit}" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]} {unit}, by arm"
    return f"By {what}, {'; '.join(said)}. The smallest difference that {seeds} seeds can be expected to show is {visible}."


def _seen(results: Json, arms: Arms) -> Iterator[str]:
    """How small a difference the seeds could show, and on what the loss is measured."""
    race, evaluation = results["race"], results["evaluation"]
    if race is None:
        return
    yield told(race["paired"], arms, "held-out loss", "nats")
    yield (
        f"The loss is that of {evaluation['masks']}, whatever an arm trains on: {evaluation['rows']:,} held-out rows of "
        f"{evaluation['store']}, the same for all. Seeds differ in order, masks and new weights; another sample of text would add to the spread."
    )


def _runner_up(results: Json, arms: Arms) -> Iterator[str]:
    """Whether the best two candidates can be told apart."""
    if results["race"] is None:
        return
    final, paired = results["race"]["final"], results["race"]["paired"]
    names = [name for name in arms.candidates if paired[name]["p_value"] is not None]
    if len(names) < 2:
        return
    first, second = sorted(names, key=lambda name: float(final[name]["mean"]))[:2]
    pair = _difference(final, first, second)
    if pair.testable:
        word = "is better than" if pair.p_value <= _ALPHA else "cannot be told from"
        yield f"Of the two lowest, {arms.label(first)} {word} {arms.label(second)}: {_in_words(pair)}."


def _control(results: Json, arms: Arms) -> Iterator[str]:
    """What more text would do, beside what masking does."""
    race = results["race"]
    for name in arms.own if race else ():
        if not arms.is_control(name) or race["paired"][name]["p_value"] is None:
            continue
        means = {other: race["final"][other]["mean"] for other in (arms.baseline, *arms.candidates)}
        lowest = min((other for other in means if means[other] is not None), key=means.__getitem__)
        pair = _difference(race["final"], name, lowest)
        if pair.testable:
            yield (
                f"For scale: rows that never come twice, {arms.label(name)}, against the lowest of the others, "
                f"{arms.label(lowest)}: {_in_words(pair)}."
            )


def _difference(final: Json, first: str, second: str) -> PairedDifference:
    """First minus second, paired by seed."""
    seeds = list(final[first]["values"])
    return paired_difference(*([final[name]["values"][seed] for seed in seeds] for name in (first, second)))


def _in_words(pair: PairedDifference) -> str:
    """A difference of losses that belongs to no family of tests."""
    own = Estimate(pair.mean, pair.low, pair.high)
    return f"{own.text(sign=True)} nats, p {_equals(probability(pair.p_value))}, not corrected"


def _equals(text: str) -> str:
    return text if text.startswith("<") else f"= {text}"


def _downstream(results: Json, arms: Arms) -> Iterator[str]:
    for task, found in (results["downstream"] or {}).items():
        paired = {name: own["paired"] for name, own in found["arms"].items() if own["paired"]}
        measure = f"{found['split']} {found['measure']}"
        yield told(paired, arms, f"{task} ({measure})", "points", 100)


# ---------------------------------------------------------------- gradient variance


def latest(entries: Sequence[Json]) -> Json:
    """The measurement to speak of: of the last checkpoint, under the race's corruption if it is there."""
    last = [entry for entry in entries if entry["step"] == entries[-1]["step"]]
    return next((entry for entry in last if entry["corruption"] != "[MASK] only"), last[-1])


def noise_of_masks(entry: Json) -> str:
    """The ratio for the masks of one sequence."""
    ratio = Estimate.of(entry["ratio"])
    side = {"below": "less", "above": "more", "undecided": "not told from as much"}[
        _against_one(ratio, entry)
    ]
    return (
        f"Over whole passes the {entry['segments']} segments of each row make {ratio.text()} times the gradient noise of as many "
        f"random masks: {side} ({measured(entry)})."
    )


def equal_compute(entry: Json) -> str:
    """What becomes of it in a step that forwards as many rows."""
    own, k = Estimate.of(entry["equal_compute"]["segments"]), entry["segments"]
    side = {
        "above": "more, so within a step it does not pay",
        "below": "less, so within a step it pays too",
        "undecided": "not told from as much",
    }[_against_one(own, entry)]
    return (
        f"Within one step, for the same rows forwarded, all {k} segments of fewer rows (scope batch) vary {own.text()} times as much as one random "
        f"mask each of {k} times as many different rows: {side}."
    )


def _against_one(own: Estimate, entry: Json) -> str:
    """On which side of 1, where there are rows enough to say so."""
    return own.against(1) if entry["sequences"] > FEW else "undecided"


def measured(entry: Json) -> str:
    """On what gradients were measured, in short."""
    few = ", too few for their intervals to be trusted" if entry["sequences"] <= FEW else ""
    return f"{entry['name']}, {entry['corruption']}, {counted(entry['sequences'], 'row')}{few}"


def _variance(results: Json) -> Iterator[str]:
    """The ratio for one sequence never without that at equal compute."""
    if results["variance"]:
        entry = latest(results["variance"])
        yield f"{noise_of_masks(entry)} {equal_compute(entry)}"


# ---------------------------------------------------------------- coverage, passes, cost


def coverage_in_words(found: Mapping[str, Json], arms: Arms) -> str:
    """How much each arm leaves unpredicted, after its own passes."""
    by_passes: dict[int, list[str]] = {}
    for name, own in found.items():
        by_passes.setdefault(own["epochs"], []).append(f"{arms.label(name)} {percent(own['never_masked'])}")
    texts = [
        f"after {counted(passes, 'pass', 'passes')}: {', '.join(own)}" for passes, own in by_passes.items()
    ]
    return f"Tokens never predicted {'; '.join(texts)}."


def _coverage(results: Json, arms: Arms) -> Iterator[str]:
    if results["coverage"]:
        yield coverage_in_words(results["coverage"], arms)


def _passes(results: Json, arms: Arms) -> Iterator[str]:
    """Where scope epoch has no chance to do anything."""
    if results["race"] is None:
        return
    cycles = [name for name, own in arms.own.items() if own["cycle"] > 1]
    same = [name for name in cycles if arms.own[name]["passes"] <= 1]
    few = [
        f"{arms.label(name)} made {arms.own[name]['passes']:.2f}"
        for name in cycles
        if 1 < arms.own[name]["passes"] < 2
    ]
    if same:
        yield (
            f"{arms.listed(same)} made at most one pass over the data, and scope epoch differs from random masking from the "
            "second one on: fewer rows (--set run.data.max_rows=N) or a larger budget would show what it does."
        )
    if few:
        yield f"Scope epoch masks differently only rows that come twice, and {', '.join(few)} passes."


def _cost(results: Json, arms: Arms) -> str:
    """What every run takes."""
    done = [own for own in arms.own.values() if own["tokens_per_second"]]
    if results["race"] is None or not done:
        return ""
    seconds = [float(own["seconds"]) for own in done]
    low = min(float(own["tokens_per_second"]["low"]) for own in done)
    high = max(float(own["tokens_per_second"]["high"]) for own in done)
    text = (
        f"Every run forwards {results['steps']:,} steps of {results['batch_size']:,} rows, {compact(done[0]['tokens'])} tokens: "
        f"{_range(spell(min(seconds) / 60, 1), spell(max(seconds) / 60, 1))} minutes with its evaluations on {results['device']}, training at "
        f"{_range(compact(low), compact(high))} tokens a second."
    )
    packed = next((own for own in arms.own.values() if own["masks_per_sequence"] > 1), None)
    if packed is not None:
        text += f" A step of {packed['label']} has {packed['sequences_per_step']:,} different rows instead of {results['batch_size']:,}."
    return text


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"

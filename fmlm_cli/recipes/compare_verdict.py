"""A comparison in words, computed from its intervals: what helps, how sure that is, what it costs, and what it does not."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fmlm_cli.analysis.statistics import PairedDifference, paired_difference

Results = Mapping[str, Any]

_ALPHA = 0.05
# Places in the table of `Estimates.step_variances`.
_BATCH, _EPOCHS = 2, 6


def verdict(results: Results) -> dict[str, Any]:
    """`headline`: which masking. `sentences`: how sure, and what else was found. `cost`: of time."""
    sentences = [
        *_race(results),
        *_downstream(results),
        *_variance(results),
        *_coverage(results),
        *_passes(results),
    ]
    headline, *rest = [*_headline(results), *sentences] or ["nothing was measured yet"]
    return {"headline": headline, "sentences": rest, "cost": _cost(results)}


def _labels(results: Results) -> dict[str, str]:
    return {arm["name"]: arm["label"] for arm in results["arms"]}


def _candidates(results: Results) -> list[str]:
    return [
        arm["name"] for arm in results["arms"] if not arm["control"] and arm["name"] != results["baseline"]
    ]


def _measured(paired: Results) -> str:
    """A difference with its interval and test."""
    return (
        f"95 % interval {paired['low']:+.3g} to {paired['high']:+.3g}, p = {paired['p_adjusted']:.2g} after Holm's "
        f"correction, {paired['n']} seeds"
    )


def _headline(results: Results) -> Iterator[str]:
    race = results["race"]
    if race is None:
        return
    labels, baseline = _labels(results), results["baseline"]
    judged = {name: race["paired"][name] for name in _candidates(results)}
    tested = {name: own for name, own in judged.items() if own["n"]}
    better = [name for name, own in tested.items() if own["better"] == name]
    worse = [name for name, own in tested.items() if own["better"] == baseline]
    if better:
        best = min(better, key=lambda name: float(race["final"][name]["mean"]))
        own = tested[best]
        yield (
            f"{labels[best]} is better than {labels[baseline]}: its held-out loss is {-own['mean']:.3g} lower "
            f"({_measured(own)})"
        )
    elif tested:
        seen = max(float(own["detectable"]) for own in tested.values())  # infinite where pairs had no spread
        n = next(iter(tested.values()))["n"]
        what = (
            f"{', '.join(labels[name] for name in worse)} {'is' if len(worse) == 1 else 'are'} worse than {labels[baseline]}, "
            "and no strategy is better"
            if worse
            else f"no strategy could be told from {labels[baseline]}"
        )
        yield (
            f"{what}: with {n} seeds a true difference of the held-out loss has to be about {seen:.2g} to be seen with a "
            "probability of 80 %"
        )
    else:
        yield f"nothing could be compared with {labels[baseline]}: runs diverged"


def _race(results: Results) -> Iterator[str]:
    race = results["race"]
    if race is None:
        return
    for name in _candidates(results):
        yield f"Held-out loss: {race['paired'][name]['text']}."
    yield from _runner_up(results)
    yield from _speed_up(results)
    yield from _control(results)


def _runner_up(results: Results) -> Iterator[str]:
    """Whether the best two candidates can be told apart."""
    final, labels = results["race"]["final"], _labels(results)
    names = [n for n in _candidates(results) if results["race"]["paired"][n]["n"]]
    if len(names) < 2:
        return
    first, second = sorted(names, key=lambda name: float(final[name]["mean"]))[:2]
    pair = _difference(final, first, second)
    told = "is better than" if pair.p_value <= _ALPHA else "cannot be told from"
    yield (
        f"Of the two lowest, {labels[first]} {told} {labels[second]} ({pair.mean:+.3g}, 95 % interval {pair.low:+.3g} to "
        f"{pair.high:+.3g}, paired t-test p = {pair.p_value:.2g}, not corrected, n = {pair.n} seeds)."
    )


def _speed_up(results: Results) -> Iterator[str]:
    reached, labels = results["race"]["tokens_to_reach"], _labels(results)
    for name in _candidates(results):
        ratio = (reached or {}).get(name, {}).get("ratio")
        if ratio and ratio["p_adjusted"] <= _ALPHA:
            yield (
                f"{labels[name]} takes {ratio['value']:.2f} times the tokens of {labels[results['baseline']]} down to the loss "
                f"{results['race']['target_loss']:.3f} (95 % interval {ratio['low']:.2f} to {ratio['high']:.2f}, "
                f"p = {ratio['p_adjusted']:.2g} after Holm's correction)."
            )


def _control(results: Results) -> Iterator[str]:
    """What more text would do, beside what masking does."""
    race, labels = results["race"], _labels(results)
    for arm in results["arms"]:
        name = arm["name"]
        if not arm["control"] or not race["paired"][name]["n"]:
            continue
        means = {other: race["final"][other]["mean"] for other in _candidates(results)}
        best = min(
            (other for other in means if means[other] is not None), key=means.__getitem__, default=None
        )
        yield f"As a control: {race['paired'][name]['text']}."
        if best is not None and race["paired"][best]["n"]:
            pair = _difference(race["final"], name, best)
            yield (
                f"Rows that never come twice against the best masking of repeated ones, {labels[best]}: the loss differs by "
                f"{pair.mean:+.3g} (95 % interval {pair.low:+.3g} to {pair.high:+.3g}, not corrected, n = {pair.n} seeds)."
            )


def _difference(final: Results, first: str, second: str) -> PairedDifference:
    """First minus second, paired by seed."""
    seeds = list(final[first]["values"])
    return paired_difference(*([final[name]["values"][seed] for seed in seeds] for name in (first, second)))


def _downstream(results: Results) -> Iterator[str]:
    for task, arms in (results["downstream"] or {}).items():
        for name in _candidates(results):
            own = arms[name]
            yield f"{task} ({own['split']} {own['measure']}): {own['paired']['text']}."


def _variance(results: Results) -> Iterator[str]:
    """The latest checkpoint under the race's corruption: for one sequence, and at equal compute."""
    measured: Sequence[Results] = results["variance"] or ()
    if not measured:
        return
    own = next((m for m in reversed(measured) if m["corruption"] != "[MASK] only"), measured[-1])
    own = own if own["step"] == measured[-1]["step"] else measured[-1]
    k, ratio = own["segments"], own["ratio"]
    side = (
        "is smaller"
        if ratio["high"] < 1
        else "is larger"
        if ratio["low"] > 1
        else "cannot be told from equal"
    )
    yield (
        f"Gradient variance of one sequence ({own['name']}, {own['corruption']}): the mean over its {k} segments has {_times(ratio)} the variance of "
        f"that over {k} random masks, which {side}."
    )
    batch, epochs = own["steps"][_BATCH]["relative"], own["steps"][_EPOCHS]["relative"]
    yield f"At equal compute that is not the whole of it: {_equal_compute(batch, k)}."
    repeated = own["repeated_ratio"]
    yield (
        f"Over {k} steps on the same sequences, one segment a step (scope epoch) gives {_times(repeated)} the variance of "
        f"independent masks, the sequences' own part in both; {_times(epochs)} that of as many different sequences."
    )


def _equal_compute(batch: Results, k: int) -> str:
    what = (
        f"a step with all {k} segments of its sequences (scope batch) has fewer distinct sequences, and {_times(batch)} the "
        f"variance of one with a random mask each of {k} times as many"
    )
    if batch["low"] > 1:
        return f"{what}: within a step this speaks against the method"
    if batch["high"] < 1:
        return f"{what}: within a step too this speaks for the method"
    return f"{what}: within a step neither can be told to be better"


def _times(found: Results) -> str:
    return f"{found['value']:.3g} times (95 % interval {found['low']:.3g} to {found['high']:.3g})"


def _coverage(results: Results) -> Iterator[str]:
    if results["coverage"]:
        shares = [
            f"{label} {results['coverage'][name]['never_masked']:.1%}"
            for name, label in _labels(results).items()
            if name in results["coverage"]
        ]
        yield f"Tokens that are never predicted in the passes made: {', '.join(shares)}."


def _passes(results: Results) -> Iterator[str]:
    """Where scope epoch has no chance to do anything."""
    few = [arm for arm in results["arms"] if arm["cycle"] > 1 and 0 < arm["passes"] < 2]
    if few and results["race"]:
        passes = ", ".join(f"{arm['label']} {arm['passes']:.2f}" for arm in few)
        yield f"Below two passes over the data scope epoch masks almost at random, and these made fewer: {passes}."


def _cost(results: Results) -> str:
    """Speed of every arm against the baseline's."""
    if results["race"] is None:
        return ""
    speeds = {arm["name"]: arm["tokens_per_second"] for arm in results["arms"]}
    own, labels = speeds.pop(results["baseline"]), _labels(results)
    text = (
        f"Every run forwards the same number of rows, {results['steps']:,} steps of {results['batch_size']:,}; "
        f"{labels[results['baseline']]} makes {own or 0:,.0f} tokens a second"
    )
    relative = [f"{labels[name]} {speed / own:.2f} times" for name, speed in speeds.items() if speed and own]
    return f"{text}; of that, {', '.join(relative)}." if relative else f"{text}."

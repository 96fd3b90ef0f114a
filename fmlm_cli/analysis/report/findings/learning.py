"""Whether a race went on for long enough to say anything, and what it would take, in sentences.

A run has learnt something where it ends below the loss that it began with and below that of word frequencies
alone on the same tokens. An arm has where each of its runs has: around either loss about every second run
would end below it by chance.
"""

import math
from collections.abc import Iterator

import numpy as np
from scipy import stats

from fmlm_cli.analysis.report.values import Arms, Estimate, spell
from fmlm_cli.analysis.results.comparison import Measurements, PairedResult, RaceResult
from fmlm_cli.analysis.statistics import ALPHA, detectable_effect, pairs_to_detect
from fmlm_cli.events import numbered

_FAR = 100  # times the length of a run, beyond which a pace says nothing
_MOST_SEEDS = 1000
_FEW_SEEDS = 2


# ---------------------------------------------------------------- what was learnt


def learnt(race: RaceResult, name: str) -> bool:
    """Whether all of an arm's runs that there are have learnt something."""
    runs = race.curves[name]
    return bool(runs) and all(run.losses[-1] < _bar(race, name, seed) for seed, run in runs.items())


def anything_learnt(race: RaceResult, arms: Arms) -> bool:
    """Whether any masking has, controls aside."""
    return any(learnt(race, name) for name in (arms.baseline, *arms.candidates))


def _bar(race: RaceResult, name: str, seed: int) -> float:
    """The loss that a run has to end below: the one that it began with, or that of word frequencies."""
    start, by_frequency = race.curves[name][seed].losses[0], race.unigram_loss[seed]
    assert by_frequency is not None  # there is this run
    return min(start, by_frequency)


def lowest(race: RaceResult, arms: Arms) -> str | None:
    """The masking with the lowest loss among those with every seed, controls aside."""
    whole = [name for name in (arms.baseline, *arms.candidates) if not race.final[name].lacking]
    return min(whole, key=lambda name: mean_loss(race, name), default=None)


def mean_loss(race: RaceResult, name: str) -> float:
    """An arm's final loss, mean over the seeds that are there; infinite without any."""
    mean = race.final[name].mean
    return math.inf if mean is None else mean


def frequencies_alone(race: RaceResult) -> float | None:
    """Loss of word frequencies, mean over the seeds."""
    known = [loss for loss in race.unigram_loss.values() if loss is not None]
    return float(np.mean(known)) if known else None


def steps_to_learn(race: RaceResult, name: str) -> int | None:
    """Steps after which all runs of an arm would have learnt something, at the pace of their last halves.

    None where one that has not does not fall there, or by so little that it is far off.
    """
    needed = 0.0
    for seed, run in race.curves[name].items():
        steps, losses = np.array(run.steps, float), np.array(run.losses)
        lacking, half = losses[-1] - _bar(race, name, seed), steps >= steps[-1] / 2
        half[-2:] = True
        pace = -float(np.polyfit(steps[half], losses[half], 1)[0]) if len(steps) > 1 else 0.0
        if lacking >= 0 and pace <= 0:
            return None
        if lacking >= 0:
            needed = max(needed, steps[-1] + lacking / pace)
    last = next(iter(race.curves[name].values())).steps[-1]
    return math.ceil(round(needed, 6)) if needed <= _FAR * last else None


# ---------------------------------------------------------------- in sentences


def too_short(results: Measurements, race: RaceResult, name: str) -> str:
    """The headline where nothing was learnt. `name`: the lowest."""
    needed = steps_to_learn(race, name)
    more = (
        "with a loss that hardly falls, if at all"
        if needed is None
        else f"where it takes about {_about(needed)}"
    )
    return f"Too short to tell: nothing learnt yet in {results.steps:,} steps, {more}"


def outlook(results: Measurements, arms: Arms) -> Iterator[str]:
    """Where nothing was learnt, how far the lowest is from it; elsewhere who has learnt nothing."""
    race = results.race
    name = lowest(race, arms) if race is not None else None
    if race is None or name is None:
        return
    if anything_learnt(race, arms):
        behind = [other for other in arms.by_name if race.curves[other] and not learnt(race, other)]
        if behind:
            yield f"Not with every seed below word frequencies and its own start: {arms.listed(behind)}."
        return
    needed, runs = steps_to_learn(race, name), race.curves[name]
    start = np.mean([run.losses[0] for run in runs.values()])
    above = [seed for seed, run in runs.items() if run.losses[-1] >= _bar(race, name, seed)]
    some = (
        f"; with {numbered('seed', above)} it ends above that or its start" if len(above) < len(runs) else ""
    )
    where = (
        f"The lowest, {arms.label(name)}, goes from {start:.3f} to {mean_loss(race, name):.3f} nats, where "
        f"word frequencies alone come to {spell(frequencies_alone(race))}{some}"
    )
    if needed is None:
        yield (
            f"{where}. In the second half of the runs it hardly falls, if at all: another learning rate "
            "(--set run.optimizer.learning_rate=X) may do more than more steps."
        )
    else:
        yield (
            f"{where}. At the pace of the second half of the runs it ends below that and its start after "
            f"about {_about(needed)} steps; to tell maskings apart takes several times as many (--budget)."
        )


def _about(steps: int) -> str:
    return f"{two_digits_up(steps):,}"


def two_digits_up(steps: int) -> int:
    """A number of steps with two digits, rounded up."""
    unit = 10 ** max(0, len(str(steps)) - 2)
    return math.ceil(steps / unit) * unit


def more_seeds(results: Measurements, arms: Arms) -> Iterator[str]:
    """How many seeds would tell what was seen, where nothing was told."""
    race = results.race
    if race is None or not anything_learnt(race, arms):
        return
    tested = {name: race.paired[name] for name in arms.candidates if race.paired[name].tested}
    if not tested or any(pair.better for pair in tested.values()):
        return
    name = max(tested, key=lambda name: abs(tested[name].mean or 0.0))
    seeds, difference = _seeds_for(tested[name]), Estimate.of(tested[name]).point(sign=True)
    number = f"about {seeds}" if seeds else f"more than {_MOST_SEEDS:,}"
    there = seeds is not None and seeds <= (tested[name].n or 0)
    takes = "be told by as many seeds in most races" if there else f"take {number} seeds to be told"
    alone = len(tested) == 1
    yield (
        f"The {'' if alone else 'largest '}difference seen, {difference} nats with {arms.label(name)}, "
        f"would {takes}, were it and the spread seen the true ones"
        f"{'' if alone else '; as the largest it is likely too large'}."
    )


def _seeds_for(pair: PairedResult) -> int | None:
    """The fewest seeds that find such a difference among as many tests; None for too many.

    The spread is the one that stands behind `detectable`.
    """
    assert pair.n and pair.mean is not None and pair.tests and pair.detectable
    alpha = ALPHA / pair.tests
    spread = pair.detectable / detectable_effect(pair.n, alpha)
    return pairs_to_detect(abs(pair.mean) / spread, alpha, most=_MOST_SEEDS)


def few_seeds(seeds: int) -> str | None:
    """What an interval over two seeds is worth."""
    if seeds != _FEW_SEEDS:
        return None
    widths = [float(stats.t.isf(ALPHA / 2, number - 1)) for number in (2, 3, 5)]
    return (
        "With 2 seeds an interval reaches {:.1f} standard errors either way (Student’s t with one degree of "
        "freedom), with 3 seeds {:.1f}, with 5 seeds {:.1f}: next to nothing can be told by two (--seeds 5)"
    ).format(*widths)


def with_few_seeds(results: Measurements) -> Iterator[str]:
    """The same of a race."""
    text = few_seeds(len(results.seeds)) if results.race is not None else None
    if text:
        yield f"{text}."

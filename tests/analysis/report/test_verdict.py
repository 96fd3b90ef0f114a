"""Verdicts of simulated races whose truth is known: false headlines, misses of intervals, power, controls.

Losses of a world: a seed's own level, shared by all arms, and noise of each run. Differences of runs have the
standard deviation 1 here, in which gains are given.
"""

import re

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.analysis.report.findings import race as findings
from fmlm_cli.analysis.report.findings.learning import learnt
from fmlm_cli.analysis.report.values import Arms
from fmlm_cli.analysis.results.comparison import RaceResult
from tests.analysis.report.races import START, UNIGRAM, by_seed, compared, measured, race_of, told

WORLDS, SEEDS = 2000, 3
FOUR = ["base", "one", "two", "three", "four"]
UNIT = 0.01  # nats in a standard deviation of a difference
Floats = npt.NDArray[np.float64]


def worlds(names: list[str], gains: Floats, *, seed: int, number: int = WORLDS, seeds: int = SEEDS) -> Floats:
    """Losses float[worlds, arms, seeds], in which arms gain so many units; far below word frequencies."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 3, (number, 1, seeds))
    noise = rng.normal(0, 1 / np.sqrt(2), (number, len(names), seeds))
    return 5.0 + UNIT * (level + noise - gains[:, None])


def raced(table: Floats, names: list[str]) -> RaceResult:
    return race_of(by_seed(table, names), evaluations=2, reach=False)


def arms_of(names: list[str]) -> Arms:
    return Arms.of(compared(raced(worlds(names, np.zeros(len(names)), seed=0, number=1)[0], names)))


def within(share: float, level: float, number: int = WORLDS) -> bool:
    """Whether a share seen in so many worlds may be that of an error of `level` at most."""
    return share <= level + 3 * np.sqrt(level * (1 - level) / number)


@pytest.mark.slow
@pytest.mark.parametrize("gain", [0.0, 1.0, 3.0])
def test_the_headlines_interval_holds_the_truth_of_whichever_arm_was_chosen(gain: float) -> None:
    arms, gains = arms_of(FOUR), np.array([0.0, *[gain] * 4])
    headlines, misses, plain_misses = 0, 0, 0
    for table in worlds(FOUR, gains, seed=int(gain)):
        race = raced(table, FOUR)
        best = findings.chosen(race, arms)
        if best is None:
            continue
        pair, truth = race.paired[best], -gain * UNIT
        assert pair.low is not None and pair.high is not None
        headlines += 1
        interval = findings.simultaneous(pair)
        misses += not interval.low <= truth <= interval.high
        plain_misses += not pair.low <= truth <= pair.high
    assert within(misses / WORLDS, 0.05), misses
    if gain == 0.0:
        assert within(headlines / WORLDS, 0.05), headlines  # false ones
        assert headlines > 0.005 * WORLDS
    else:  # the interval of the comparison alone does not: it is of the luckiest of four
        assert not within(plain_misses / WORLDS, 0.05), plain_misses


@pytest.mark.slow
def test_a_winner_among_equals_is_named_nearly_always() -> None:
    arms, named = arms_of(FOUR), 0
    for table in worlds(FOUR, np.array([0.0, 0.0, 0.0, 4.0, 0.0]), seed=5, number=500, seeds=5):
        named += findings.chosen(raced(table, FOUR), arms) == "three"
    assert named > 0.95 * 500


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [0.0, 2.0])
def test_the_lowest_two_are_a_pair_that_was_chosen(ahead: float) -> None:
    """Behind the lowest, the luckiest of seven comes second: the interval of the pair alone misses too often."""
    names = ["base", *(f"arm-{place}" for place in range(8))]
    arms, gains = arms_of(names), np.array([0.0, ahead, *[0.0] * 7])
    misses, plain_misses, false = 0, 0, 0
    for table in worlds(names, gains, seed=6, seeds=5):
        found = findings.two_lowest(raced(table, names), arms)
        assert found is not None
        first, second, pair, pairs = found
        truth = UNIT * (gains[names.index(second)] - gains[names.index(first)])
        low, high = pair.simultaneous(pairs)
        assert pairs == 28
        misses += not low <= truth <= high
        plain_misses += not pair.low <= truth <= pair.high
        false += truth >= 0 and pairs * pair.p_value <= 0.05
    assert within(misses / WORLDS, 0.05) and within(false / WORLDS, 0.05)
    if ahead:
        assert not within(plain_misses / WORLDS, 0.05), plain_misses


@pytest.mark.slow
def test_a_control_that_changes_nothing_has_an_honest_p() -> None:
    names = ["base", *(f"arm-{place}" for place in range(7)), "fresh"]
    arms, small = arms_of(names), 0
    for table in worlds(names, np.zeros(len(names)), seed=7):
        (text,) = findings.control(measured(raced(table, names)), arms)
        small += p_of(text) <= 0.05
    assert small / WORLDS == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / WORLDS))


def p_of(text: str) -> float:
    found = re.search(r", p (?:= |< )([\d.]+)\.", text)
    assert found is not None, text
    return float(found[1])


LOSS = st.sampled_from([4.9, 5.0, 5.1, UNIGRAM, UNIGRAM + 1, START, START + 1])


@given(st.lists(st.lists(LOSS, min_size=3, max_size=3), min_size=3, max_size=5))
def test_nothing_unlearnt_is_ever_headlined(table: list[list[float]]) -> None:
    names = FOUR[: len(table)]
    results = compared(raced(np.array(table), names))
    race, arms = results.race, Arms.of(results)
    assert race is not None
    ends = {name: max(losses) for name, losses in zip(names, table, strict=True)}
    best = findings.chosen(race, arms)
    assert best is None or ends[best] < UNIGRAM
    headline = results.verdict.headline
    assert ("nothing learnt yet" in headline) == (min(ends.values()) >= UNIGRAM)
    winner = re.match(r"(\w+) is better than", headline)
    assert (winner is None) == (best is None)


@pytest.mark.parametrize(("start", "end"), [(9.1, 6.2), (5.5, 5.6)])
def test_a_clear_difference_of_runs_that_learnt_nothing_is_no_headline(start: float, end: float) -> None:
    """Above word frequencies; below them, but above where the runs began."""
    rng = np.random.default_rng(0)
    losses = by_seed(end + 0.001 * rng.standard_normal((3, 5)) - 0.1 * np.arange(3)[:, None] / 10, FOUR[:3])
    race = race_of(losses, start=start)
    assert race.paired["two"].better == "two" and (race.paired["two"].simultaneous_high or 0) < 0
    results = compared(race)
    assert not learnt(race, "two")
    assert results.verdict.headline.startswith("Too short to tell: nothing learnt yet in 210 steps, w")
    text = told(results, "By held-out loss")
    assert "lower than base" in text and "better than" not in " ".join(results.verdict.sentences)
    assert "Before anything is learnt, a lower loss is no better masking." in text
    easier = race_of(losses, start=9.1, unigram=7.0)
    assert compared(easier).verdict.headline.startswith("two is better than base")

"""Strategies at the best of their other settings: chosen without the runs that judge them, and tested honestly."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.analysis.paired import spread_of
from fmlm_cli.analysis.results.comparison import BySeed, PointResult
from fmlm_cli.analysis.statistics import paired_difference
from fmlm_cli.analysis.sweep import Choice, best_of_each, choices_compared

tables = st.tuples(st.integers(1, 5), st.integers(2, 5)).flatmap(
    lambda size: st.lists(
        st.lists(st.floats(0, 9), min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0]
    )
)


@given(tables)
def test_a_seed_has_no_part_in_its_own_choice(values: list[list[float]]) -> None:
    losses = np.array(values)
    choice = Choice.of(losses)
    for seed in range(losses.shape[1]):
        row, others = choice.by_seed[seed], np.delete(losses, seed, axis=1).mean(axis=1)
        assert others[row] <= others.min() + 1e-9
        assert choice.held_out[seed] == losses[row, seed]
        changed = losses.copy()
        changed[:, seed] = 9 - losses[:, seed]
        if np.ptp(others) > 1e-6 and np.diff(np.sort(others))[0] > 1e-6:
            assert Choice.of(changed).by_seed[seed] == row
    assert choice.flattered.mean() <= losses.mean(axis=1).min() + 1e-9
    assert choice.flattered.mean() <= choice.held_out.mean() + 1e-9


def test_where_every_seed_chooses_alike_it_is_the_plain_paired_test() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((3, 4)) + np.array([[0.0], [50], [90]]) for _ in range(2))
    pair = choices_compared(Choice.of(first), Choice.of(second))
    assert pair == paired_difference(first[0].tolist(), second[0].tolist())


def test_the_interval_and_p_agree_on_nought() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        pair = choices_compared(*(Choice.of(rng.standard_normal((3, 3)) + s) for s in (0, 2)))
        assert (pair.p_value > 0.05) == (pair.low <= 0 <= pair.high)
        assert pair.low <= pair.mean <= pair.high


SEEDS = (2, 3, 5)
LANDSCAPES = {"flat": [0.0] * 4, "near": [0.0, 0.7, 1.3, 2.0], "clear": [0.0, 9.0, 18.0, 27.0]}


def world(rng: Any, means: Sequence[float], seeds: int) -> Any:
    """A strategy's losses, float64[settings, seeds], whose noise has standard deviation 1."""
    return rng.standard_normal((len(means), seeds)) + np.array(means)[:, None]


def null(means: Sequence[float], seeds: int, worlds: int) -> float:
    """The share of worlds with equal strategies in which they are told apart; the difference is unbiased."""
    rng, told, differences = np.random.default_rng(seeds), 0, []
    for _ in range(worlds):
        pair = choices_compared(*(Choice.of(world(rng, means, seeds)) for _ in range(2)))
        told += pair.p_value <= 0.05
        differences.append(pair.mean)
    assert np.mean(differences) == pytest.approx(0, abs=4 * np.std(differences) / np.sqrt(worlds))
    return told / worlds


def test_equal_strategies_are_seldom_told_apart() -> None:
    """Where settings are equal too the held-out t-test alone tells them apart in 0.13 of worlds."""
    assert null(LANDSCAPES["flat"], 5, 500) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("means", LANDSCAPES.values(), ids=LANDSCAPES)
def test_equal_strategies_are_told_apart_as_seldom_as_promised(means: list[float], seeds: int) -> None:
    told, worlds = null(means, seeds, 3_000), 3_000
    assert told < 0.05 + 3 * np.sqrt(0.05 * 0.95 / worlds)
    if means == LANDSCAPES["clear"]:
        assert told > 0.05 - 3 * np.sqrt(0.05 * 0.95 / worlds)


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_choice_on_the_same_seeds_is_flattered(seeds: int) -> None:
    """Against one setting that needs no choice, of the same true loss."""
    rng, worlds, held, naive = np.random.default_rng(seeds), 1_000, [], []
    for _ in range(worlds):
        many, one = Choice.of(world(rng, LANDSCAPES["flat"], seeds)), Choice.of(world(rng, [0.0], seeds))
        held.append(choices_compared(many, one).mean)
        naive.append((many.flattered - one.flattered).mean())
    assert np.mean(held) == pytest.approx(0, abs=4 * np.std(held) / np.sqrt(worlds))
    assert np.mean(naive) < -0.4  # standard deviations: 0.73, 0.59, 0.46 for 2, 3, 5 seeds


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_real_difference_is_found(seeds: int) -> None:
    rng, told = np.random.default_rng(seeds), 0
    for _ in range(300):
        better, worse = world(rng, [0.0, 1.0, 2.0], seeds), world(rng, [8.0, 9.0, 10.0], seeds)
        pair = choices_compared(Choice.of(better), Choice.of(worse))
        told += pair.p_value <= 0.05 and pair.high < 0
    assert told / 300 > 0.85


# ---------------------------------------------------------------- from points


def points_of(losses: dict[tuple[str, float], list[float | None]]) -> list[PointResult]:
    return [
        PointResult(
            name=f"{strategy},{rate}",
            settings={"strategy": strategy, "run.optimizer.learning_rate": rate},
            passes=7.0,
            **vars(spread_of(by_seed(values))),
            against=None,
            paired=None,
        )
        for (strategy, rate), values in losses.items()
    ]


def by_seed(values: list[float | None]) -> BySeed:
    return dict(enumerate(values, 5))


LOSSES: dict[tuple[str, float], list[float | None]] = {
    ("random", 0.1): [5.0, 5.1, 5.2],
    ("random", 0.2): [4.5, 4.61, 4.7],
    ("full", 0.1): [4.2, 4.3, 4.41],
    ("full", 0.2): [4.6, 4.2, 4.9],
    ("span", 0.1): [4.9, 4.9, None],
    ("span", 0.2): [None, None, None],
}


def test_each_strategy_by_hand() -> None:
    random, full, span = best_of_each(points_of(LOSSES), "random")
    assert (random.strategy, random.settings, random.otherwise, random.paired) == (
        "random",
        {"run.optimizer.learning_rate": 0.2},
        0,
        None,
    )
    assert full.settings == {"run.optimizer.learning_rate": 0.1}
    assert dict(full.values) == by_seed([4.2, 4.3, 4.41]) and full.otherwise == 0
    assert full.paired is not None and full.paired.mean == pytest.approx((4.2 + 4.3 + 4.41 - 13.81) / 3)
    assert (full.paired.tests, full.paired.better, full.paired.detectable) == (1, "full", None)
    assert (span.settings, span.mean, dict(span.values)) == (None, None, by_seed([None] * 3))
    assert span.paired is not None
    assert span.paired.note == "no settings with which every seed of span came to its end"


def test_settings_with_which_a_seed_diverged_are_no_choice() -> None:
    lowest_but_diverged = LOSSES | {("full", 0.1): [1.0, 1.0, None]}
    full = best_of_each(points_of(lowest_but_diverged), "random")[1]
    assert full.settings == {"run.optimizer.learning_rate": 0.2}


def test_what_no_seed_can_choose_or_nothing_varies_beside() -> None:
    one_seed = {key: values[:1] for key, values in LOSSES.items()}
    assert best_of_each(points_of(one_seed), "random") == ()
    one_rate = {key: values for key, values in LOSSES.items() if key[1] == 0.1}
    assert best_of_each(points_of(one_rate), "random") == ()
    assert best_of_each([], None) == ()


def test_without_random_and_with_random_diverged_it_says_so() -> None:
    notes = {best.paired.note for best in best_of_each(points_of(LOSSES), None) if best.paired}
    assert notes == {"no random masking in sweep.strategy"}
    lost = LOSSES | {("random", 0.1): [None] * 3, ("random", 0.2): [None] * 3}
    full = best_of_each(points_of(lost), "random")[1]
    assert full.paired is not None and full.mean is not None
    assert full.paired.note == "no settings with which every seed of random came to its end"


def test_the_strategies_are_corrected_together() -> None:
    both = {key: values for key, values in LOSSES.items() if key[0] != "span"}
    both |= {("span", rate): [4.3, 4.35, 4.6] for rate in (0.1, 0.2)}
    full, span = (best.paired for best in best_of_each(points_of(both), "random")[1:])
    assert full is not None and span is not None and full.p_value and span.p_value
    assert full.tests == span.tests == 2
    assert min(full.p_adjusted or 0, span.p_adjusted or 0) == pytest.approx(
        2 * min(full.p_value, span.p_value)
    )

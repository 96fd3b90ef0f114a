"""Arms against a baseline: candidates are judged together, a control alone, and what is no test says why."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.analysis.paired import Contest, pair_up, spread_of
from fmlm_cli.analysis.results.comparison import BySeed, CurveResult
from fmlm_cli.analysis.statistics import holm, paired_difference

CONTEST = Contest("base", frozenset({"control"}))
LOSSES = st.lists(st.integers(0, 9).map(lambda tenth: 4 + tenth / 10) | st.none(), min_size=3, max_size=3)
NAMES = ("one", "base", "two", "control", "three")
ARMS = st.tuples(*[LOSSES] * len(NAMES)).map(lambda losses: dict(zip(NAMES, losses, strict=True)))


def by_seed(values: list[float | None]) -> BySeed:
    return dict(enumerate(values))


@given(ARMS)
def test_candidates_are_tested_together_and_a_control_alone(losses: dict[str, list[float | None]]) -> None:
    values = {arm: by_seed(own) for arm, own in losses.items()}
    results = CONTEST.judge(CONTEST.pairs(values))
    assert list(results) == ["one", "two", "control", "three"]  # in the order given, without the baseline
    tested = {arm: pair for arm, pair in results.items() if pair.tested}
    candidates = [pair for arm, pair in tested.items() if arm != "control"]
    assert {pair.tests for pair in candidates} <= {len(candidates)}
    assert [pair.p_adjusted for pair in candidates] == holm(
        [pair.p_value or 0.0 for pair in candidates]
    ).tolist()
    if "control" in tested:
        assert tested["control"].tests == 1
        assert tested["control"].p_adjusted == tested["control"].p_value
    for pair in tested.values():  # Bonferroni's interval and Holm's first step say the same
        ends, first = (pair.simultaneous_low or 0.0, pair.simultaneous_high or 0.0), pair.tests or 0
        assert (ends[0] <= 0 <= ends[1]) == (first * (pair.p_value or 0.0) > 0.05)
        assert first > 1 or ends == pytest.approx((pair.low, pair.high))
    for arm, pair in results.items():
        assert pair.tested == (pair.note is None) == (pair.detectable is not None)
        assert pair.better in (None, arm if (pair.mean or 0) < 0 else "base")
        diverged = None in losses[arm] or None in losses["base"]
        assert (pair.n is None) == diverged == ("diverged" in (pair.note or ""))


@given(ARMS)
def test_where_more_is_better_the_other_one_wins(losses: dict[str, list[float | None]]) -> None:
    pairs = CONTEST.pairs({arm: by_seed(own) for arm, own in losses.items()})
    keyed = {("task", arm): pair for arm, pair in pairs.items()}
    less, more = CONTEST.judge(pairs), CONTEST.judge(keyed, lower_is_better=False)
    for arm, pair in less.items():
        winner = {None: None, arm: "base", "base": arm}[pair.better]
        assert more["task", arm].better == winner


def test_the_same_runs_are_no_test() -> None:
    same = CONTEST.judge({"one": pair_up({0: 4.0, 1: 4.5}, {0: 4.0, 1: 4.5})})["one"]
    assert (same.n, same.mean, same.sd, same.p_value) == (2, 0.0, 0.0, None)
    assert same.note == "the baseline's own result with every seed"
    shifted = CONTEST.judge({"one": pair_up({0: 4.25, 1: 4.75}, {0: 4.0, 1: 4.5})})["one"]
    assert (shifted.mean, shifted.note) == (0.25, "no spread to test by")


@given(LOSSES)
def test_a_spread_is_of_what_is_there(values: list[float | None]) -> None:
    spread, there = spread_of(by_seed(values)), [value for value in values if value is not None]
    assert dict(spread.values) == by_seed(values)
    assert spread.mean == (pytest.approx(np.mean(there)) if there else None)
    assert spread.sd == (pytest.approx(np.std(there, ddof=1)) if len(there) > 1 else None)


def falling(*losses: float) -> CurveResult:
    return CurveResult(tuple(range(len(losses))), tuple(100 * n for n in range(len(losses))), losses)


def test_tokens_to_a_loss_are_compared_as_ratios() -> None:
    base = {seed: falling(*np.linspace(5, 4 - seed / 10, 11)) for seed in (0, 1, 2)}
    fast = {seed: falling(*np.linspace(5, 3 - seed / 20, 11)) for seed in (0, 1, 2)}
    reached = CONTEST.tokens_to_reach({"base": base, "one": fast, "two": {}}, [0, 1, 2])
    assert list(reached) == ["one"]  # an arm without runs is none to compare
    reach = reached["one"]
    ratios = [(reach.values[seed] or 0) / (reach.baseline[seed] or 1) for seed in (0, 1, 2)]
    assert reach.ratio.value == pytest.approx(math.exp(np.log(ratios).mean()))
    logarithms = ([math.log(v) for v in own.values() if v] for own in (reach.values, reach.baseline))
    assert reach.ratio.low == pytest.approx(math.exp(paired_difference(*logarithms).low))
    assert reach.ratio.better == "one" and reach.ratio.n == 3


@given(st.tuples(*[st.floats(-0.5, 0.5)] * 3))
def test_other_held_out_rows_of_a_seed_change_no_ratio(shifts: tuple[float, ...]) -> None:
    """They shift its losses, in both arms alike."""

    def ratio(shifts: tuple[float, ...]) -> float | None:
        course = {"base": np.linspace(0, 1, 11), "one": 1.2 * np.linspace(0, 1, 11) ** 0.5}
        arms = {
            name: {s: falling(*(5 - (1 + s / 10) * down + shift)) for s, shift in enumerate(shifts)}
            for name, down in course.items()
        }
        return CONTEST.tokens_to_reach(arms, [0, 1, 2])["one"].ratio.value

    assert ratio(shifts) == pytest.approx(ratio((0.0, 0.0, 0.0)))


def test_a_target_that_not_every_seed_reaches_says_so() -> None:
    curves = {"base": {0: falling(5, 4), 1: falling(5, 4)}, "one": {0: falling(5, 3)}}
    reach = CONTEST.tokens_to_reach(curves, [0, 1], target=4.5)["one"]
    assert set(reach.targets.values()) == {4.5} and reach.values[1] is None
    assert (reach.ratio.value, reach.ratio.note) == (None, "diverged with seed 1")
    curves["one"][1] = falling(5, 4.8)
    assert CONTEST.tokens_to_reach(curves, [0, 1], target=4.5)["one"].ratio.note == "not every seed got there"

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.errors import UserError
from fmlm_cli.masking import (
    Corruption,
    Spans,
    get_strategy,
    nearest_segments,
    plugins,
    register_strategy,
    strategy_names,
    strategy_needs,
)
from fmlm_cli.masking.registry import BUILT_IN, at_rate
from fmlm_cli.masking.strategies import FullExploration, RandomExploration
from tests.masking.laws import COLLOCATIONS, alike, any_rows, quick, said_by, strategy_of

NAMES = list(BUILT_IN)
RANDOM = [name for name in NAMES if "fully" not in name]
FULL = [name for name in NAMES if "fully" in name]
each_name = pytest.mark.parametrize("name", NAMES)


def refusal(name: str, **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        strategy_of(name, **given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestNames:
    def test_are_the_grid_of_units_and_explorations(self) -> None:
        assert strategy_names()[:8] == NAMES
        assert RANDOM == ["random", "whole-word", "span", "pmi"]
        assert [f"fully-explored{unit}" for unit in ("", "-word", "-span", "-pmi")] == FULL
        for name in NAMES:
            strategy = strategy_of(name)
            assert strategy.name == name
            assert isinstance(strategy, FullExploration if name in FULL else RandomExploration)

    @pytest.mark.parametrize(
        ("wrong", "near"),
        [
            ("fuly-explored", "fully-explored"),
            ("Random", "random"),
            ("whole_word", "whole-word"),
            ("fully-explored-words", "fully-explored-word"),
            ("spans", "span"),
        ],
    )
    def test_an_unknown_one_gives_the_nearest_and_lists_all(self, wrong: str, near: str) -> None:
        message = refusal(wrong)
        assert f"unknown masking strategy '{wrong}': did you mean '{near}'?" in message
        assert all(name in message for name in NAMES)
        assert "package.module:object" in message

    def test_an_outlandish_one_has_no_nearest(self) -> None:
        assert refusal("xyzzy").startswith("unknown masking strategy 'xyzzy': known are random, ")


SAID = {  # segments, exploration, scope, needs, whether units join words; at 7 segments and no other settings
    "random": (7, "random", None, set(), False),
    "whole-word": (7, "random", None, {"word_starts"}, False),
    "span": (7, "random", None, {"word_starts"}, True),
    "pmi": (7, "random", None, {"word_starts", "collocations", "input_ids"}, True),
    "fully-explored": (7, "full", "epoch", set(), False),
    "fully-explored-word": (7, "full", "epoch", {"word_starts"}, False),
    "fully-explored-span": (7, "full", "epoch", {"word_starts"}, True),
    "fully-explored-pmi": (7, "full", "epoch", {"word_starts", "collocations", "input_ids"}, True),
}


class TestWhatTheySayOfThemselves:
    @each_name
    def test_in_full(self, name: str) -> None:
        assert said_by(strategy_of(name)) == SAID[name]
        assert strategy_needs(name) == SAID[name][3]  # before there is one

    @each_name
    @pytest.mark.parametrize("segments", [2, 3, 7, 49, 1000])
    def test_k_is_what_was_asked_for(self, name: str, segments: int) -> None:
        for scope in ("epoch", "batch") if name in FULL else (None,):
            strategy = strategy_of(name, segments=segments, scope=scope)
            assert (strategy.segments, strategy.scope) == (segments, scope)
            masks = segments if name in FULL else 1
            assert strategy.cycle * strategy.masks_per_sequence == masks

    @pytest.mark.parametrize("name", RANDOM)
    @quick
    @given(rate=st.floats(0.001, 0.999))
    def test_k_of_a_random_rate_is_the_nearest(self, name: str, rate: float) -> None:
        assert strategy_of(name, rate=rate).segments == nearest_segments(rate)

    @quick
    @given(st.integers(2, 100_000))
    def test_k_is_found_again_in_its_rate(self, segments: int) -> None:
        assert nearest_segments(1 / segments) == segments

    @pytest.mark.parametrize("name", NAMES)
    def test_what_is_needed_is_missed(self, name: str) -> None:
        """And nothing else is: masks of a view with what a strategy says that it needs, and of no smaller
        one."""
        rows = alike([2, 1, 2, 2, 1], 2).view
        every, needs = {"word_starts", "input_ids"}, set(strategy_needs(name)) - {"collocations"}
        strategy = strategy_of(name)
        strategy.masks(replace(rows, **dict.fromkeys(every - needs)))
        for need in needs:
            with pytest.raises(UserError, match=r"word starts|input_ids"):
                strategy.masks(replace(rows, **{need: None}))

    def test_an_unknown_name_needs_nothing(self) -> None:
        assert strategy_needs("radnom") == strategy_needs("no_such_module_at_all:X") == frozenset()


class TestRate:
    @each_name
    def test_is_a_seventh_unless_asked(self, name: str) -> None:
        strategy = strategy_of(name)
        assert (strategy.rate, strategy.masks_per_sequence) == (1 / 7, 1)
        assert strategy.cycle == (7 if name in FULL else 1)
        assert strategy.corruption == Corruption(0.8, 0.1, 0.1, "stratified")

    @each_name
    @pytest.mark.parametrize("segments", [2, 3, 7, 49, 1000])
    def test_segments_and_rate_give_each_other(self, name: str, segments: int) -> None:
        strategy = strategy_of(name, segments=segments)
        assert strategy.rate == 1 / segments
        assert strategy_of(name, rate=1 / segments) == strategy
        assert strategy_of(name, rate=1 / segments, segments=segments) == strategy
        assert getattr(strategy, "segments", segments) == segments

    def test_near_one_over_k(self) -> None:
        assert get_strategy("fully-explored", rate=0.15).rate == 1 / 7
        assert get_strategy("fully-explored", rate=0.15, segments=7).rate == 1 / 7
        assert get_strategy("random", rate=0.15).rate == 0.15

    @quick
    @given(st.floats(1e-4, 1, exclude_max=True))
    def test_nearest_segments_by_trying_all(self, rate: float) -> None:
        assert nearest_segments(rate) >= 2
        assert abs(1 / nearest_segments(rate) - rate) == min(abs(1 / k - rate) for k in range(2, 10_002))

    @pytest.mark.parametrize("name", FULL)
    @pytest.mark.parametrize(
        ("rate", "segments"), [(0.8, 2), (0.9999, 2), (0.4, 3), (0.6, 2), (0.56, 2), (0.29, 4)]
    )
    def test_full_exploration_refuses_what_is_far_from_one_over_k(
        self, name: str, rate: float, segments: int
    ) -> None:
        message = refusal(name, rate=rate)
        assert message.startswith(f"masking.rate {rate:g} is impossible here")
        assert f"the nearest is {1 / segments:.4g}, with masking.segments {segments}" in message

    @each_name
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"rate": 0.0}, "masking.rate must lie between 0 and 1, not 0"),
            ({"rate": 1.0}, "masking.rate must lie between 0 and 1, not 1"),
            ({"rate": -0.1}, "masking.rate must lie between 0 and 1, not -0.1"),
            ({"rate": float("nan")}, "masking.rate must lie between 0 and 1, not nan"),
            ({"rate": float("inf")}, "masking.rate must lie between 0 and 1, not inf"),
            ({"segments": 1}, "masking.segments must be at least 2, not 1"),
            ({"segments": 0}, "masking.segments must be at least 2, not 0"),
            ({"segments": -7, "rate": 0.5}, "masking.segments must be at least 2, not -7"),
            ({"rate": 0.15, "segments": 6}, "contradict each other"),
            ({"rate": 0.5, "segments": 7}, "contradict each other"),
            ({"masks_per_sequence": 0}, "masking.masks_per_sequence must be at least 1, not 0"),
        ],
    )
    def test_impossible_ones_are_refused(self, name: str, given: dict[str, Any], message: str) -> None:
        assert message in refusal(name, **given)

    @pytest.mark.parametrize(("rate", "segments"), [(0.8, 2), (0.95, 2), (0.4, 3)])
    def test_random_masks_of_a_rate_far_from_one_over_segments_contradict_them(
        self, rate: float, segments: int
    ) -> None:
        assert "contradict" in refusal("random", rate=rate, segments=segments)

    def test_a_contradiction_says_what_each_would_be(self) -> None:
        message = refusal("random", rate=0.15, segments=6)
        assert "masking.rate 0.15 and masking.segments 6" in message
        assert "rate 0.1667 or segments 7" in message

    @pytest.mark.parametrize("rate", [1e-5, 1e-6, 1e-300, 5e-324])
    def test_the_smallest_masks_hardly_anything(self, rate: float) -> None:
        for name in RANDOM:
            with contextlib.suppress(UserError):  # or is refused
                masks = alike([2] * 20, 5, ids=[9] * 20).masks(strategy_of(name, rate=rate))
                assert masks.sum() <= 1

    @pytest.mark.parametrize("rate", [0.9999, 0.99999, 0.999999, 1 - 2**-53])
    @pytest.mark.parametrize("count", ["exact", "bernoulli"])
    def test_the_largest_masks_nearly_all(self, rate: float, count: Any) -> None:
        for name in RANDOM:
            with contextlib.suppress(UserError):  # or is refused
                masks = alike([2] * 20, 5, ids=[9] * 20).masks(strategy_of(name, rate=rate, count=count))
                assert masks.sum() >= 80

    @quick
    @given(any_rows(), st.sampled_from(NAMES), st.integers(2, 9), st.floats(0.02, 0.98))
    def test_at_rate_is_the_same_strategy_at_another(
        self, rows: Any, name: str, segments: int, rate: float
    ) -> None:
        its_own: dict[str, Any] = (
            {"scope": "batch"} if name in FULL else {"masks_per_sequence": 2, "count": "bernoulli"}
        )
        its_own |= {"p": 0.4, "longest": 3} if "span" in name else {}
        its_own |= {"corruption": Corruption(0.5, 0.25, 0.25)}
        before = strategy_of(name, segments=segments, **its_own)
        expected = 1 / nearest_segments(rate) if name in FULL else rate
        changed, asked = at_rate(before, rate), strategy_of(name, rate=expected, **its_own)
        assert changed == asked
        assert changed.rate == expected
        assert np.array_equal(rows.masks(changed, 3, 5), rows.masks(asked, 3, 5))
        assert at_rate(changed, before.rate) == before

    def test_at_rate_has_as_many_masks_in_a_step_as_segments(self) -> None:
        given = get_strategy("fully-explored", segments=5, scope="batch", masks_per_sequence=5)
        assert at_rate(given, 0.24).masks_per_sequence == 4


class TestSettings:
    @pytest.mark.parametrize("name", FULL)
    def test_scope_batch_has_all_segments_in_one_step(self, name: str) -> None:
        batch = strategy_of(name, segments=5, scope="batch")
        assert (batch.masks_per_sequence, batch.cycle) == (5, 1)
        epoch = strategy_of(name, segments=5, scope="epoch", masks_per_sequence=1)
        assert (epoch.masks_per_sequence, epoch.cycle) == (1, 5)
        rows = alike([2] * 9, 3, ids=[9] * 9)
        same = strategy_of(name, segments=5, scope="batch", masks_per_sequence=5)
        assert np.array_equal(rows.masks(same, 2), rows.masks(batch, 2))
        assert np.array_equal(
            rows.masks(strategy_of(name), 2), rows.masks(strategy_of(name, scope="epoch"), 2)
        )

    @pytest.mark.parametrize("name", FULL)
    @pytest.mark.parametrize(("scope", "number"), [(None, 2), ("batch", 2), ("batch", 1), ("epoch", 7)])
    def test_masks_per_sequence_that_does_not_fit(self, name: str, scope: Any, number: int) -> None:
        assert f"masking.masks_per_sequence {number} does not fit {name}" in refusal(
            name, scope=scope, masks_per_sequence=number
        )

    @pytest.mark.parametrize("name", RANDOM)
    def test_scope_is_refused_for_random_masks(self, name: str) -> None:
        message = refusal(name, scope="batch")
        assert f"masking.scope batch does not go with {name}" in message
        assert "masking.masks_per_sequence" in message
        assert f"masking.scope epoch does not go with {name}: leave it out" in refusal(name, scope="epoch")

    @pytest.mark.parametrize("name", FULL)
    def test_bernoulli_is_refused_for_full_exploration(self, name: str) -> None:
        assert f"masking.count bernoulli does not go with {name}" in refusal(name, count="bernoulli")
        assert strategy_of(name, count="exact") == strategy_of(name)

    @each_name
    def test_unknown_values_give_the_nearest(self, name: str) -> None:
        assert "unknown masking.count 'bernouli': did you mean 'bernoulli'?" in refusal(
            name, count="bernouli"
        )
        assert "unknown masking.scope 'epochs': did you mean 'epoch'?" in refusal(name, scope="epochs")

    @pytest.mark.parametrize("name", ["pmi", "fully-explored-pmi"])
    def test_pmi_needs_collocations(self, name: str) -> None:
        message = refusal(name, collocations=None)
        assert f"masking {name} needs the store's collocations" in message
        assert "fmlm tokenize --pmi" in message
        assert strategy_of(name).unit is COLLOCATIONS  # type: ignore[attr-defined]

    @pytest.mark.parametrize("name", ["span", "fully-explored-span"])
    def test_options_of_spans(self, name: str) -> None:
        assert strategy_of(name).unit == Spans(0.2, 10)  # type: ignore[attr-defined]
        assert strategy_of(name, p=0.5, longest=3).unit == Spans(0.5, 3)  # type: ignore[attr-defined]
        message = refusal(name, longst=3)
        assert (
            f"unknown option of masking {name} 'longst': did you mean 'longest'? known are p, longest"
            in message
        )
        assert "masking.options.p must be a number between 0 and 1, not 2" in refusal(name, p=2)
        assert "masking.options.longest must be a whole number" in refusal(name, longest=0)

    @pytest.mark.parametrize("name", [name for name in NAMES if "span" not in name])
    def test_options_are_refused_where_there_are_none(self, name: str) -> None:
        assert f"masking {name} has no options: leave out masking.options.p" in refusal(name, p=0.2)

    @each_name
    def test_description_says_what_is_masked(self, name: str) -> None:
        words = strategy_of(name, segments=5).description
        assert words.startswith(name)
        assert "20.0%" in words
        if name in FULL:
            assert "one in each pass" in words
            assert "all in one step" in strategy_of(name, scope="batch").description
        else:
            assert "3 masks of a sequence" in strategy_of(name, masks_per_sequence=3).description
            assert "each unit drawn by itself" in strategy_of(name, count="bernoulli").description
            assert "each unit" not in words


def test_the_programs_own_names_cannot_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "registered", {})
    for name in NAMES:
        before = strategy_of(name)
        with contextlib.suppress(UserError):  # whether it is refused or has no effect
            register_strategy(name)(lambda settings: strategy_of("random"))
        assert strategy_of(name) == before
    assert strategy_names()[:8] == NAMES
    assert len(set(strategy_names())) == len(strategy_names())

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fmlm_cli.errors import UserError
from fmlm_cli.masking import Collocations, RowView, Spans, Tokens, Words
from fmlm_cli.masking.units import at_all_tokens, run_starts, unit_sizes
from tests.masking.laws import (
    COLLOCATIONS,
    GRAMS,
    UNLIKELY,
    Rows,
    alike,
    any_rows,
    any_seed,
    collocations_of,
    keys_of,
    p_independent,
    p_of,
    quick,
    units_in,
    words_of,
)

tokens, words = Tokens(), Words()
SPANBERT = [0.2 * 0.8**i / (1 - 0.8**10) for i in range(10)]


def starts_of(unit: Any, rows: Rows, seed: int = 0) -> np.ndarray:
    return unit(rows.view, keys_of(len(rows), seed))


def lengths_in_words(rows: Rows, starts: np.ndarray) -> list[list[int]]:
    """How many words each unit of each row has."""
    each = zip(units_in(rows.maskable, starts), units_in(rows.maskable, rows.word_starts), strict=True)
    return [
        [sum(set(word) <= set(unit) for word in its_words) for unit in its_units]
        for its_units, its_words in each
    ]


class TestWordsAndTokens:
    @quick
    @given(any_rows())
    def test_units_are_those_of_a_plain_loop(self, rows: Rows) -> None:
        found = units_in(rows.maskable, starts_of(words, rows))
        assert found == units_in(rows.maskable, rows.word_starts)
        alone = units_in(rows.maskable, starts_of(tokens, rows))
        assert alone == [[[column] for column in np.flatnonzero(row)] for row in rows.maskable]

    @quick
    @given(any_rows())
    def test_only_maskable_positions_begin_a_unit_and_every_run_begins_with_one(self, rows: Rows) -> None:
        before = np.pad(rows.maskable, ((0, 0), (1, 0)))[:, :-1]
        assert np.array_equal(run_starts(rows.maskable), rows.maskable & ~before)
        for unit in (tokens, words, Spans(), COLLOCATIONS):
            starts = starts_of(unit, rows)
            assert starts.dtype == np.bool_
            assert starts.shape == rows.maskable.shape
            assert not (starts & ~rows.maskable).any()
            assert starts[rows.maskable & ~before].all()

    def test_a_word_ends_at_what_is_not_maskable(self) -> None:
        rows = alike([1, 1, 2, 0, 1, 1, 0, 0, 2, 2, 1, 1], 1)
        assert units_in(rows.maskable, starts_of(words, rows)) == [[[0, 1], [2], [4, 5], [8], [9, 10, 11]]]

    def test_words_without_word_starts_are_refused(self) -> None:
        view = RowView(np.ones((2, 3), bool), None, np.arange(2), np.zeros((2, 3), np.int64))
        for unit in (words, Spans(), COLLOCATIONS):
            with pytest.raises(UserError, match=r"needs word starts.*fmlm tokenize"):
                unit(view, keys_of(2))

    @quick
    @given(any_rows())
    def test_sizes_and_what_units_have_reach_all_their_tokens(self, rows: Rows) -> None:
        starts = starts_of(words, rows)
        sizes = unit_sizes(rows.maskable, starts).reshape(starts.shape)
        values = np.arange(starts.size).reshape(starts.shape)
        spread = at_all_tokens(values, rows.maskable, starts)
        expected = np.zeros(starts.shape, np.int64)
        for row, units in enumerate(units_in(rows.maskable, starts)):
            for unit in units:
                expected[row, unit[0]] = len(unit)
                assert set(spread[row, unit].tolist()) == {values[row, unit[0]]}
        assert np.array_equal(sizes, expected)


class TestSpans:
    @quick
    @given(any_rows(), st.integers(1, 12), st.floats(0.01, 0.99), any_seed)
    def test_are_whole_words_of_one_run_and_no_longer_than_asked(
        self, rows: Rows, longest: int, p: float, seed: int
    ) -> None:
        starts = starts_of(Spans(p, longest), rows, seed)
        assert not (starts & ~starts_of(words, rows)).any()
        for lengths in lengths_in_words(rows, starts):
            assert max(lengths, default=0) <= longest

    @quick
    @given(any_rows(), st.floats(0.01, 0.99))
    def test_of_at_most_one_word_are_words(self, rows: Rows, p: float) -> None:
        assert np.array_equal(starts_of(Spans(p, 1), rows), starts_of(words, rows))

    @pytest.mark.parametrize(("p", "longest"), [(0.2, 10), (0.5, 4), (0.05, 30)])
    def test_lengths_are_geometric_and_cut_off(self, p: float, longest: int) -> None:
        number = 150
        rows = alike(words_of([2, 1, 3] * (number // 3)), 1000)
        starts = starts_of(Spans(p, longest), rows)
        full: list[int] = []
        for lengths in lengths_in_words_of_one(starts[:, rows.word_starts[0]]):
            begins = np.cumsum(lengths) - lengths
            full += lengths[begins <= number - longest].tolist()  # nothing cuts those short
        law = stats.geom(p)
        assert p_of(full, {n: law.pmf(n) / law.cdf(longest) for n in range(1, longest + 1)}) > UNLIKELY
        assert len(full) > 8_000

    def test_mean_is_that_of_spanbert(self) -> None:
        mean = sum(length * p for length, p in enumerate(SPANBERT, 1))
        assert mean == pytest.approx(3.797, abs=0.001)
        variance = sum((length - mean) ** 2 * p for length, p in enumerate(SPANBERT, 1))
        starts = starts_of(Spans(), alike([2] * 10, 50_000))
        first = np.array([each[0] for each in lengths_in_words_of_one(starts)])
        assert abs(first.mean() - mean) < 3.3 * (variance / len(first)) ** 0.5

    @pytest.mark.parametrize("run", [2, 3, 5])
    def test_a_run_is_cut_into_spans_of_which_the_last_has_what_is_left(self, run: int) -> None:
        rows = alike([0, *words_of([1, 2, 1, 3, 1][:run]), 0, 0, 2, 2, 2], 20_000)
        starts = starts_of(Spans(), rows)
        law: dict[tuple[int, ...], float] = {}
        for lengths in itertools.chain.from_iterable(
            itertools.product(range(1, run + 1), repeat=k) for k in range(1, run + 1)
        ):
            if sum(lengths) == run:
                whole = np.prod([SPANBERT[length - 1] for length in lengths[:-1]])
                law[lengths] = whole * sum(SPANBERT[lengths[-1] - 1 :])
        begin = [
            column for column in np.flatnonzero(rows.word_starts[0]) if column < rows.maskable.shape[1] - 3
        ]
        first = [tuple(each.tolist()) for each in lengths_in_words_of_one(starts[:, begin])]
        second = [tuple(each.tolist()) for each in lengths_in_words_of_one(starts[:, -3:])]
        assert p_of(first, law) > UNLIKELY
        assert p_independent([each[0] for each in first], [each[0] for each in second]) > UNLIKELY

    def test_lengths_are_independent_within_a_run_between_rows_and_between_keys(self) -> None:
        rows = alike([2] * 40, 8000)
        first, other = (starts_of(Spans(), rows, seed) for seed in (0, 1))
        one, two = ([each[:3] for each in lengths_in_words_of_one(starts)] for starts in (first, other))
        for a, b in itertools.combinations(range(3), 2):
            assert p_independent([each[a] for each in one], [each[b] for each in one]) > UNLIKELY
        assert p_independent([each[0] for each in one], [each[0] for each in two]) > UNLIKELY
        assert p_independent([each[0] for each in one[:-1]], [each[0] for each in one[1:]]) > UNLIKELY

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            *(({"p": p}, "p") for p in (0, 1, 0.0, 1.0, -0.1, 1.5, float("nan"), "0.2", None)),
            *(({"longest": longest}, "longest") for longest in (0, -3, 256, 2.5, "3", None)),
        ],
    )
    def test_bad_options_are_refused(self, options: dict[str, Any], named: str) -> None:
        with pytest.raises(
            UserError, match=rf"^masking\.options\.{named} must be a .*, not {options[named]}$"
        ):
            Spans(**options)


def lengths_in_words_of_one(starts: np.ndarray) -> list[np.ndarray]:
    """Lengths of all units of rows that are one run, from where units begin among their words: bool[rows,
    words]."""
    return [np.diff(np.append(np.flatnonzero(row), starts.shape[1])) for row in starts]


def stretches(rows: Rows, row: int, grams: Iterable[tuple[int, ...]]) -> list[list[int]]:
    """Collocations of a row that no other one contains, as lists of the numbers of their words, by plain
    loops."""
    its_words = units_in(rows.maskable, rows.word_starts)[row]
    found = []
    for first in range(len(its_words)):
        for last in range(first + 1, min(first + 5, len(its_words))):
            columns = [column for word in its_words[first : last + 1] for column in word]
            in_one_run = columns[-1] - columns[0] == len(columns) - 1
            if in_one_run and tuple(rows.input_ids[row, columns].tolist()) in set(grams):
                found.append(list(range(first, last + 1)))
    return [inner for inner in found if not any(set(inner) < set(outer) for outer in found)]


class TestCollocations:
    @pytest.mark.parametrize("n", [2, 3, 4, 5])
    def test_never_overlap_however_far_apart_they_begin(self, n: int) -> None:
        """A word said over and over: a collocation begins at every word, and each overlaps the n - 1 that
        follow."""
        rows = alike(words_of([1] * 40), 300, ids=[0] * 40)
        starts = collocations_of([[0] * n])(rows.view, keys_of(300))
        lengths = [length for each in lengths_in_words(rows, starts) for length in each]
        assert set(lengths) == {1, n}
        for each in lengths_in_words(rows, starts):  # and none that would have fitted is left out
            runs = "".join("1" if length == 1 else " " for length in each).split()
            assert max(map(len, runs), default=0) < n

    @quick
    @given(any_rows(), any_seed)
    def test_are_a_largest_choice_of_those_found_by_a_plain_loop(self, rows: Rows, seed: int) -> None:
        starts = starts_of(COLLOCATIONS, rows, seed)
        assert not (starts & ~starts_of(words, rows)).any()
        for row, lengths in enumerate(lengths_in_words(rows, starts)):
            ends = np.cumsum(lengths).tolist()
            chosen = [list(range(end - n, end)) for end, n in zip(ends, lengths, strict=True) if n > 1]
            possible = stretches(rows, row, GRAMS)
            assert all(each in possible for each in chosen)
            taken = {word for each in chosen for word in each}
            assert all(taken & set(each) for each in possible), "one more would have fitted"

    def test_the_largest_counts_as_one(self) -> None:
        unit = collocations_of([(7, 8), (8, 9), (7, 8, 9), (7, 8, 9, 10, 11)])
        rows = alike([2] * 8, 200, ids=[6, 7, 8, 9, 10, 11, 7, 8])
        assert (starts_of(unit, rows) == [True, True, False, False, False, False, True, False]).all()
        rows = alike([2] * 8, 200, ids=[6, 7, 8, 9, 10, 12, 8, 9])
        assert (starts_of(unit, rows) == [True, True, False, False, True, True, True, False]).all()

    def test_of_two_that_overlap_each_is_as_likely(self) -> None:
        unit = collocations_of([(1, 2, 3), (3, 4)])
        drawn = [tuple(each) for each in starts_of(unit, alike([2] * 5, 4000, ids=[9, 1, 2, 3, 4])).tolist()]
        first, second = (True, True, False, False, True), (True, True, True, True, False)
        assert p_of(drawn, {first: 0.5, second: 0.5}) > UNLIKELY

    def test_of_a_chain_the_middle_is_chosen_in_one_case_of_three(self) -> None:
        unit = collocations_of([(1, 2), (2, 3), (3, 4)])
        drawn = [tuple(each) for each in starts_of(unit, alike([2] * 4, 4000, ids=[1, 2, 3, 4])).tolist()]
        assert p_of(drawn, {(True, False, True, False): 2 / 3, (True, True, False, True): 1 / 3}) > UNLIKELY

    def test_choices_in_different_places_and_rows_are_independent(self) -> None:
        unit = collocations_of([(1, 2), (2, 3)])
        starts = starts_of(unit, alike([2] * 7, 4000, ids=[1, 2, 3, 9, 1, 2, 3]))
        assert p_independent(starts[:, 1], starts[:, 5]) > UNLIKELY
        assert p_independent(starts[:-1, 1], starts[1:, 1]) > UNLIKELY

    def test_words_of_several_tokens(self) -> None:
        unit = collocations_of([(1, 2, 3), (4, 5)])
        ids = [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]
        rows = alike([2, 1, 2, 2, 2, 2, 1, 1, 2, 1], 1, ids=ids)  # the second time, they are single words
        assert units_in(rows.maskable, starts_of(unit, rows)) == [[[0, 1, 2], [3, 4], [5, 6, 7], [8, 9]]]
        assert starts_of(unit, rows).sum() == 4
        rows = alike([2, 1, 1, 1, 2, 2, 2, 2, 2, 1], 1, ids=ids)  # words across the collocations' ends
        assert lengths_in_words(rows, starts_of(unit, rows)) == [[1, 1, 3, 1]]

    @pytest.mark.parametrize("gap", range(1, 4))
    def test_do_not_cross_what_is_not_maskable(self, gap: int) -> None:
        unit = collocations_of([(1, 2, 3, 4)])
        pattern = [2] * 4
        assert starts_of(unit, alike(pattern, 1, ids=[1, 2, 3, 4])).sum() == 1
        pattern[gap] = 0
        assert starts_of(unit, alike(pattern, 1, ids=[1, 2, 3, 4])).sum() == 3
        pattern.insert(gap, 0)  # nor skip it
        pattern[gap + 1] = 2
        ids = [1, 2, 3, 4]
        ids.insert(gap, 0)
        assert starts_of(unit, alike(pattern, 1, ids=ids)).sum() == 4

    def test_do_not_reach_into_the_next_row(self) -> None:
        unit = collocations_of([(1, 2), (2, 1)])
        assert starts_of(unit, alike([2, 2, 2], 50, ids=[2, 7, 1])).all()

    @pytest.mark.parametrize(("number", "found"), [(1, False), (2, True), (5, True), (6, False)])
    def test_have_two_to_five_words(self, number: int, found: bool) -> None:
        ids = list(range(10, 10 + number))
        starts = starts_of(collocations_of([ids]), alike([2] * number, 1, ids=ids))
        assert starts.sum() == (1 if found else number)

    def test_none_at_all(self) -> None:
        rows = alike([2, 2, 1, 0, 2], 3, ids=[0, 1, 2, 3, 0])
        assert np.array_equal(starts_of(Collocations(np.empty(0, np.uint64)), rows), starts_of(words, rows))

    def test_nothing_else_is_taken_for_one(self) -> None:
        rng = np.random.default_rng(0)
        ids = rng.integers(0, 30_000, (1000, 128))
        rows = Rows(np.ones(ids.shape, bool), np.ones(ids.shape, bool), ids, np.arange(1000))
        unit = collocations_of(map(tuple, rng.integers(30_000, 60_000, (20_000, 3)).tolist()))
        assert starts_of(unit, rows).all()

    @quick
    @given(
        st.sets(st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**40, 2**64 - 1])),
        st.lists(st.integers(0, 2**64 - 1)),
    )
    def test_contains(self, known: set[int], others: list[int]) -> None:
        unit = Collocations(np.array(sorted(known), np.uint64))
        asked = [*others, *known, *(h ^ 1 for h in known), 0, 2**64 - 1]
        assert unit.contains(np.array(asked, np.uint64)).tolist() == [h in known for h in asked]

    def test_without_input_ids_is_refused(self) -> None:
        view = replace(alike([2, 2], 1).view, input_ids=None)
        with pytest.raises(UserError, match="give it input_ids"):
            COLLOCATIONS(view, keys_of(1))


@quick
@given(any_rows(least=1), any_seed, st.randoms(use_true_random=False))
def test_a_rows_units_depend_on_its_key_alone(rows: Rows, seed: int, random: Any) -> None:
    order = [random.randrange(len(rows)) for _ in range(random.randint(1, 6))]
    key = keys_of(len(rows), seed)
    for unit in (tokens, words, Spans(), COLLOCATIONS):
        whole, backwards = unit(rows.view, key), slice(None, None, -1)
        assert np.array_equal(unit(rows.of(order).view, key[order]), whole[order])
        assert np.array_equal(unit(rows.of(backwards).view, key[backwards]), whole[backwards])

"""The building blocks, against full enumeration of what they may yield."""

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fmlm_cli.masking.exploration import Circle, as_fraction, independent, shuffled
from fmlm_cli.masking.units import Tokens, Words
from tests.masking.laws import (
    UNLIKELY,
    Rows,
    alike,
    any_rows,
    any_seed,
    by_first_column,
    check_sizes,
    check_whole,
    keys_of,
    p_alike,
    p_independent,
    p_of,
    quick,
    units_in,
    where,
    window_law,
    words_of,
)

tokens, words = Tokens(), Words()
KINDS = {"tokens": tokens, "words": words}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
shares = st.fractions(Fraction(1, 100), Fraction(99, 100), max_denominator=1000)
PATTERNS = {
    "tokens": [2] * 5,
    "tokens and gaps": [0, 2, 1, 0, 0, 2, 1, 0, 0],
    "words": words_of([3, 1, 2]),
    "words and gaps": [0, 2, 1, 1, 0, 0, 1, 2, 0, 1, 1, 1],
    "one long word": words_of([1, 6, 1, 2]),
    "two words": [1, 1, 1, 0, 1],
    "one": [0, 1, 0],
}


def circle_of(kind: Any, rows: Rows, seed: int = 0) -> tuple[Circle, np.ndarray]:
    starts = kind(rows.view, keys_of(len(rows)))
    return Circle.of(rows.maskable, starts, keys_of(len(rows), seed)), starts


def windows(kind: Any, pattern: list[int], rows: int, share: Fraction, number: int = 1, **given: Any) -> Any:
    """Many draws of windows over units in one row: bool[rows, windows, length]."""
    return circle_of(kind, alike(pattern, rows))[0].windows(share, number, **given)


class TestShuffled:
    @quick
    @given(any_rows(), any_seed)
    def test_holds_the_starts_and_then_the_rest_of_each_row(self, rows: Rows, seed: int) -> None:
        length = rows.maskable.shape[1]
        order = shuffled(rows.maskable, keys_of(len(rows), seed)) - length * np.arange(len(rows))[:, None]
        for row, columns in zip(rows.maskable, order.tolist(), strict=True):
            number = int(row.sum())
            assert sorted(columns[:number]) == list(where(row))
            assert sorted(columns) == list(range(length))

    @pytest.mark.parametrize("pattern", [[1, 1, 1, 1], [0, 1, 1, 0, 0, 1, 1, 0, 0], [1] * 3, [1] * 5])
    def test_every_order_is_equally_likely(self, pattern: list[int]) -> None:
        n = sum(pattern)
        order = shuffled(np.tile(np.array(pattern, bool), (4800, 1)), keys_of(4800)) % len(pattern)
        assert p_alike(map(tuple, order[:, :n].tolist()), itertools.permutations(where(pattern))) > UNLIKELY

    def test_orders_of_different_rows_are_independent(self) -> None:
        order = shuffled(np.ones((8000, 3), bool), keys_of(8000)) % 3
        assert p_independent(order[:-1], order[1:]) > UNLIKELY
        assert p_independent(order[:4000], order[4000:]) > UNLIKELY


class TestPartition:
    """One circle cut into K windows."""

    @quick
    @given(any_rows(), st.integers(2, 60), st.sampled_from(list(KINDS)), st.integers(0, 1000), any_seed)
    def test_each_unit_is_in_one_window_as_a_whole_and_sizes_are_even(
        self, rows: Rows, segments: int, kind: str, first: int, seed: int
    ) -> None:
        circle, starts = circle_of(KINDS[kind], rows, seed)
        masks, units = circle.windows(Fraction(1, segments), segments, first), units_in(rows.maskable, starts)
        assert masks.shape == (len(rows), segments, rows.maskable.shape[1])
        assert np.array_equal(masks.sum(axis=1), rows.maskable.astype(int))
        check_sizes(masks, units, 1 / segments)
        for segment in range(segments):
            check_whole(masks[:, segment], units)
        if kind == "tokens":
            sizes = masks.sum(axis=2)
            assert (sizes.max(axis=1, initial=0) - sizes.min(axis=1, initial=99) <= 1).all()

    @quick
    @given(any_rows(), st.integers(2, 20), st.integers(0, 50), any_seed)
    def test_windows_are_counted_on_around_the_circle(
        self, rows: Rows, segments: int, first: int, seed: int
    ) -> None:
        circle, _ = circle_of(words, rows, seed)
        share = Fraction(1, segments)
        together = circle.windows(share, segments)
        alone = circle.windows(share, first=first)
        assert np.array_equal(alone[:, 0], together[:, first % segments])
        turns = np.arange(len(rows)) + first
        assert np.array_equal(
            circle.windows(share, first=turns)[:, 0], together[np.arange(len(rows)), turns % segments]
        )

    @pytest.mark.parametrize(
        ("n", "segments"), [(4, 2), (5, 2), (5, 3), (2, 3), (1, 4), (6, 4), (5, 4), (3, 6)]
    )
    def test_every_even_partition_of_tokens_is_equally_likely(self, n: int, segments: int) -> None:
        """Even: any m neighbours of the K segments, in a ring, hold m n / K tokens, rounded down or up."""

        def even(labels: tuple[int, ...]) -> bool:
            sizes = [labels.count(s) for s in range(segments)] * 2
            arcs = itertools.product(range(segments), range(1, segments + 1))
            return all(abs(sum(sizes[a : a + m]) - Fraction(m * n, segments)) < 1 for a, m in arcs)

        possible = list(filter(even, itertools.product(range(segments), repeat=n)))
        drawn = windows(tokens, [1] * n, 300 * len(possible), Fraction(1, segments), segments)
        assert p_alike(by_first_column(drawn, [2] * n), possible) > UNLIKELY

    @pytest.mark.parametrize("segments", [2, 3, 5])
    @pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
    def test_has_the_law_of_all_orders_and_places(self, pattern: list[int], segments: int) -> None:
        row = alike(pattern, 1)
        sizes = [len(unit) for unit in units_in(row.maskable, row.word_starts)[0]]
        law = window_law(sizes, Fraction(1, segments), segments)
        drawn = windows(
            words, pattern, max(4000, int(20 / min(law.values()))), Fraction(1, segments), segments
        )
        assert p_of(by_first_column(drawn, pattern), law) > UNLIKELY

    @pytest.mark.parametrize("n", [1, 3, 9, 20])
    def test_each_segment_is_as_often_one_of_the_larger(self, n: int) -> None:
        larger = windows(tokens, [1] * n, 4000, Fraction(1, 7), 7).sum(axis=2) > n // 7
        assert (larger.sum(axis=1) == n % 7).all()
        for number in larger.sum(axis=0).tolist():
            assert stats.binomtest(number, 4000, n % 7 / 7).pvalue > UNLIKELY


class TestRandomWindow:
    @quick
    @given(any_rows(), shares, st.sampled_from(list(KINDS)), any_seed)
    def test_holds_whole_units_and_as_many_tokens_as_they_allow(
        self, rows: Rows, share: Fraction, kind: str, seed: int
    ) -> None:
        circle, starts = circle_of(KINDS[kind], rows, seed)
        masks, units = circle.windows(share), units_in(rows.maskable, starts)
        assert masks.shape == (len(rows), 1, rows.maskable.shape[1])
        assert not (masks & ~rows.maskable[:, None]).any()
        check_whole(masks[:, 0], units)
        check_sizes(masks, units, float(share))

    @pytest.mark.parametrize("share", [Fraction(1, 3), Fraction(3, 4), Fraction(3, 20)], ids=str)
    @pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
    def test_has_the_law_of_all_orders_and_places(self, pattern: list[int], share: Fraction) -> None:
        row = alike(pattern, 1)
        sizes = [len(unit) for unit in units_in(row.maskable, row.word_starts)[0]]
        law = window_law(sizes, share, 1)
        drawn = windows(words, pattern, max(4000, int(20 / min(law.values()))), share)
        assert p_of(by_first_column(drawn, pattern), law) > UNLIKELY
        mean = sum(
            p * sum(size for size, label in zip(sizes, labels, strict=True) if label == 0)
            for labels, p in law.items()
        )
        assert mean == share * sum(sizes)  # exact in law, whatever the units

    @pytest.mark.parametrize(
        ("pattern", "share", "size"),
        [([1] * 6, Fraction(1, 3), 2), ([0, 1, 0, 1, 1, 1, 0], Fraction(3, 4), 3), ([1, 1, 0, 1, 1, 1], Fraction(1, 5), 1)],
    )  # fmt: skip
    def test_every_subset_of_its_size_is_equally_likely(
        self, pattern: list[int], share: Fraction, size: int
    ) -> None:
        masks = windows(tokens, pattern, 3000, share)[:, 0]
        assert p_alike(map(where, masks), itertools.combinations(where(pattern), size)) > UNLIKELY

    def test_size_and_places_are_independent(self) -> None:
        masks = windows(tokens, [1] * 5, 6000, Fraction(3, 10))[:, 0]  # one or two of five
        for size in (1, 2):
            chosen = masks[masks.sum(axis=1) == size]
            assert p_alike(map(where, chosen), itertools.combinations(range(5), size)) > UNLIKELY
        assert stats.binomtest(int((masks.sum(axis=1) == 2).sum()), 6000, 0.5).pvalue > UNLIKELY

    @pytest.mark.parametrize(
        ("n", "share"),
        [(1, Fraction(1, 20)), (17, Fraction(3, 20)), (16, Fraction(33, 100)), (10, Fraction(97, 100))],
    )
    def test_size_of_tokens_is_rounded_down_or_up_and_right_on_average(self, n: int, share: Fraction) -> None:
        up = windows(tokens, [1] * n, 4000, share).sum(axis=2).ravel() - math.floor(share * n)
        assert set(up.tolist()) <= {0, 1}
        assert stats.binomtest(int(up.sum()), 4000, float(share * n % 1)).pvalue > UNLIKELY

    def test_windows_and_orders_of_different_rows_are_independent(self) -> None:
        masks = windows(words, words_of([3, 1, 2]), 8000, Fraction(1, 2))[:, 0]
        assert p_independent(masks[:-1], masks[1:]) > UNLIKELY


class TestIndependent:
    @quick
    @given(any_rows(), st.floats(0.01, 0.99), st.sampled_from(list(KINDS)), any_seed)
    def test_holds_whole_units(self, rows: Rows, rate: float, kind: str, seed: int) -> None:
        starts = KINDS[kind](rows.view, keys_of(len(rows)))
        mask = independent(rows.maskable, starts, keys_of(len(rows), seed), rate)
        assert not (mask & ~rows.maskable).any()
        check_whole(mask, units_in(rows.maskable, starts))

    @pytest.mark.parametrize("rate", [0.15, 0.5, 0.9])
    @each_kind
    def test_units_are_drawn_one_by_one(self, kind: Any, rate: float) -> None:
        rows = alike([0, 2, 1, 0, 2], 6000)
        starts = kind(rows.view, keys_of(len(rows)))
        mask = independent(rows.maskable, starts, keys_of(6000), rate)[:, np.flatnonzero(starts[0])]
        cells = itertools.product([False, True], repeat=mask.shape[1])
        law = {cell: math.prod(rate if chosen else 1 - rate for chosen in cell) for cell in cells}
        assert p_of(map(tuple, mask.tolist()), law) > UNLIKELY
        assert p_independent(mask[:-1], mask[1:]) > UNLIKELY


class TestAsFraction:
    @quick
    @given(st.integers(2, 3000))
    def test_one_over_k(self, segments: int) -> None:
        assert as_fraction(1 / segments) == Fraction(1, segments)

    @pytest.mark.parametrize("text", ["0.15", "0.4", "0.999", "0.05", "0.333", "0.1234", "0.0001"])
    def test_of_what_people_write(self, text: str) -> None:
        assert as_fraction(float(text)) == Fraction(text)

    @quick
    @given(st.floats(0, 1, exclude_min=True, exclude_max=True))
    def test_is_near_and_possible(self, rate: float) -> None:
        fraction = as_fraction(rate)
        assert abs(fraction - Fraction(rate)) <= Fraction(1, 10_000)
        assert 0 < fraction < 1
        assert fraction.denominator <= 10_000

"""Pairs of masks: sizes, overlap, and that each mask by itself is a random one."""

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.masking import Corruption, Spans, StrategySettings, Tokens, Unit, Words, get_strategy
from fmlm_cli.masking.pairs import MaskPairs, shift_of
from tests.masking.laws import (
    UNLIKELY,
    Rows,
    alike,
    any_rows,
    any_seed,
    check_sizes,
    check_whole,
    p_alike,
    p_each_position,
    p_independent,
    p_same_law,
    quick,
    units_in,
    where,
)

tokens, words = Tokens(), Words()
DISTANCES = (0.0, 0.25, 0.5, 0.75, 1.0)
each_distance = pytest.mark.parametrize("distance", DISTANCES)
BERT = Corruption()


def pairs_of(distance: float, segments: int = 7, unit: Unit = tokens, **given: Any) -> MaskPairs:
    settings = StrategySettings("pairs", 0.5, corruption=given.get("corruption", BERT))
    return MaskPairs.of(settings, unit, segments, distance)


def seen(strategy: MaskPairs, rows: Rows, masks: np.ndarray, epoch: int = 0) -> np.ndarray:
    ids = np.arange(1000, 2000)
    return strategy.corrupt(rows.view, masks, epoch, mask_id=999, ordinary_ids=ids)[0]


@quick
@given(any_rows(), st.integers(2, 20), st.sampled_from(DISTANCES), st.integers(0, 99), any_seed)
def test_sizes_and_distance(rows: Rows, segments: int, distance: float, epoch: int, seed: int) -> None:
    """|A| and |B| are n / K, and what only one of them has d n / K, each rounded down or up."""
    masks = rows.masks(pairs_of(distance, segments), epoch, seed)
    assert masks.shape == (len(rows), 2, rows.maskable.shape[1])
    first, second = masks[:, 0], masks[:, 1]
    assert not (masks & ~rows.maskable[:, None]).any()
    for n, *sizes in zip(
        rows.maskable.sum(1), first.sum(1), second.sum(1), (first & ~second).sum(1), (second & ~first).sum(1), strict=True
    ):  # fmt: skip
        for size, share in zip(sizes, [1, 1, distance, distance], strict=True):
            exact = Fraction(share) * int(n) / segments
            assert math.floor(exact) <= size <= math.ceil(exact)
    if distance == 0:
        assert np.array_equal(first, second)
    if distance == 1:
        assert not (first & second).any()


@quick
@given(any_rows(), st.integers(2, 9), st.sampled_from(DISTANCES), st.sampled_from([words, Spans()]), any_seed)
def test_longer_units_are_whole(rows: Rows, segments: int, distance: float, unit: Any, seed: int) -> None:
    masks = rows.masks(pairs_of(distance, segments, unit), 0, seed)
    of_words = units_in(rows.maskable, rows.word_starts)
    for member in (0, 1):
        check_whole(masks[:, member], of_words)
    if unit is words:
        check_sizes(masks, of_words, 1 / segments)
    assert np.array_equal(masks[:, 0], masks[:, 1]) or distance > 0
    assert not (masks[:, 0] & masks[:, 1]).any() or distance < 1


@quick
@given(any_rows(least=1), st.sampled_from(DISTANCES), any_seed)
def test_rows_and_passes_depend_on_nothing_else(rows: Rows, distance: float, seed: int) -> None:
    strategy = pairs_of(distance, 3, Spans())
    passes = np.arange(len(rows)) % 3
    whole = rows.masks(strategy, passes, seed)
    for row in range(len(rows)):
        alone = rows.of(slice(row, row + 1)).masks(strategy, int(passes[row]), seed)
        assert np.array_equal(alone[0], whole[row])


@each_distance
def test_each_mask_by_itself_is_a_random_mask(distance: float) -> None:
    rows = alike([0, 2, 2, 0, 2, 2, 2], 6000)  # 5 tokens, K = 3: one or two of them
    masks, random = rows.masks(pairs_of(distance, 3)), rows.masks(get_strategy("random", segments=3))
    columns = np.flatnonzero(rows.maskable[0])
    for member in (0, 1):
        mask = masks[:, member]
        assert p_each_position(mask, columns, 1 / 3) > UNLIKELY
        assert p_same_law(mask.sum(1), random[:, 0].sum(1)) > UNLIKELY
        of_two = [where(one) for one in mask if one.sum() == 2]
        assert p_alike(of_two, itertools.combinations(columns.tolist(), 2)) > UNLIKELY


def test_the_mean_distance_is_exact() -> None:
    rows = alike([2] * 17, 4000)
    for distance in DISTANCES:
        masks = rows.masks(pairs_of(distance, 5))
        apart = (masks[:, 0] ^ masks[:, 1]).sum(1)
        exact = 2 * distance * 17 / 5
        assert abs(apart - exact).max() < 2
        assert abs(apart.mean() - exact) <= 4 * apart.std() / math.sqrt(len(apart))


def test_neighbours_have_the_law_of_two_segments() -> None:
    """n a multiple of K: every pair of disjoint masks is equally likely, as for any two of the segments."""
    masks = alike([2] * 4, 4000).masks(pairs_of(1.0, 2))
    both = [(where(a), where(b)) for a, b in masks]
    halves = list(itertools.combinations(range(4), 2))
    assert p_alike(both, [(a, b) for a in halves for b in halves if not set(a) & set(b)]) > UNLIKELY


def test_pairs_of_passes_rows_seeds_and_distances_are_independent() -> None:
    rows, strategy = alike([2] * 3, 5000), pairs_of(0.0, 3)
    one = rows.masks(strategy)[:, 0]
    assert p_independent(one, rows.masks(strategy, 1)[:, 0]) > UNLIKELY
    assert p_independent(one, rows.masks(strategy, 0, 1)[:, 0]) > UNLIKELY
    assert p_independent(one, rows.masks(pairs_of(1.0, 3))[:, 0]) > UNLIKELY
    assert p_independent(one[:-1], one[1:]) > UNLIKELY


@each_distance
def test_corruption_is_drawn_for_each_mask(distance: float) -> None:
    """At distance 0 too."""
    rows = alike([2] * 28, 300)
    strategy = pairs_of(distance, 2, corruption=Corruption(0.4, 0.4, 0.2))
    masks = rows.masks(strategy)
    shown = seen(strategy, rows, masks)
    assert shown.shape == masks.shape
    assert shown.flags.writeable  # torch takes it as it is
    unchanged = np.broadcast_to(rows.input_ids[:, None], masks.shape)
    assert np.array_equal(shown[~masks], unchanged[~masks])
    both = masks[:, 0] & masks[:, 1]
    same = (shown[:, 0] == shown[:, 1])[both]
    if distance < 1:
        assert abs(same.mean() - (0.4**2 + 0.2**2)) < 0.05  # both [MASK], or both as they were
    assert not np.array_equal(seen(strategy, rows, masks, epoch=1), shown)


def test_the_same_masks_show_the_same_where_all_is_mask() -> None:
    rows = alike([2] * 28, 300)
    strategy = pairs_of(0.0, corruption=Corruption(1.0, 0.0, 0.0))
    first, second = seen(strategy, rows, rows.masks(strategy)).swapaxes(0, 1)
    assert np.array_equal(first, second)


def test_distances_that_cannot_be_made_are_refused() -> None:
    assert [shift_of(distance) for distance in DISTANCES] == [0, 1, 2, 3, 4]
    for distance in (-0.25, 0.3, 1.25):
        with pytest.raises(ValueError, match=f"not {distance}"):
            shift_of(distance)
    strategy = pairs_of(0.75, 5)
    assert (strategy.rate, strategy.masks_per_sequence) == (0.2, 2)
    assert strategy.description == "two masks of 20.0%, 0.75 of the largest distance apart"

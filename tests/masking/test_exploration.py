"""The building blocks, against full enumeration of what they may yield."""

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from fmlm_cli import keys
from fmlm_cli.masking.exploration import partition, random_mask, shuffled, stochastic_round

UNLIKELY = 1e-3  # the draws are fixed, so a test passes always or never
quick = settings(derandomize=True, deadline=None, max_examples=60)
maskables = hnp.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 60)))


def keys_of(rows: int, seed: int = 0) -> np.ndarray:
    return keys.derive(seed, 99, np.arange(rows))


def p_equally_likely(drawn: Iterable[Hashable], possible: Iterable[Hashable]) -> float:
    counts = Counter(drawn)
    cells = list(possible)
    assert counts.keys() <= set(cells), "something impossible was drawn"
    return float(stats.chisquare([counts[cell] for cell in cells]).pvalue)


def repeated(pattern: list[int], rows: int) -> np.ndarray:
    return np.tile(np.array(pattern, bool), (rows, 1))


@quick
@given(maskables, st.integers(0, 2**63 - 1))
def test_shuffled_holds_exactly_the_maskable_positions(maskable: np.ndarray, seed: int) -> None:
    positions, n = shuffled(maskable, keys_of(len(maskable), seed))
    for row, places, number in zip(maskable, positions, n, strict=True):
        assert sorted(places[:number].tolist()) == np.flatnonzero(row).tolist()


@pytest.mark.parametrize("pattern", [[1, 1, 1, 1], [0, 1, 1, 0, 0, 1, 1, 0, 0], [1] * 3])
def test_every_order_is_equally_likely(pattern: list[int]) -> None:
    n = sum(pattern)
    positions, _ = shuffled(repeated(pattern, 4800), keys_of(4800))
    orders = itertools.permutations(np.flatnonzero(pattern).tolist())
    assert p_equally_likely(map(tuple, positions[:, :n].tolist()), orders) > UNLIKELY


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0, 2.9, 17.5])
def test_stochastic_round(value: float) -> None:
    rounded = stochastic_round(np.full(4000, value), keys_of(4000))
    up = rounded - math.floor(value)
    assert set(up.tolist()) <= {0, 1}
    assert stats.binomtest(int(up.sum()), 4000, value - math.floor(value)).pvalue > UNLIKELY


@quick
@given(maskables, st.integers(2, 70), st.integers(0, 2**63 - 1))
def test_partition(maskable: np.ndarray, segments: int, seed: int) -> None:
    segment = partition(maskable, keys_of(len(maskable), seed), segments)
    assert np.array_equal(segment >= 0, maskable)
    assert set(segment[~maskable].tolist()) <= {-1}
    for row in segment:
        sizes = np.bincount(row[row >= 0], minlength=segments)
        assert len(sizes) == segments
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize(("n", "segments"), [(4, 2), (5, 2), (5, 3), (2, 3)])
def test_every_balanced_partition_is_equally_likely(n: int, segments: int) -> None:
    possible = [
        labels
        for labels in itertools.product(range(segments), repeat=n)
        if max(c := [labels.count(s) for s in range(segments)]) - min(c) <= 1
    ]
    rows = 60 * len(possible)
    drawn = partition(repeated([1] * n, rows), keys_of(rows), segments)
    assert p_equally_likely(map(tuple, drawn.tolist()), possible) > UNLIKELY


@pytest.mark.parametrize("n", [1, 3, 9, 20])
def test_each_segment_is_as_often_one_of_the_larger(n: int) -> None:
    segment = partition(repeated([1] * n, 4000), keys_of(4000), 7)
    larger = (segment[:, None, :] == np.arange(7)[:, None]).sum(axis=2) > n // 7
    assert (larger.sum(axis=1) == n % 7).all()
    for number in larger.sum(axis=0).tolist():
        assert stats.binomtest(number, 4000, n % 7 / 7).pvalue > UNLIKELY


@quick
@given(maskables, st.floats(0.01, 0.99), st.integers(0, 2**63 - 1))
def test_random_mask_size(maskable: np.ndarray, rate: float, seed: int) -> None:
    mask = random_mask(maskable, keys_of(len(maskable), seed), rate)
    assert not (mask & ~maskable).any()
    for size, n in zip(mask.sum(axis=1).tolist(), maskable.sum(axis=1).tolist(), strict=True):
        assert math.floor(rate * n) <= size <= min(n, math.ceil(rate * n))


@pytest.mark.parametrize(("pattern", "rate", "size"), [([1] * 6, 1 / 3, 2), ([0, 1, 0, 1, 1, 1, 0], 0.75, 3)])
def test_every_subset_of_its_size_is_equally_likely(pattern: list[int], rate: float, size: int) -> None:
    masks = random_mask(repeated(pattern, 3000), keys_of(3000), rate)
    subsets = itertools.combinations(np.flatnonzero(pattern).tolist(), size)
    assert p_equally_likely((tuple(np.flatnonzero(m).tolist()) for m in masks), subsets) > UNLIKELY


def test_size_and_places_of_a_random_mask_are_independent() -> None:
    masks = random_mask(repeated([1] * 5, 6000), keys_of(6000), 0.3)  # one or two of five
    sizes = masks.sum(axis=1)
    for size in (1, 2):
        subsets = itertools.combinations(range(5), size)
        chosen = masks[sizes == size]
        assert p_equally_likely((tuple(np.flatnonzero(m).tolist()) for m in chosen), subsets) > UNLIKELY
    assert stats.binomtest(int((sizes == 2).sum()), 6000, 0.5).pvalue > UNLIKELY

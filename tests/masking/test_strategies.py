"""All named strategies: what holds for every mask of every row, and the laws that masks follow."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fmlm_cli.errors import UserError
from fmlm_cli.masking import RowView, Strategy, random_counterpart
from tests.masking.laws import (
    UNLIKELY,
    Rows,
    alike,
    any_rows,
    any_seed,
    by_first_column,
    check_sizes,
    check_whole,
    collocations_of,
    p_each_position,
    p_independent,
    p_of,
    p_same_law,
    quick,
    strategy_of,
    units_in,
    where,
    window_law,
    words_of,
)

RANDOM = ["random", "whole-word", "span", "pmi"]
FULL = ["fully-explored", "fully-explored-word", "fully-explored-span", "fully-explored-pmi"]
TWINS = list(zip(RANDOM, FULL, strict=True))
any_epoch = st.integers(0, 10_000)

# The grid, each point with everything but its rate; a test adds segments.
GRID: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in RANDOM},
    **{f"{name} x3": (name, {"masks_per_sequence": 3}) for name in RANDOM},
    **{f"{name} {scope}": (name, {"scope": scope}) for name in FULL for scope in ("epoch", "batch")},
}
BERNOULLI = {
    f"{name} bernoulli": (name, {"count": "bernoulli", "masks_per_sequence": m})
    for m, name in enumerate(RANDOM, 1)
}
each_point = pytest.mark.parametrize("point", GRID | BERNOULLI)
each_exact = pytest.mark.parametrize("point", GRID)


def at(point: str, **given: Any) -> Strategy:
    name, its_own = (GRID | BERNOULLI)[point]
    return strategy_of(name, **its_own, **given)


# Documents, an unknown token, padding; words of one to five tokens, with several collocations of GRAMS.
PATTERN = [
    0,
    *words_of([1, 3, 1, 1, 2]),
    0,
    *words_of([1, 1, 5, 1, 2, 1]),
    0,
    *words_of([2, 1, 1, 1, 1]),
    0,
    0,
]
IDS = np.random.default_rng(5).integers(0, 4, len(PATTERN))
N = sum(kind > 0 for kind in PATTERN)


class TestEveryMask:
    @quick
    @given(any_rows(), st.sampled_from(list(GRID | BERNOULLI)), st.integers(2, 12), any_epoch, any_seed)
    def test_shape_place_and_whole_units(
        self, rows: Rows, point: str, segments: int, epoch: int, seed: int
    ) -> None:
        strategy = at(point, segments=segments)
        masks = rows.masks(strategy, epoch, seed)
        assert masks.dtype == np.bool_
        assert masks.shape == (len(rows), strategy.masks_per_sequence, rows.maskable.shape[1])
        assert not (masks & ~rows.maskable[:, None]).any()
        its_words = units_in(rows.maskable, rows.word_starts)
        for mask in range(masks.shape[1]):
            units = rows.units(strategy, epoch, seed, mask=mask)
            check_whole(masks[:, mask], units)
            if strategy.name not in ("random", "fully-explored"):
                check_whole(masks[:, mask], its_words)
            if point in GRID:
                check_sizes(masks[:, mask : mask + 1], units, 1 / segments)

    @quick
    @given(any_rows(), st.sampled_from(RANDOM), st.floats(0.01, 0.99), st.integers(1, 4), any_epoch, any_seed)
    def test_sizes_at_any_rate(
        self, rows: Rows, name: str, rate: float, number: int, epoch: int, seed: int
    ) -> None:
        strategy = strategy_of(name, rate=rate, masks_per_sequence=number)
        masks = rows.masks(strategy, epoch, seed)
        for mask in range(number):
            units = rows.units(strategy, epoch, seed, mask=mask)
            check_sizes(masks[:, mask : mask + 1], units, rate)
            check_whole(masks[:, mask], units)

    @pytest.mark.parametrize("name", ["whole-word", "fully-explored-word", "random", "fully-explored"])
    def test_units_are_what_the_name_says(self, name: str) -> None:
        rows = alike(PATTERN, 3, ids=IDS)
        begins = rows.word_starts if "word" in name else rows.maskable
        assert rows.units(strategy_of(name)) == units_in(rows.maskable, begins)

    @quick
    @given(
        any_rows(least=1),
        st.sampled_from(list(GRID | BERNOULLI)),
        st.randoms(use_true_random=False),
        any_seed,
    )
    def test_does_not_depend_on_the_batch(self, rows: Rows, point: str, random: Any, seed: int) -> None:
        strategy = at(point, segments=3)
        epoch = np.array([random.randrange(30) for _ in range(len(rows))])
        whole = rows.masks(strategy, epoch, seed)
        order = [random.randrange(len(rows)) for _ in range(random.randint(1, 7))]
        assert np.array_equal(rows.of(order).masks(strategy, epoch[order], seed), whole[order])
        for row in range(len(rows)):
            alone = rows.of(slice(row, row + 1)).masks(strategy, int(epoch[row]), seed)
            assert np.array_equal(alone[0], whole[row])

    @each_point
    def test_depends_on_seed_row_and_epoch_alone(self, point: str) -> None:
        strategy = at(point, segments=7)
        rows = alike(words_of([1, 2, 1, 1, 3] * 30), 50)
        same = Rows(rows.maskable, rows.word_starts, rows.input_ids, np.full(50, 3))
        first = same.masks(strategy, 3, seed=4)
        assert np.array_equal(first, same.masks(strategy, np.full(50, 3), seed=4))
        by_row = rows.masks(strategy, 3, seed=4)
        by_epoch = same.masks(strategy, np.arange(50), seed=4)
        by_seed = [same.of([0]).masks(strategy, 3, seed)[0] for seed in [*range(49), 2**63 - 1]]
        assert len(np.unique(first, axis=0)) == 1
        for masks in (by_row, by_epoch, by_seed):
            assert len(np.unique(masks, axis=0)) == 50

    @each_point
    def test_arguments_stay_as_they_were(self, point: str) -> None:
        rows, again = (alike(PATTERN, 4, ids=IDS) for _ in range(2))
        rows.masks(at(point, segments=4), np.arange(4))
        assert all(
            np.array_equal(a, b) for a, b in zip(vars(rows).values(), vars(again).values(), strict=True)
        )

    @each_point
    def test_word_starts_are_needed_for_words_and_not_for_tokens(self, point: str) -> None:
        strategy, rows = at(point), alike([2, 1, 2], 2)
        if strategy.name in ("random", "fully-explored"):
            without = strategy.masks(RowView(rows.maskable, None, rows.row_ids), 1)
            assert np.array_equal(without, rows.masks(strategy, 1))
        else:
            with pytest.raises(UserError, match="needs word starts"):
                strategy.masks(replace(rows.view, word_starts=None))

    @pytest.mark.parametrize("name", ["pmi", "fully-explored-pmi"])
    def test_pmi_needs_input_ids(self, name: str) -> None:
        rows = alike([2, 1, 2], 2)
        with pytest.raises(UserError, match="give it input_ids"):
            strategy_of(name).masks(replace(rows.view, input_ids=None))


class TestFullExploration:
    @quick
    @given(any_rows(), st.sampled_from(FULL), st.integers(2, 60), any_epoch, any_seed)
    def test_masks_of_one_step_are_a_partition(
        self, rows: Rows, name: str, segments: int, epoch: int, seed: int
    ) -> None:
        strategy = strategy_of(name, segments=segments, scope="batch")
        self.check(strategy, rows, rows.masks(strategy, epoch, seed), epoch, seed)

    @quick
    @given(any_rows(), st.sampled_from(FULL), st.integers(2, 20), st.integers(0, 500), any_seed)
    def test_k_passes_are_a_partition(
        self, rows: Rows, name: str, segments: int, cycle: int, seed: int
    ) -> None:
        strategy = strategy_of(name, segments=segments, scope="epoch")
        begin = segments * cycle
        self.check(strategy, rows, rows.passes(strategy, range(begin, begin + segments), seed), begin, seed)
        for epoch in range(begin + 1, begin + segments):
            assert rows.units(strategy, epoch, seed) == rows.units(strategy, begin, seed)

    @quick
    @given(any_rows(), st.sampled_from(FULL), st.integers(2, 20), any_seed)
    def test_the_first_pass_is_random_masking(self, rows: Rows, name: str, segments: int, seed: int) -> None:
        random = strategy_of(random_counterpart(name) or "", rate=1 / segments)
        full = strategy_of(name, segments=segments, scope="epoch")
        assert np.array_equal(rows.masks(full, 0, seed), rows.masks(random, 0, seed))
        assert rows.units(full, 0, seed) == rows.units(random, 0, seed)

    @staticmethod
    def check(strategy: Strategy, rows: Rows, masks: np.ndarray, epoch: int, seed: int) -> None:
        """Each maskable position exactly once and no other; of whole units; as even as they allow."""
        assert np.array_equal(masks.sum(axis=1), rows.maskable.astype(int))
        units = rows.units(strategy, epoch, seed)
        check_sizes(masks, units, strategy.rate)
        for mask in range(masks.shape[1]):
            check_whole(masks[:, mask], units)
        if strategy.name == "fully-explored":
            assert (np.ptp(masks.sum(axis=2), axis=1) <= 1).all()

    @pytest.mark.parametrize("name", FULL)
    def test_k_passes_that_begin_elsewhere_are_none(self, name: str) -> None:
        rows = alike(words_of([1, 2] * 40), 20)
        masks = rows.passes(strategy_of(name, segments=7), range(3, 10))
        assert (masks.sum(axis=1) != 1).any(axis=1).all()

    @pytest.mark.parametrize("n", [3, 10, 23])
    def test_no_pass_holds_all_the_larger_segments(self, n: int) -> None:
        rows = 4000
        masks = alike([2] * n, rows).passes(strategy_of("fully-explored", segments=7), range(14))
        deviation = math.sqrt(rows * (n % 7 / 7) * (1 - n % 7 / 7))
        away = np.abs(masks.sum(axis=(0, 2)) - rows * n / 7)
        assert away.max() < 3.5 * deviation
        assert away.max() > 0.3 * deviation  # rows turn independently


class TestLaw:
    @each_point
    def test_each_token_is_as_likely(self, point: str) -> None:
        rows, strategy = alike(PATTERN, 4000, ids=IDS), at(point, segments=4)
        masks = rows.passes(strategy, range(3) if strategy.cycle > 1 else [0])
        for mask in range(masks.shape[1]):
            assert p_each_position(masks[:, mask], rows.maskable[0], 1 / 4) * masks.shape[1] > UNLIKELY

    @pytest.mark.parametrize("point", ["random", "random x3", "fully-explored epoch", "fully-explored batch"])
    @pytest.mark.parametrize("n", [21, 23])
    def test_tokens_are_drawn_without_replacement(self, point: str, n: int) -> None:
        rows, strategy = 3000, at(point, segments=7)
        pattern = np.zeros(30, int)
        pattern[np.random.default_rng(0).permutation(30)[:n]] = 1
        masks = alike(pattern.tolist(), rows).masks(strategy)
        for mask in range(strategy.masks_per_sequence):
            counts = masks[:, mask, pattern > 0].sum(axis=0)
            # binomial counts with the correlation -1 / (n - 1) of drawing without replacement
            statistic = ((counts - rows / 7) ** 2 / (rows / 7 * 6 / 7)).sum() * (n - 1) / n
            among = 24  # tails looked at here, all points taken together (Bonferroni)
            assert stats.chi2.sf(statistic, n - 1) > UNLIKELY / among
            assert stats.chi2.cdf(statistic, n - 1) > UNLIKELY / among  # nor suspiciously even

    @each_exact
    def test_sizes_are_right_on_average(self, point: str) -> None:
        rows, strategy = alike(PATTERN, 6000, ids=IDS), at(point, segments=4)
        for sizes in rows.masks(strategy).sum(axis=2).T:
            error = sizes.std() / math.sqrt(len(sizes))
            assert abs(sizes.mean() - N / 4) < 3.5 * error if error else sizes.mean() == N / 4
        if "word" not in point and "span" not in point and "pmi" not in point:
            assert set(np.unique(rows.masks(strategy).sum(axis=2))) == {math.floor(N / 4), math.ceil(N / 4)}

    @each_exact
    @pytest.mark.parametrize("n", [3, 14, 23])
    def test_single_tokens_are_rounded_down_or_up(self, point: str, n: int) -> None:
        """As words, too, where all have one token; spans of one word; no collocations."""
        name = GRID[point][0]
        alone = (
            {"longest": 1}
            if "span" in name
            else {"collocations": collocations_of([])}
            if "pmi" in name
            else {}
        )
        strategy = at(point, segments=7, **alone)
        for sizes in alike([2] * n + [0] * 5, 3000).masks(strategy).sum(axis=2).T:
            assert set((sizes - n // 7).tolist()) <= {0, 1}
            assert stats.binomtest(int((sizes - n // 7).sum()), 3000, n % 7 / 7).pvalue > UNLIKELY

    @pytest.mark.parametrize("segments", [2, 3])
    @pytest.mark.parametrize("point", [point for point in GRID if "word" in point])
    def test_of_a_small_row_is_that_of_all_orders_and_places(self, point: str, segments: int) -> None:
        """One law, by enumeration, for random masks and for every segment."""
        sizes, strategy = [3, 1, 2, 1], at(point, segments=segments)
        law = window_law(sizes, Fraction(1, segments), 1)
        masks = alike(words_of(sizes), 8000).passes(strategy, range(strategy.cycle))
        for mask in range(masks.shape[1]):
            drawn = by_first_column(masks[:, mask : mask + 1], words_of(sizes))
            assert p_of(drawn, law) > UNLIKELY

    @pytest.mark.parametrize("scope", ["epoch", "batch"])
    @pytest.mark.parametrize(("random", "full"), TWINS)
    def test_a_segment_has_the_law_of_a_random_mask(self, random: str, full: str, scope: Any) -> None:
        rows, others = alike(PATTERN, 4000, ids=IDS), alike(PATTERN, 4000, first=10_000, ids=IDS)
        explored = strategy_of(full, segments=4, scope=scope)
        segments = rows.passes(explored, range(explored.cycle))
        twin = others.masks(strategy_of(random, segments=4))[:, 0]
        pairs = list(itertools.combinations(range(0, len(PATTERN), 5), 2))
        for segment in (segments[:, k] for k in range(4)):
            assert p_same_law(segment.sum(axis=1), twin.sum(axis=1)) > UNLIKELY
            assert p_same_law(segment[:, 5:].argmax(axis=1), twin[:, 5:].argmax(axis=1)) > UNLIKELY
            together = [[int((m[:, a] & m[:, b]).sum()) for m in (segment, twin)] for a, b in pairs]
            for both in together:
                if sum(both) > 20:
                    assert stats.binomtest(both[0], sum(both), 0.5).pvalue * len(pairs) > UNLIKELY

    def test_every_pair_of_tokens_is_as_likely_to_be_masked_together(self) -> None:
        masks = alike([2] * 8, 6000).masks(strategy_of("random", rate=0.25))[:, 0]
        cells = itertools.combinations(range(8), 2)
        assert p_of(map(where, masks), dict.fromkeys(cells, 1 / 28)) > UNLIKELY

    @pytest.mark.parametrize("point", list(BERNOULLI))
    def test_bernoulli_draws_each_unit_by_itself(self, point: str) -> None:
        alone = (
            {"longest": 1}
            if "span" in point
            else {"collocations": collocations_of([(0, 1)])}
            if "pmi" in point
            else {}
        )
        pattern, ids = [2, 2, 0, 2, 2], [0, 2, 3, 0, 1]
        strategy = at(point, rate=0.3, **alone)
        masks = alike(pattern, 6000, ids=ids).masks(strategy)
        number = {"random bernoulli": 4, "whole-word bernoulli": 4, "span bernoulli": 4, "pmi bernoulli": 3}[
            point
        ]
        columns = [0, 1, 3, 4][:number]
        for mask in range(strategy.masks_per_sequence):
            cells = itertools.product([False, True], repeat=number)
            law = {cell: math.prod(0.3 if chosen else 0.7 for chosen in cell) for cell in cells}
            assert p_of(map(tuple, masks[:, mask, columns].tolist()), law) > UNLIKELY
        sizes = alike(PATTERN, 6000, ids=IDS).masks(strategy).sum(axis=2)
        assert (np.abs(sizes.mean(axis=0) - 0.3 * N) < 3.5 * sizes.std(axis=0) / math.sqrt(6000)).all()


# Four units of two tokens, two of which every mask of rate 1/2 holds: the words of [2, 1] * 4, or pairs of
# words.
PAIRS = {"collocations": collocations_of([(1, 2), (3, 4), (5, 6), (7, 8)])}
FOUR: dict[str, tuple[list[int], dict[str, Any]]] = {
    "random": ([2, 0] * 4, {}),
    "whole-word": ([2, 1] * 4, {}),
    "span": ([2, 1] * 4, {"longest": 1}),
    "pmi": ([2, 2] * 4, PAIRS),
}
FOUR |= {full: FOUR[random] for random, full in TWINS}


def p_pairs(first: np.ndarray, second: np.ndarray) -> float:
    """Of a test that all 36 pairs of masks of two of four units are equally likely: bool[rows, 8] each."""
    both = zip(map(where, first[:, ::2]), map(where, second[:, ::2]), strict=True)
    subsets = list(itertools.combinations(range(4), 2))
    return p_of(both, {(a, b): 1 / 36 for a in subsets for b in subsets})


class TestIndependence:
    @pytest.mark.parametrize("name", RANDOM)
    def test_random_masks_of_one_step_epochs_rows_and_seeds(self, name: str) -> None:
        pattern, its_own = FOUR[name]
        rows = alike(pattern, 3600, ids=range(1, 9))
        for number in (1, 3):
            strategy = strategy_of(name, rate=0.5, masks_per_sequence=number, **its_own)
            masks = rows.passes(strategy, range(4, 6))
            every = list(itertools.combinations(range(2 * number), 2))
            for a, b in every:
                assert p_pairs(masks[:, a], masks[:, b]) * len(every) > UNLIKELY
            assert p_pairs(masks[:-1, 0], masks[1:, -1]) > UNLIKELY
            assert p_pairs(masks[:, 0], rows.masks(strategy, 4, seed=1)[:, 0]) > UNLIKELY

    @pytest.mark.parametrize("name", FULL)
    def test_partitions_of_different_cycles_rows_and_seeds(self, name: str) -> None:
        pattern, its_own = FOUR[name]
        rows = alike(pattern, 3600, ids=range(1, 9))
        over_epochs = rows.passes(strategy_of(name, segments=2, **its_own), range(6))
        in_one_step = rows.passes(strategy_of(name, segments=2, scope="batch", **its_own), range(3))
        for masks in (over_epochs, in_one_step):
            assert not (masks[:, ::2] & masks[:, 1::2]).any()
            pairs = [(a, b) for a, b in itertools.combinations(range(6), 2) if a // 2 != b // 2]
            for a, b in pairs:
                assert p_pairs(masks[:, a], masks[:, b]) * len(pairs) > UNLIKELY
            assert p_pairs(masks[:-1, 0], masks[1:, 0]) > UNLIKELY
        again = rows.masks(strategy_of(name, segments=2, **its_own), 0, seed=1)
        assert p_pairs(over_epochs[:, 0], again[:, 0]) > UNLIKELY

    def test_sizes_of_the_masks_of_one_step(self) -> None:
        strategy = strategy_of("random", rate=0.5, masks_per_sequence=2)
        sizes = alike([2] * 3, 4000).masks(strategy).sum(axis=2)
        assert p_independent(sizes[:, 0], sizes[:, 1]) > UNLIKELY

    @pytest.mark.parametrize(("random", "full"), TWINS[2:])
    def test_spans_and_collocations_are_drawn_anew(self, random: str, full: str) -> None:
        """For every mask, pass and row; with full exploration for every cycle."""
        its_own = {"collocations": collocations_of([(0, 1), (1, 2)])} if "pmi" in random else {}
        rows = alike([2] * 12, 5000, ids=list(range(12)))

        def drawn(strategy: Any, epoch: int, mask: int = 0) -> list[int]:
            return [len(units[0]) for units in rows.units(strategy, epoch, mask=mask)]

        three = strategy_of(random, masks_per_sequence=3, **its_own)
        one, explored = strategy_of(random, **its_own), strategy_of(full, segments=3, **its_own)
        assert p_independent(drawn(three, 0, 0), drawn(three, 0, 1)) > UNLIKELY
        assert p_independent(drawn(three, 0, 2), drawn(three, 1, 2)) > UNLIKELY
        assert p_independent(drawn(one, 0), drawn(one, 1)) > UNLIKELY
        assert p_independent(drawn(one, 0)[1:], drawn(one, 0)[:-1]) > UNLIKELY
        assert p_independent(drawn(explored, 0), drawn(explored, 3)) > UNLIKELY
        assert drawn(explored, 3) == drawn(explored, 5)

    @pytest.mark.parametrize(
        "point", ["span", "span x3", "fully-explored-span epoch", "fully-explored-span batch"]
    )
    def test_whether_a_span_is_masked_does_not_depend_on_its_length(self, point: str) -> None:
        rows, strategy = alike([2] * 60, 8000), at(point, segments=4)
        masked = rows.masks(strategy)[:, 0, 0]
        assert p_independent(masked, [len(units[0]) for units in rows.units(strategy)]) > UNLIKELY

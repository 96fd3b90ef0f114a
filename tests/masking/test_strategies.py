import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from fmlm_cli.errors import UserError
from fmlm_cli.masking import STRATEGIES, Corruption, Strategy, get_strategy

UNLIKELY = 1e-3  # the draws are fixed, so a test passes always or never
quick = settings(derandomize=True, deadline=None, max_examples=50)
maskables = hnp.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 60)))
seeds = st.integers(0, 2**63 - 1)
epochs = st.integers(0, 10_000)

SEVEN = {
    "random": get_strategy("random", segments=7),
    "random-3": get_strategy("random", segments=7, masks_per_sequence=3),
    "batch": get_strategy("fully-explored", segments=7, scope="batch"),
    "epoch": get_strategy("fully-explored", segments=7, scope="epoch"),
}
each_strategy = pytest.mark.parametrize("strategy", SEVEN.values(), ids=SEVEN)


@st.composite
def strategies(draw: st.DrawFn) -> Strategy:
    segments = draw(st.integers(2, 20))
    kind = draw(st.sampled_from(["random", "batch", "epoch"]))
    if kind == "random":
        return get_strategy(
            "random", rate=draw(st.floats(0.01, 0.99)), masks_per_sequence=draw(st.integers(1, 4))
        )
    return get_strategy("fully-explored", segments=segments, scope=kind)  # type: ignore[arg-type]


def rows_of(pattern: Any, rows: int) -> np.ndarray:
    return np.tile(np.asarray(pattern, bool), (rows, 1))


def ids_of(maskable: np.ndarray, first: int = -2) -> np.ndarray:
    return np.arange(first, first + len(maskable))


def passes(strategy: Strategy, maskable: np.ndarray, epochs: range, seed: int = 0) -> np.ndarray:
    """The one mask of every pass: bool[rows, passes, length]."""
    each = [strategy.masks(maskable, ids_of(maskable), epoch, seed) for epoch in epochs]
    return np.concatenate(each, axis=1)


def check_partition(masks: np.ndarray, maskable: np.ndarray) -> None:
    """Disjoint, together exactly `maskable`, sizes alike: bool[rows, K, length]."""
    assert np.array_equal(masks.sum(axis=1), maskable.astype(int))  # each position exactly once, others never
    sizes = masks.sum(axis=2)
    assert (sizes.max(axis=1) - sizes.min(axis=1)).max() <= 1


class TestEveryMask:
    @quick
    @given(maskables, strategies(), epochs, seeds)
    def test_shape_and_place(self, maskable: np.ndarray, strategy: Strategy, epoch: int, seed: int) -> None:
        rows, length = maskable.shape
        masks = strategy.masks(maskable, ids_of(maskable), epoch, seed)
        assert masks.dtype == np.bool_
        assert masks.shape == (rows, strategy.masks_per_sequence, length)
        assert not (masks & ~maskable[:, None]).any()
        n = maskable.sum(axis=1)[:, None]
        sizes = masks.sum(axis=2)
        assert (sizes >= np.floor(strategy.rate * n - 1e-9)).all()
        assert (sizes <= np.ceil(strategy.rate * n - 1e-9)).all()
        assert sizes.max() <= strategy.most_masked(length)

    @quick
    @given(maskables, strategies(), st.randoms(use_true_random=False), seeds)
    def test_does_not_depend_on_the_batch(
        self, maskable: np.ndarray, strategy: Strategy, random: Any, seed: int
    ) -> None:
        row_ids = np.array([random.randrange(-(2**63), 2**63) for _ in maskable])
        epoch = np.array([random.randrange(30) for _ in maskable])
        whole = strategy.masks(maskable, row_ids, epoch, seed)
        order = random.sample(range(len(maskable)), random.randint(1, len(maskable)))
        assert np.array_equal(strategy.masks(maskable[order], row_ids[order], epoch[order], seed), whole[order])  # fmt: skip
        for i in range(len(maskable)):
            alone = strategy.masks(maskable[i : i + 1], row_ids[i : i + 1], int(epoch[i]), seed)
            assert np.array_equal(alone[0], whole[i])

    @each_strategy
    def test_depends_on_seed_row_and_epoch_alone(self, strategy: Strategy) -> None:
        maskable, same, different = rows_of([1] * 60, 50), np.full(50, 3), np.arange(50)
        first = strategy.masks(maskable, same, 3, seed=4)
        assert np.array_equal(first, strategy.masks(maskable, same, same, seed=4))
        by_row = strategy.masks(maskable, different, 3, seed=4)
        by_epoch = strategy.masks(maskable, same, different, seed=4)
        by_seed = [strategy.masks(maskable[:1], same[:1], 3, seed)[0] for seed in [*range(49), 2**63 - 1]]
        assert len(np.unique(first, axis=0)) == 1
        for masks in (by_row, by_epoch, by_seed):
            assert len(np.unique(masks, axis=0)) == 50

    @each_strategy
    @pytest.mark.parametrize("n", [21, 23])
    def test_each_position_is_as_likely(self, strategy: Strategy, n: int) -> None:
        """One pass over 3000 rows; over the passes and masks it is trivial for full exploration."""
        rows = 3000
        pattern = np.zeros(30, bool)
        pattern[np.random.default_rng(0).permutation(30)[:n]] = True
        for mask in range(strategy.masks_per_sequence):
            counts = strategy.masks(rows_of(pattern, rows), np.arange(rows))[:, mask, pattern].sum(axis=0)
            # binomial counts with the correlation -1 / (n - 1) of drawing without replacement
            statistic = ((counts - rows / 7) ** 2 / (rows / 7 * 6 / 7)).sum() * (n - 1) / n
            assert stats.chi2.sf(statistic, n - 1) > UNLIKELY
            assert stats.chi2.cdf(statistic, n - 1) > UNLIKELY  # nor suspiciously even

    @each_strategy
    @pytest.mark.parametrize("n", [3, 14, 23, 27])
    def test_the_size_of_a_mask_has_the_same_law_for_all(self, strategy: Strategy, n: int) -> None:
        rows = 3000
        for mask in range(strategy.masks_per_sequence):
            sizes = strategy.masks(rows_of([1] * n + [0] * 5, rows), np.arange(rows))[:, mask].sum(axis=1)
            up = sizes - n // 7
            assert set(up.tolist()) <= {0, 1}
            assert stats.binomtest(int(up.sum()), rows, n % 7 / 7).pvalue > UNLIKELY

    @each_strategy
    @pytest.mark.parametrize("length", [1, 6, 7, 8, 60])
    def test_most_masked_is_attained(self, strategy: Strategy, length: int) -> None:
        masks = strategy.masks(rows_of([1] * length, 200), np.arange(200))
        assert masks.sum(axis=2).max() == strategy.most_masked(length)

    @given(st.integers(2, 400), st.integers(1, 60))
    @settings(derandomize=True, deadline=None, max_examples=300)
    def test_most_masked_is_exact_where_the_rate_divides_the_length(self, segments: int, times: int) -> None:
        for name in STRATEGIES:
            strategy = get_strategy(name, segments=segments)
            assert strategy.most_masked(segments * times) == times
            assert strategy.most_masked(segments * times + 1) == times + 1
            assert strategy.most_masked(segments - 1) == 1


class TestFullInOneStep:
    @quick
    @given(maskables, st.integers(2, 70), epochs, seeds)
    def test_masks_are_a_partition(self, maskable: np.ndarray, segments: int, epoch: int, seed: int) -> None:
        strategy = get_strategy("fully-explored", segments=segments, scope="batch")
        check_partition(strategy.masks(maskable, ids_of(maskable), epoch, seed), maskable)

    def test_epochs_are_independent(self) -> None:
        strategy = get_strategy("fully-explored", segments=2, scope="batch")
        check_pairs(passes(strategy, rows_of([1] * 4, 3600), range(3, 5)), 0, 2)


class TestFullOverEpochs:
    @quick
    @given(maskables, st.integers(2, 20), st.integers(0, 500), seeds)
    def test_k_passes_are_a_partition(
        self, maskable: np.ndarray, segments: int, cycle: int, seed: int
    ) -> None:
        strategy = get_strategy("fully-explored", segments=segments, scope="epoch")
        begin = segments * cycle
        check_partition(passes(strategy, maskable, range(begin, begin + segments), seed), maskable)

    def test_k_passes_that_begin_elsewhere_are_none(self) -> None:
        masks = passes(SEVEN["epoch"], rows_of([1] * 60, 20), range(3, 10))
        assert (masks.sum(axis=1) != 1).any(axis=1).all()

    @pytest.mark.parametrize("n", [3, 10, 23])
    def test_no_pass_holds_all_the_larger_segments(self, n: int) -> None:
        rows = 4000
        sizes = passes(SEVEN["epoch"], rows_of([1] * n, rows), range(14)).sum(axis=(0, 2))
        deviation = math.sqrt(rows * (n % 7 / 7) * (1 - n % 7 / 7))
        assert np.abs(sizes - rows * n / 7).max() < 3.5 * deviation
        assert np.abs(sizes - rows * n / 7).max() > 0.3 * deviation  # rows turn independently

    @pytest.mark.parametrize(("a", "b"), [(0, 2), (0, 3), (1, 2), (1, 3), (1, 4), (2, 5)])
    def test_partitions_of_different_cycles_are_independent(self, a: int, b: int) -> None:
        strategy = get_strategy("fully-explored", segments=2, scope="epoch")
        check_pairs(passes(strategy, rows_of([1] * 4, 3600), range(6)), a, b)

    def test_rows_are_independent(self) -> None:
        strategy = get_strategy("fully-explored", segments=2, scope="epoch")
        masks = strategy.masks(rows_of([1] * 4, 7200), np.arange(7200))[:, 0]
        check_pairs(masks.reshape(3600, 2, 4), 0, 1)


class TestRandom:
    @pytest.mark.parametrize("rate", [0.05, 0.15, 0.5, 0.97])
    @pytest.mark.parametrize("n", [1, 17, 20])
    def test_mean_size(self, rate: float, n: int) -> None:
        strategy = get_strategy("random", rate=rate, masks_per_sequence=2)
        masks = [strategy.masks(rows_of([1] * n, 20), np.arange(20), seed=seed) for seed in range(60)]
        up = np.concatenate(masks).sum(axis=2) - math.floor(rate * n + 1e-9)
        assert set(up.ravel().tolist()) <= {0, 1}
        for mask in range(2):
            remainder = min(max(rate * n - math.floor(rate * n + 1e-9), 0), 1)
            assert stats.binomtest(int(up[:, mask].sum()), 1200, remainder).pvalue > UNLIKELY

    def test_masks_of_one_step_epochs_and_rows_are_independent(self) -> None:
        one, three = (get_strategy("random", rate=0.5, masks_per_sequence=m) for m in (1, 3))
        maskable = rows_of([1] * 4, 3600)
        for a, b in itertools.combinations(range(3), 2):
            check_pairs(three.masks(maskable, np.arange(3600)), a, b)
        check_pairs(passes(one, maskable, range(2)), 0, 1)
        over_epochs = passes(three, maskable, range(4, 7))  # three masks of each of three epochs
        for a, b in itertools.combinations(range(9), 2):
            check_pairs(over_epochs, a, b, among=36)
        rows = one.masks(rows_of([1] * 4, 7200), np.arange(7200))[:, 0]
        check_pairs(rows.reshape(3600, 2, 4), 0, 1)

    def test_sizes_of_the_masks_of_one_step_are_independent(self) -> None:
        strategy = get_strategy("random", rate=0.5, masks_per_sequence=2)
        sizes = strategy.masks(rows_of([1] * 3, 4000), np.arange(4000)).sum(axis=2) - 1
        assert stats.chisquare(np.bincount(sizes @ [1, 2], minlength=4)).pvalue > UNLIKELY


def check_pairs(masks: np.ndarray, a: int, b: int, *, among: int = 1) -> None:
    """Masks a and b of many rows of four tokens: all 36 pairs of two-token masks are equally likely.

    `among`: how many such tests are made together (Bonferroni).
    """
    index = {pair: i for i, pair in enumerate(itertools.combinations(range(4), 2))}
    first, second = (
        np.array([index[tuple(np.flatnonzero(mask).tolist())] for mask in masks[:, which]])  # type: ignore[index]
        for which in (a, b)
    )
    counts = np.bincount(first * 6 + second, minlength=36)
    assert stats.chisquare(counts).pvalue > UNLIKELY / among


class TestGetStrategy:
    def test_names(self) -> None:
        assert set(STRATEGIES) >= {"random", "fully-explored"}
        for name in STRATEGIES:
            assert get_strategy(name).name == name
        for wrong, hint in [("fuly-explored", "did you mean 'fully-explored'"), ("Random", "'random'")]:
            with pytest.raises(UserError) as caught:
                get_strategy(wrong)
            assert hint in str(caught.value)
            assert all(name in str(caught.value) for name in STRATEGIES)
        with pytest.raises(UserError, match="unknown masking strategy 'xyzzy': known are"):
            get_strategy("xyzzy")

    def test_defaults(self) -> None:
        full, random = get_strategy("fully-explored"), get_strategy("random")
        assert (full.segments, full.rate, full.scope, full.masks_per_sequence) == (7, 1 / 7, "epoch", 1)
        assert (random.segments, random.rate, random.masks_per_sequence) == (7, 1 / 7, 1)
        assert full.corruption == Corruption(0.8, 0.1, 0.1, "stratified")

    @pytest.mark.parametrize("name", STRATEGIES)
    @pytest.mark.parametrize("segments", [2, 3, 7, 49, 1000])
    def test_segments_give_the_rate_and_the_rate_gives_the_segments(self, name: str, segments: int) -> None:
        assert get_strategy(name, segments=segments).rate == 1 / segments
        assert get_strategy(name, rate=1 / segments).segments == segments
        assert get_strategy(name, segments=segments, rate=1 / segments) == get_strategy(
            name, segments=segments
        )

    def test_rates_near_one_over_k(self) -> None:
        assert get_strategy("fully-explored", rate=0.15).rate == 1 / 7
        assert get_strategy("random", rate=0.15).rate == 0.15

    @given(strategies())
    @quick
    def test_what_was_resolved_resolves_to_itself(self, strategy: Strategy) -> None:
        again = get_strategy(
            strategy.name,
            segments=strategy.segments,
            rate=strategy.rate,
            scope=strategy.scope if strategy.exploration == "full" else None,
            masks_per_sequence=strategy.masks_per_sequence,
        )
        assert again == strategy

    @pytest.mark.parametrize(
        ("name", "given", "message"),
        [
            ("fully-explored", {"rate": 0.8}, r"masking\.rate 0\.8 is impossible"),
            ("fully-explored", {"rate": 0.4}, r"masking\.rate 0\.4 is impossible"),
            (
                "fully-explored",
                {"rate": 0.15, "segments": 6},
                r"0\.15 and masking\.segments 6 contradict.*segments 7",
            ),
            ("fully-explored", {"rate": 0.0}, r"masking\.rate must lie between 0 and 1, not 0"),
            ("random", {"rate": 1.0}, r"masking\.rate must lie between 0 and 1, not 1"),
            ("random", {"rate": -0.1}, r"masking\.rate must lie"),
            ("random", {"segments": 1}, r"masking\.segments must be at least 2, not 1"),
            ("fully-explored", {"segments": 1}, r"masking\.segments must be at least 2, not 1"),
            ("random", {"scope": "batch"}, r"scope batch is for full exploration.*masks_per_sequence"),
            ("fully-explored", {"masks_per_sequence": 2}, r"masks_per_sequence 2 does not fit"),
            ("fully-explored", {"masks_per_sequence": 2, "scope": "batch"}, "masks_per_sequence 2 does not"),
            ("fully-explored", {"masks_per_sequence": 7, "scope": "epoch"}, "masks_per_sequence 7 does not"),
        ],
    )
    def test_what_does_not_fit(self, name: str, given: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            get_strategy(name, **given)
        assert "\n" not in str(caught.value)

    def test_scope_batch_has_all_segments_in_one_step(self) -> None:
        given = get_strategy("fully-explored", segments=5, scope="batch", masks_per_sequence=5)
        assert given == get_strategy("fully-explored", segments=5, scope="batch")
        assert given.masks_per_sequence == 5

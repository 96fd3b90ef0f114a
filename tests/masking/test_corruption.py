import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from fmlm_cli import keys
from fmlm_cli.masking import Corruption, RowView, get_strategy
from tests.masking.laws import UNLIKELY, Rows, alike, any_rows, any_seed, p_independent, quick

MASK = 3  # the id of [MASK] here; the original ids begin at 1000, the ordinary ones lie between
ORDINARY = np.array([10, 11, 14, 15, 16, 19, 20, 500, 501, 777])
DRAWS = ("stratified", "independent")
masks_of = hnp.arrays(np.bool_, st.tuples(st.integers(0, 6), st.integers(1, 60)))


@st.composite
def corruptions(draw: st.DrawFn) -> Corruption:
    a, b = sorted(draw(st.tuples(st.integers(0, 20), st.integers(0, 20))))
    return Corruption(a / 20, (b - a) / 20, (20 - b) / 20, draw(st.sampled_from(DRAWS)))


def ids_like(masks: np.ndarray) -> np.ndarray:
    return np.arange(1000, 1000 + masks.size).reshape(masks.shape)


def view_with(ids: np.ndarray, row_ids: np.ndarray | None = None) -> RowView:
    """Rows of these tokens, whatever can be masked of them."""
    row_ids = np.arange(len(ids)) if row_ids is None else row_ids
    return RowView(np.ones(ids.shape, bool), None, row_ids, ids)


def corrupt(corruption: Corruption, masks: np.ndarray, seed: int = 0, ordinary: np.ndarray = ORDINARY) -> Any:
    """Rows of ids that are all different, before and after."""
    before = ids_like(masks)
    key = keys.derive(seed, 1, np.arange(len(masks)))
    return before, corruption(before.copy(), masks, key, mask_id=MASK, ordinary_ids=ordinary)


def counts_of(corruption: Corruption, masks: np.ndarray, seed: int = 0) -> np.ndarray:
    """How many of every row's masked positions became [MASK], became random and stayed: int[rows, 3]."""
    before, after = corrupt(corruption, masks, seed)
    to_mask, kept = after == MASK, (after == before) & masks
    return np.stack([to_mask.sum(1), (masks & ~to_mask & ~kept).sum(1), kept.sum(1)], axis=1)


def shares_of(corruption: Corruption) -> np.ndarray:
    return np.array([corruption.mask, corruption.random, corruption.keep])


class TestEveryRow:
    @quick
    @given(masks_of, corruptions(), any_seed)
    def test_only_masked_positions_change_and_only_into_known_ids(
        self, masks: np.ndarray, corruption: Corruption, seed: int
    ) -> None:
        before, after = corrupt(corruption, masks, seed)
        assert after.dtype == np.int64
        assert np.array_equal(after[~masks], before[~masks])
        changed = after != before
        assert np.isin(after[changed], [MASK, *ORDINARY]).all()

    @quick
    @given(masks_of, corruptions(), any_seed)
    def test_stratified_counts_are_the_shares_rounded(
        self, masks: np.ndarray, corruption: Corruption, seed: int
    ) -> None:
        corruption = Corruption(*shares_of(corruption).tolist(), "stratified")
        counts = counts_of(corruption, masks, seed)
        exact = masks.sum(axis=1)[:, None] * shares_of(corruption)
        assert (np.abs(counts - exact) < 1 + 1e-9).all()
        assert np.array_equal(counts.sum(axis=1), masks.sum(axis=1))

    @pytest.mark.parametrize("draw", DRAWS)
    @pytest.mark.parametrize("only", range(3), ids=["mask", "random", "keep"])
    def test_a_share_of_one_is_exact(self, only: int, draw: Any) -> None:
        shares = np.eye(3)[only].tolist()
        masks = np.random.default_rng(0).random((400, 60)) < 0.3
        counts = counts_of(Corruption(*shares, draw), masks)
        assert np.array_equal(counts[:, only], masks.sum(axis=1))

    @pytest.mark.parametrize("draw", DRAWS)
    def test_does_not_depend_on_the_batch(self, draw: Any) -> None:
        masks = np.random.default_rng(1).random((20, 40)) < 0.4
        before, key = ids_like(masks), keys.derive(np.arange(20))
        corruption = Corruption(0.5, 0.3, 0.2, draw)
        whole = corruption(before, masks, key, mask_id=MASK, ordinary_ids=ORDINARY)
        for order in ([7], [3, 19, 0], list(range(19, -1, -1))):
            part = corruption(before[order], masks[order], key[order], mask_id=MASK, ordinary_ids=ORDINARY)
            assert np.array_equal(part, whole[order])

    @pytest.mark.parametrize("key", [0xB492FCDFA3FF4073, 0x93CA48E2DE6B5CE4, 0xBFA640CA2C5F83AD])
    def test_does_not_depend_on_the_batch_where_two_draws_are_alike(self, key: int) -> None:
        """Of these keys' first 4096 draws two agree in their upper halves: with the border of [MASK] between
        them."""
        length = 4096
        draws = keys.bits(np.uint64(key), np.arange(length)) >> np.uint64(32)
        (rank,) = np.flatnonzero(np.diff(np.sort(draws)) == 0).tolist()

        def alone(corruption: Corruption, batch: int, place: int) -> np.ndarray:
            its_keys = keys.derive(9, np.arange(batch))
            its_keys[place] = key
            ids = np.tile(np.arange(1000, 1000 + length), (batch, 1))
            masks = np.random.default_rng(batch).random((batch, length)) < 0.3
            masks[place] = True
            return corruption(ids, masks, its_keys, mask_id=MASK, ordinary_ids=ORDINARY)[place]

        borders = [(rank + shift) / length for shift in (0.5, 1.0, 1.5)]  # one of them, however it is rounded
        for corruption in (Corruption(share, 0, 1 - share) for share in borders):
            first = alone(corruption, 1, 0)
            for batch, place in ((2, 0), (2, 1), (3, 1), (5, 4), (9, 0), (9, 5), (9, 8)):
                assert np.array_equal(alone(corruption, batch, place), first)


class TestLaw:
    @pytest.mark.parametrize("draw", DRAWS)
    @pytest.mark.parametrize("t", [1, 2, 9, 10, 18])
    @pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.35, 0.5, 0.15), (0.5, 0, 0.5)])
    def test_shares_hold_on_average(self, shares: tuple[float, ...], t: int, draw: Any) -> None:
        rows = 4000
        counts = counts_of(Corruption(*shares, draw), np.ones((rows, t), bool))
        for share, count in zip(shares, counts.T, strict=True):
            if draw == "independent":
                expected = stats.binom.pmf(np.arange(t + 1), t, share) * rows
                tail = expected < 5
                observed = np.bincount(count, minlength=t + 1)
                cells = [(observed[~tail], expected[~tail]), (observed[tail].sum(), expected[tail].sum())]
                statistic = sum(float(((o - e) ** 2 / e).sum()) for o, e in cells if np.all(e > 0))
                assert stats.chi2.sf(statistic, max(1, (~tail).sum())) > UNLIKELY
            else:
                down = math.floor(share * t + 1e-9)
                remainder = max(0.0, share * t - down)
                assert set(count.tolist()) <= {down, down + 1}
                assert stats.binomtest(int((count - down).sum()), rows, remainder).pvalue > UNLIKELY

    @pytest.mark.parametrize("draw", DRAWS)
    def test_every_position_is_as_likely_to_become_mask(self, draw: Any) -> None:
        rows, pattern = 6000, np.array([0, 1, 1, 0, 1, 1, 1, 0, 1, 0], bool)
        masks = np.tile(pattern, (rows, 1))
        before, after = corrupt(Corruption(0.5, 0.25, 0.25, draw), masks)
        for kind, share in ((after == MASK, 0.5), ((after == before) & masks, 0.25)):
            for count in kind[:, pattern].sum(axis=0).tolist():
                assert stats.binomtest(count, rows, share).pvalue > UNLIKELY

    def test_every_choice_of_positions_is_equally_likely_when_stratified(self) -> None:
        rows = 6000
        before, after = corrupt(Corruption(0.5, 0.25, 0.25), np.ones((rows, 4), bool))
        kinds = np.where(after == MASK, "m", np.where(after == before, "k", "r"))
        possible = sorted(set(itertools.permutations("mmrk")))
        drawn = ["".join(row) for row in kinds.tolist()]
        counts = [drawn.count("".join(p)) for p in possible]
        assert sum(counts) == rows
        assert stats.chisquare(counts).pvalue > UNLIKELY

    def test_counts_and_positions_are_independent_when_stratified(self) -> None:
        _, after = corrupt(Corruption(0.5, 0.25, 0.25), np.ones((8000, 5), bool))
        to_mask = after == MASK
        for count in (2, 3):
            chosen = to_mask[to_mask.sum(axis=1) == count]
            subsets = list(itertools.combinations(range(5), count))
            drawn = [tuple(np.flatnonzero(row).tolist()) for row in chosen]
            assert stats.chisquare([drawn.count(subset) for subset in subsets]).pvalue > UNLIKELY
            assert stats.binomtest(len(chosen), 8000, 0.5).pvalue > UNLIKELY

    def test_tokens_are_drawn_one_by_one_when_independent(self) -> None:
        before, after = corrupt(Corruption(0.5, 0.25, 0.25, "independent"), np.ones((8000, 2), bool))
        kinds = np.where(after == MASK, 0, np.where(after == before, 1, 2))
        p = np.array([0.5, 0.25, 0.25])
        counts = np.bincount(kinds @ [3, 1], minlength=9)
        assert stats.chisquare(counts, 8000 * np.outer(p, p).ravel()).pvalue > UNLIKELY

    @pytest.mark.parametrize("draw", DRAWS)
    def test_replacements_are_uniform_and_independent(self, draw: Any) -> None:
        _, after = corrupt(Corruption(0, 1, 0, draw), np.ones((5000, 6), bool))
        place = np.searchsorted(ORDINARY, after)
        assert np.array_equal(ORDINARY[place], after)
        assert stats.chisquare(np.bincount(place.ravel(), minlength=10)).pvalue > UNLIKELY
        for a, b in (
            (place[:, 0], place[:, 1]),
            (place[:, 0], place[:, 5]),
            (place[:-1, 0], place[1:, 0]),
        ):
            assert stats.chisquare(np.bincount(a * 10 + b, minlength=100)).pvalue > UNLIKELY

    @pytest.mark.parametrize("draw", DRAWS)
    def test_replacements_do_not_depend_on_what_was_there_or_on_the_count(self, draw: Any) -> None:
        """With tokens drawn by the very bits that chose the positions, some ids would be favoured."""
        masks = np.ones((20_000, 5), bool)
        before, after = corrupt(Corruption(0.7, 0.2, 0.1, draw), masks)
        replaced = (after != before) & (after != MASK)
        place = np.searchsorted(ORDINARY, after[replaced])
        assert len(place) > 15_000
        assert stats.chisquare(np.bincount(place, minlength=10)).pvalue > UNLIKELY

    @pytest.mark.parametrize("draw", DRAWS)
    def test_which_token_does_not_depend_on_what_the_others_became(self, draw: Any) -> None:
        """A token and a kind are drawn from two halves of the same bits, which must have nothing in
        common."""
        before, after = corrupt(Corruption(0.2, 0.6, 0.2, draw), np.ones((30_000, 3), bool))
        kinds = np.where(after == MASK, 0, np.where(after == before, 1, 2))
        first = kinds[:, 0] == 2
        place = np.searchsorted(ORDINARY, after[first, 0])
        assert p_independent(place, kinds[first, 1]) > UNLIKELY
        assert p_independent(place, kinds[first, 2]) > UNLIKELY
        assert p_independent(place, np.flatnonzero(first) % 2) > UNLIKELY

    @pytest.mark.parametrize("draw", DRAWS)
    def test_which_token_does_not_depend_on_the_share_that_is_replaced(self, draw: Any) -> None:
        """Small shares would show the first or the last tokens only, were they drawn by the kind's bits."""
        for mask, random in ((0.0, 0.05), (0.95, 0.05), (0.5, 0.05)):
            corruption = Corruption(mask, random, 1 - mask - random, draw)
            before, after = corrupt(corruption, np.ones((20_000, 10), bool))
            place = np.searchsorted(ORDINARY, after[(after != before) & (after != MASK)])
            assert len(place) > 9000
            assert stats.chisquare(np.bincount(place, minlength=10)).pvalue > UNLIKELY

    def test_replacements_reach_every_token_of_a_large_vocabulary(self) -> None:
        ordinary = np.random.default_rng(0).permutation(70_000)[:50_000]
        _, after = corrupt(Corruption(0, 1, 0), np.ones((4000, 250), bool), ordinary=ordinary)
        counts = np.bincount(after.ravel(), minlength=70_000)
        assert counts[np.setdiff1d(np.arange(70_000), ordinary)].sum() == 0
        assert stats.chisquare(counts[ordinary]).pvalue > UNLIKELY

    def test_one_ordinary_id(self) -> None:
        _, after = corrupt(Corruption(0, 1, 0), np.ones((3, 5), bool), ordinary=np.array([42]))
        assert (after == 42).all()


class TestStrategyCorrupt:
    @quick
    @given(
        any_rows(),
        st.sampled_from(["random", "batch", "epoch"]),
        corruptions(),
        st.integers(0, 1000),
        any_seed,
    )
    def test_labels_are_the_original_ids_where_masked(
        self, rows: Rows, kind: str, corruption: Corruption, epoch: int, seed: int
    ) -> None:
        strategy = (
            get_strategy("random", rate=0.3, masks_per_sequence=3, corruption=corruption)
            if kind == "random"
            else get_strategy("fully-explored", segments=4, scope=kind, corruption=corruption)  # type: ignore[arg-type]
        )
        masks, ids = rows.masks(strategy, epoch, seed), ids_like(rows.maskable)
        before, view = ids.copy(), replace(rows.view, input_ids=ids)
        corrupted, labels = strategy.corrupt(view, masks, epoch, seed, mask_id=MASK, ordinary_ids=ORDINARY)
        assert np.array_equal(ids, before)
        assert corrupted.dtype == labels.dtype == np.int64
        assert corrupted.shape == labels.shape == masks.shape
        for row, mask in np.ndindex(masks.shape[:2]):
            chosen = masks[row, mask]
            assert labels[row, mask, chosen].tolist() == ids[row, chosen].tolist()
            assert set(labels[row, mask, ~chosen].tolist()) <= {-100}
            assert np.array_equal(corrupted[row, mask, ~chosen], ids[row, ~chosen])
            new = corrupted[row, mask, chosen]
            assert np.isin(new[new != ids[row, chosen]], [MASK, *ORDINARY]).all()

    def test_every_mask_epoch_row_and_seed_draws_anew_and_no_other(self) -> None:
        strategy = get_strategy(
            "random", masks_per_sequence=2, corruption=Corruption(0.4, 0.3, 0.3, "independent")
        )
        ids = np.arange(1000, 1060)[None]
        masks = np.ones((1, 2, 60), bool)

        def seen(row_id: int = 5, epoch: Any = 0, seed: int = 0) -> np.ndarray:
            view = view_with(ids, np.array([row_id]))
            return strategy.corrupt(view, masks, epoch, seed, mask_id=MASK, ordinary_ids=ORDINARY)[0]

        rows = [seen(), seen(row_id=-6), seen(epoch=1), seen(seed=1), seen(seed=2**63 - 1)]
        assert len(np.unique(np.concatenate(rows, axis=1)[0], axis=0)) == 10
        assert np.array_equal(seen(), seen(epoch=np.array([0])))
        together = strategy.corrupt(
            view_with(np.repeat(ids, 3, axis=0), np.array([-6, 5, 5])),
            np.repeat(masks, 3, axis=0),
            np.array([0, 1, 0]),
            0,
            mask_id=MASK,
            ordinary_ids=ORDINARY,
        )[0]
        assert np.array_equal(together, np.concatenate([seen(-6), seen(epoch=1), seen()]))

    @pytest.mark.parametrize("draw", DRAWS)
    def test_shares_hold_in_each_of_k_masks(self, draw: Any) -> None:
        corruption = Corruption(0.6, 0.3, 0.1, draw)
        strategy = get_strategy("fully-explored", segments=3, scope="batch", corruption=corruption)
        rows = alike([2] * 30, 2000)
        masks, ids = rows.masks(strategy), ids_like(rows.maskable)
        view = view_with(ids, rows.row_ids)
        corrupted, _ = strategy.corrupt(view, masks, mask_id=MASK, ordinary_ids=ORDINARY)
        to_mask, kept = corrupted == MASK, corrupted == ids[:, None]
        for mask in range(3):
            counts = [int((to_mask & masks)[:, mask].sum()), int((kept & masks)[:, mask].sum())]
            if draw == "stratified":
                assert counts == [2000 * 6, 2000]  # of ten tokens in each mask
            else:
                for count, share in zip(counts, (0.6, 0.1), strict=True):
                    assert stats.binomtest(count, 20_000, share).pvalue > UNLIKELY

    @pytest.mark.parametrize("draw", DRAWS)
    def test_masks_of_one_step_are_corrupted_independently(self, draw: Any) -> None:
        strategy = get_strategy("random", masks_per_sequence=3, corruption=Corruption(0.5, 0.25, 0.25, draw))
        ids = np.tile(np.arange(1000, 1004), (6000, 1))
        corrupted, _ = strategy.corrupt(
            view_with(ids), np.ones((6000, 3, 4), bool), mask_id=MASK, ordinary_ids=ORDINARY
        )
        kinds = np.where(corrupted == MASK, 0, np.where(corrupted == ids[:, None], 1, 2))
        for a, b in itertools.combinations(range(3), 2):
            assert p_independent(kinds[:, a, 0], kinds[:, b, 0]) > UNLIKELY
        assert p_independent(kinds[:-1, 0, 0], kinds[1:, 0, 0]) > UNLIKELY

    def test_what_a_position_shows_does_not_depend_on_how_masks_were_drawn(self) -> None:
        """Streams for masks and for corruption differ: among masked positions the shares hold everywhere."""
        rows = 6000
        strategy = get_strategy(
            "fully-explored", segments=2, corruption=Corruption(0.5, 0.25, 0.25, "independent")
        )
        masks = alike([2] * 7, rows).masks(strategy)
        ids = ids_like(masks[:, 0])
        corrupted, _ = strategy.corrupt(view_with(ids), masks, mask_id=MASK, ordinary_ids=ORDINARY)
        for position in range(7):
            chosen = corrupted[:, 0, position][masks[:, 0, position]]
            assert stats.binomtest(int((chosen == MASK).sum()), len(chosen), 0.5).pvalue > UNLIKELY

    def test_how_many_of_a_mask_are_replaced_does_not_depend_on_how_it_was_drawn(self) -> None:
        """Drawn one by one, the counts are binomial: with the masks' own stream they would spread far
        wider."""
        rows, length = 4000, 40
        strategy = get_strategy("random", rate=0.5, corruption=Corruption(0.5, 0.25, 0.25, "independent"))
        masks = strategy.masks(RowView(np.ones((rows, length), bool), None, np.arange(rows)))
        ids = ids_like(masks[:, 0])
        corrupted, _ = strategy.corrupt(view_with(ids), masks, mask_id=MASK, ordinary_ids=ORDINARY)
        counts = (corrupted == MASK).sum(axis=2).ravel()
        statistic = ((counts - 10) ** 2).sum() / (
            20 * 0.25
        )  # chi-squared with `rows` degrees of freedom, nearly
        assert stats.norm.sf(abs(statistic - rows) / np.sqrt(2 * rows)) > UNLIKELY

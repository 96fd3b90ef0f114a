"""The order of rows: passes that are permutations, found at any place, of rows of like length where they differ."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlm_cli.corpus.rows import order as orders
from fmlm_cli.corpus.rows.mixture import Mixture
from fmlm_cli.corpus.rows.order import LikeLengthOrder, RowOrder, order_of
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.objectives.micro_batches import COST_ON_CPU, cut_by_widest

MakeOrder = Callable[[int, int], RowOrder]


def lengths_of(rows: int) -> np.ndarray:
    """As documents have them: a few long ones among many short ones."""
    drawn = np.random.default_rng(rows).lognormal(4.8, 0.9, rows)
    return np.clip(drawn, 3, 510).astype(np.int64)


def like_lengths(rows: int, seed: int) -> LikeLengthOrder:
    lengths = lengths_of(rows)
    return LikeLengthOrder(rows, seed, lambda index: lengths[index])


either = pytest.mark.parametrize("make", [RowOrder, like_lengths])


@either
@pytest.mark.parametrize("window", [12, 4096])
@settings(max_examples=30)
@given(rows=st.integers(1, 300), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 2**31))
def test_every_pass_is_a_permutation(make: MakeOrder, window: int, rows: int, seed: int, epoch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orders, "_WINDOW", window)
        index, found = make(rows, seed).locate(np.arange(epoch * rows, (epoch + 1) * rows))
    assert sorted(index.tolist()) == list(range(rows))
    assert set(found.tolist()) == {epoch}


@either
@given(
    rows=st.integers(10, 50), seed=st.integers(0, 2**63 - 1), places=st.lists(st.integers(0, 100), max_size=8)
)
def test_any_place_of_the_stream_is_found_at_once(
    make: MakeOrder, rows: int, seed: int, places: list[int]
) -> None:
    order = make(rows, seed)
    sequence = order.locate(np.arange(101))[0]
    index, epoch = order.locate(np.array(places, np.int64))
    assert index.tolist() == sequence[places].tolist()
    assert epoch.tolist() == [place // rows for place in places]
    fresh = make(rows, seed)  # one that was asked nothing before
    assert [int(fresh.locate(np.array([place]))[0][0]) for place in reversed(places)] == index[::-1].tolist()


@either
def test_passes_and_seeds_have_orders_of_their_own(make: MakeOrder) -> None:
    found = [
        tuple(make(500, seed).locate(np.arange(epoch * 500, epoch * 500 + 500))[0].tolist())
        for seed in range(4)
        for epoch in range(5)
    ]
    assert len(set(found)) == 20
    for one in range(20):
        for two in range(one):
            agree = sum(a == b for a, b in zip(found[one], found[two], strict=True))
            assert agree < 60  # one is expected, or some groups of like length
    natural = sum(place == row for order in found for place, row in enumerate(order))
    assert natural < 50  # twenty are expected


@either
@pytest.mark.parametrize("row", [3, 7])
def test_the_stream_is_as_even_as_chance(make: MakeOrder, row: int) -> None:
    """A row's place in a pass is any with the same probability, whatever its length."""
    place = [int(np.flatnonzero(make(12, seed).locate(np.arange(12))[0] == row)[0]) for seed in range(600)]
    counts = np.bincount(place, minlength=12)
    assert ((counts - 50) ** 2 / 50).sum() < 44  # chi-square of eleven degrees: one in a hundred thousand


def steps_of(order: RowOrder, size: int) -> np.ndarray:
    """Lengths of the rows of each step of a pass, [steps, size]."""
    index, _ = order.locate(np.arange(order.rows // size * size))
    return lengths_of(order.rows)[index].reshape(-1, size)


def padding_of(order: RowOrder, size: int) -> float:
    """Share of padding among all positions that are computed, in steps of one micro-batch's room."""
    steps = steps_of(order, size)
    needed = np.sort(-(-steps // 8) * 8)[:, ::-1]
    positions = 0
    for row in needed:
        for cut in cut_by_widest(row, 512, 8, COST_ON_CPU):
            positions += cut.width * len(row[cut.part])
    return 1 - float(steps.sum()) / positions


def test_there_is_less_padding_and_fewer_micro_batches_in_like_lengths() -> None:
    chance, alike = RowOrder(4096, 0), like_lengths(4096, 0)
    assert padding_of(alike, 8) < 0.6 * padding_of(chance, 8)
    assert padding_of(alike, 32) < 0.9 * padding_of(chance, 32)


@pytest.mark.parametrize("size", [32, 48, 256])
def test_steps_are_samples_of_all_lengths(size: int) -> None:
    """No step is of short rows alone, whose tokens would weigh more in it: steps are as even as by chance."""

    def spread(order: RowOrder) -> float:
        tokens = steps_of(order, size).sum(axis=1)
        return float(tokens.std() / tokens.mean())

    def mean(make: MakeOrder) -> float:
        return float(np.mean([spread(make(9000, seed)) for seed in range(4)]))

    assert mean(like_lengths) < 1.1 * mean(RowOrder)


def test_rows_of_like_length_stand_together() -> None:
    lengths = steps_of(like_lengths(8192, 3), orders._GROUP)
    assert np.median(np.ptp(lengths, axis=1)) < 8
    assert np.median(np.ptp(steps_of(RowOrder(8192, 3), orders._GROUP), axis=1)) > 100


def test_not_the_same_rows_meet_in_every_pass() -> None:
    """Even where a window holds all rows there are."""
    order, size = like_lengths(2048, 3), orders._GROUP
    passes = [order.locate(np.arange(2048) + 2048 * epoch)[0].reshape(-1, size) for epoch in range(2)]
    first, second = ({frozenset(group) for group in groups.tolist()} for groups in passes)
    assert len(first & second) < 0.05 * len(first)


@pytest.mark.parametrize("packing", ["documents", "concat", "none"])
@pytest.mark.parametrize("max_rows", [None, 50])
def test_a_readers_rows_come_in_the_order_that_suits_them(
    tiny_store: Path, packing: str, max_rows: int | None
) -> None:
    reader = RowReader(
        TokenStore.open(tiny_store),
        "train",
        packing=packing,
        sequence_length=64,
        max_rows=max_rows,  # type: ignore[arg-type]
    )
    order = order_of(reader, 5)
    assert isinstance(order, LikeLengthOrder) == (packing == "none")
    index, _ = order.locate(np.arange(len(reader)))
    assert sorted(index.tolist()) == list(range(len(reader)))
    if packing == "none":
        rows = reader.read(index)
        framed = reader.lengths(index)
        assert framed.tolist() == np.count_nonzero(rows.segments, axis=1).tolist()
        groups = framed[: len(framed) // orders._GROUP * orders._GROUP].reshape(-1, orders._GROUP)
        assert np.median(np.ptp(groups, axis=1)) <= 8


def test_in_a_mixture_groups_stay_together() -> None:
    """A source gives its rows in their order, whatever comes between them."""
    mixture, order = Mixture([2, 1], 3), like_lengths(2048, 1)
    stream, place = mixture.locate(np.arange(3000))
    own = order.locate(place[stream == 0])[0]
    assert own.tolist() == order.locate(np.arange(len(own)))[0].tolist()

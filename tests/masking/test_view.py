"""Rows as masking sees them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.masking import RowView
from fmlm_cli.masking.registry import BUILT_IN
from tests.masking.laws import Rows, alike, any_rows, any_seed, quick, strategy_of

NAMES = list(BUILT_IN)
OPTIONAL = [(), ("word_starts",), ("input_ids",), ("word_starts", "input_ids")]


def same(one: RowView, other: RowView) -> bool:
    return all(
        a is b if a is None or b is None else np.array_equal(a, b)
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


@quick
@given(any_rows(), st.sampled_from(OPTIONAL), st.data())
def test_take_is_each_array_in_turn(rows: Rows, missing: tuple[str, ...], data: st.DataObject) -> None:
    view = replace(rows.view, **dict.fromkeys(missing))
    places = st.lists(st.integers(0, len(rows) - 1), max_size=8) if len(rows) else st.just([])
    order: Any = data.draw(st.slices(len(rows)) | places.map(lambda chosen: np.array(chosen, np.int64)))
    taken = view.take(order)
    for name, array in vars(view).items():
        if name in missing:
            assert getattr(taken, name) is None
        else:
            assert np.array_equal(getattr(taken, name), array[order])
    assert len(taken) == len(np.arange(len(view))[order])
    assert taken.shape == (len(taken), view.shape[1])


@quick
@given(any_rows(), st.integers(1, 4))
def test_repeated_is_every_row_in_turn(rows: Rows, number: int) -> None:
    view = rows.view
    assert same(view.repeated(number), view.take(np.arange(len(view) * number) // number))


@quick
@given(any_rows(least=1), st.sampled_from(NAMES), st.integers(0, 30), any_seed, st.data())
def test_masks_of_some_rows_are_some_of_the_masks(
    rows: Rows, name: str, epoch: int, seed: int, data: st.DataObject
) -> None:
    """Whatever a strategy is given: rows of its own, each several times, or arrays that it cannot write
    to."""
    strategy, view = strategy_of(name, segments=3), rows.view
    masks, units = strategy.masks(view, epoch, seed), strategy.units(view, epoch, seed)
    order = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=6)))
    number = data.draw(st.integers(1, 3))
    for other, rows_of_it in (
        (view.take(order), order),
        (view.repeated(number), np.arange(len(rows) * number) // number),
        (view.read_only(), np.arange(len(rows))),
    ):
        assert np.array_equal(strategy.masks(other, epoch, seed), masks[rows_of_it])
        assert np.array_equal(strategy.units(other, epoch, seed), units[rows_of_it])
        given_ids: Any = {"mask_id": 9, "ordinary_ids": np.arange(4)}
        whole = strategy.corrupt(view, masks, epoch, seed, **given_ids)
        part = strategy.corrupt(other, masks[rows_of_it], epoch, seed, **given_ids)
        for of_part, of_whole in zip(part, whole, strict=True):
            assert np.array_equal(of_part, of_whole[rows_of_it])


def test_read_only_cannot_be_written_to_and_leaves_the_arrays_as_they_are() -> None:
    view = alike([2, 1, 0], 2).view
    locked = view.read_only()
    assert same(locked, view)
    for name, array in vars(locked).items():
        assert np.shares_memory(array, getattr(view, name))
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
        getattr(view, name)[0] = 1
    assert same(view.read_only().take([1]), view.take([1]))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("maskable", np.ones(3, bool)),
        ("maskable", np.ones((2, 1, 3), bool)),
        ("maskable", np.ones((2, 4), bool)),
        ("word_starts", np.ones((2, 4), bool)),
        ("word_starts", np.ones((1, 3), bool)),
        ("row_ids", np.arange(3)),
        ("row_ids", np.array(0)),
        ("input_ids", np.ones(3, np.int64)),
    ],
)
def test_shapes_that_do_not_agree_are_refused(name: str, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"bool\["):
        replace(alike([2, 1, 0], 2).view, **{name: array})


def test_nothing_can_be_corrupted_without_tokens() -> None:
    view = RowView(np.ones((2, 3), bool), None, np.arange(2))
    strategy = strategy_of("random")
    with pytest.raises(ValueError, match="give the RowView its input_ids"):
        strategy.corrupt(view, strategy.masks(view), mask_id=3, ordinary_ids=np.arange(4))

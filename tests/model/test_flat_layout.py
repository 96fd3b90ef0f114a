"""A flat row holds the documents of its rows, end to end, and nothing that any of them could see."""

import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.model.layouts import SHAPES, as_flat
from tests.objectives.made_rows import make_rows

LENGTH = 16
documents_of_rows = st.lists(st.lists(st.integers(2, 5), max_size=3), min_size=1, max_size=6)


@given(lengths=documents_of_rows, more=st.integers(0, 400), seed=st.integers(0, 99))
def test_a_flat_row_is_its_documents(lengths: list[list[int]], more: int, seed: int) -> None:
    rows = make_rows(lengths, LENGTH, seed)
    rng = np.random.default_rng(seed)
    real = np.flatnonzero(rows.segments)
    masked = np.sort(rng.permutation(real)[: len(real) // 3])
    room = len(lengths) * LENGTH + more
    flat = as_flat(rows.input_ids, rows.position_ids, rows.segments, masked, room)
    ids, positions, bounds = (flat[n].numpy() for n in ("input_ids", "position_ids", "cu_seqlens"))
    total, flattened = ids.shape[1], list(itertools.chain.from_iterable(lengths))

    # Every document in order, with its own positions; then others, none of them longer than a row.
    assert bounds[: len(flattened)].tolist() == [0, *itertools.accumulate(flattened)][:-1]
    parts = [(begin, end) for begin, end in itertools.pairwise(bounds.tolist()) if begin < end]
    assert [end - begin for begin, end in parts][: len(flattened)] == flattened
    assert max(end - begin for begin, end in parts) <= flat["max_length"] == LENGTH
    assert bounds[0] == 0 and bounds[-1] == total and parts[-1][1] == total
    for begin, end in parts:
        assert positions[0, begin:end].tolist() == list(range(end - begin))
    assert ids[0, : len(real)].tolist() == rows.input_ids.ravel()[real].tolist()
    index = flat["masked_index"].numpy()
    assert ids[0, index].tolist() == rows.input_ids.ravel()[masked].tolist()
    assert positions[0, index].tolist() == rows.position_ids.ravel()[masked].tolist()
    assert len(real) <= total <= max(room, 64)
    assert bounds.dtype == np.int32 and flat["input_ids"].dtype == torch.int64


@given(st.integers(1, 64), st.integers(4, 64), st.data())
def test_flat_rows_have_few_shapes(rows: int, length: int, data: st.DataObject) -> None:
    """At most as many lengths as said, one of them the room, whatever the documents; and few of the bounds."""
    shapes, bounds = set(), set()
    for _ in range(30):
        used = data.draw(st.integers(0, rows))
        sizes = data.draw(st.lists(st.integers(1, length), min_size=used, max_size=used))
        segments = (np.arange(length) < np.array(sizes, int).reshape(-1, 1)).astype(np.int64)
        zeros = np.zeros_like(segments)
        flat = as_flat(zeros, zeros, segments, np.zeros(0, np.int64), rows * length)
        shapes.add(flat["input_ids"].shape[1])
        bounds.add(len(flat["cu_seqlens"]))
        assert flat["input_ids"].shape[1] - sum(sizes) <= max(64, -(-rows * length // SHAPES))
    assert len(shapes) <= SHAPES
    assert len(bounds) == 1


def test_full_rows_make_rows_of_one_shape() -> None:
    ones = np.ones((8, 128), np.int64)
    for empty in (0, 1, 30, 127):  # padding at the end of the last row
        segments = ones.copy()
        segments[-1, 128 - empty :] = 0
        flat = as_flat(ones, ones, segments, np.zeros(0, np.int64), 8 * 128)
        assert flat["input_ids"].shape == (1, 8 * 128)
        assert len(flat["cu_seqlens"]) == 17

"""Splits that other hands have written, and large ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fmlm_cli.corpus.store.split import Split, TokenSpans
from fmlm_cli.errors import UserError

IDS = [[3, 1, 4], [1], [5, 9, 2, 6]]
STARTS = [[True, False, True], [True], [True, False, False, True]]


def write(path: Path, *batches: pa.RecordBatch, **options: Any) -> None:
    with pa.ipc.new_stream(path, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)


def batch_of(
    ids: list[list[int]], starts: list[list[bool]] | None, type_: pa.DataType | None = None
) -> pa.RecordBatch:
    columns = {"input_ids": pa.array(ids, type_ or pa.list_(pa.uint16()))}
    if starts is not None:
        columns["word_starts"] = pa.array(starts, pa.list_(pa.bool_()))
    return pa.record_batch(columns)


def split_of(folder: Path) -> Split:
    return Split(folder, ["a.arrow"], np.dtype(np.uint16))


def test_slices_and_empty_batches_are_read_as_they_are(tmp_path: Path) -> None:
    whole = batch_of(IDS, STARTS)
    write(tmp_path / "a.arrow", whole[:0], whole[1:], whole[:1], whole[:0])
    split = split_of(tmp_path)
    assert split.lengths.tolist() == [1, 4, 3]
    found = [(ids.tolist(), starts.tolist()) for ids, starts in split.documents()]
    assert found == [(IDS[number], STARTS[number]) for number in (1, 2, 0)]


def test_one_without_word_starts_says_so(tmp_path: Path) -> None:
    write(tmp_path / "a.arrow", batch_of(IDS, None))
    split = split_of(tmp_path)
    assert not split.has_word_starts
    ids, starts = split.read(TokenSpans(np.array([2]), np.array([1]), np.array([2])))
    assert ids.tolist() == [9, 2] and starts.tolist() == [False, False]


@pytest.mark.parametrize(
    ("batch", "options", "reason"),
    [
        (batch_of(IDS, STARTS, pa.large_list(pa.uint16())), {}, "input_ids is large_list"),
        (batch_of(IDS, STARTS, pa.list_(pa.int64())), {}, "input_ids is list<item: int64>"),
        (batch_of([list(range(9999))], None), {"compression": "lz4"}, "compressed"),
        (pa.record_batch({"text": ["a"]}), {}, "input_ids"),
    ],
)
def test_what_cannot_be_mapped_is_refused(
    tmp_path: Path, batch: pa.RecordBatch, options: dict[str, Any], reason: str
) -> None:
    write(tmp_path / "a.arrow", batch, **options)
    with pytest.raises(UserError, match=f"a.arrow is no Arrow stream of tokens .*{reason}"):
        split_of(tmp_path)


@pytest.mark.slow
def test_files_of_more_than_256_mib_are_read(tmp_path: Path) -> None:
    """Whose bits are more than an int32 counts."""
    half = np.arange(1 << 26, dtype=np.uint16)
    starts = half % 3 == 0
    offsets = pa.array(np.array([0, 5, len(half)], np.int32))
    columns = [pa.ListArray.from_arrays(offsets, pa.array(part)) for part in (half, starts)]
    batch = pa.record_batch(columns, ["input_ids", "word_starts"])
    write(tmp_path / "a.arrow", batch, batch, batch)
    assert (tmp_path / "a.arrow").stat().st_size * 8 > 1 << 31
    split = split_of(tmp_path)
    assert split.lengths.tolist() == [5, len(half) - 5] * 3
    for number in (1, 5):
        ids, words = split.read(TokenSpans(np.array([number]), np.array([len(half) - 10]), np.array([5])))
        assert ids.tolist() == half[-5:].tolist() and words.tolist() == starts[-5:].tolist()

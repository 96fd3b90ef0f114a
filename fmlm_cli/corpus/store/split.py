"""One split of a token store, mapped into memory: any tokens of any documents, without an index in memory.

Where a document lies is written in the files themselves, in the offsets of Arrow's lists. All that is read
when a split is opened is where in its files the record batches have theirs: some numbers for two million
tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fmlm_cli.errors import UserError, one_line

Bools = npt.NDArray[np.bool_]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenSpans:
    """Stretches: `length[i]` tokens of document `document[i]` from token `start[i]` on. int64[n] each."""

    document: Int64s
    start: Int64s
    length: Int64s

    @cached_property
    def _before(self) -> Int64s:
        """Tokens of all spans before each."""
        return np.cumsum(self.length) - self.length

    @cached_property
    def total(self) -> int:
        """Tokens of all spans."""
        return int(self.length.sum())

    @cached_property
    def within(self) -> Int64s:
        """For every token of every span in turn, its offset within its span. int64[total]"""
        return self.spread(np.zeros_like(self.length))

    def spread(self, first: Int64s) -> Int64s:
        """For every token of every span in turn, its offset in its span plus that's `first`. int64[total]"""
        every = np.repeat(first - self._before, self.length)
        every += np.arange(self.total)
        return every


class Split:
    """One split of a store, mapped into memory.

    `has_word_starts`: whether it says where words begin; one that was made by other hands may not. Raises
    `UserError` for files that are no such Arrow streams.
    """

    has_word_starts = True

    def __init__(self, folder: Path, files: Sequence[str], dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._bytes: list[npt.NDArray[np.uint8]] = []
        located: list[tuple[int, ...]] = []
        for number, name in enumerate(files):
            try:
                located += [(number, *numbers) for numbers in self._locate(folder / name)]
            except (pa.ArrowException, KeyError, ValueError) as error:  # of a file whose hash was not checked
                raise UserError(
                    f"damaged store: {folder / name} is no Arrow stream of tokens ({one_line(error)}); "
                    "tokenize the corpus again (--overwrite)"
                ) from error
        columns = np.array(located, np.int64).reshape(-1, 5).T
        self._file, documents, self._offsets_at, self._tokens_at, self._bits_at = columns
        self._first = np.concatenate([[0], np.cumsum(documents)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def _locate(self, path: Path) -> Iterator[tuple[int, int, int, int]]:
        """Map one Arrow file. Yields for each record batch with documents how many it has, and where.

        Counted from the file's start: in int32s, where their offsets lie; in tokens and in bits, where the
        tokens and the word starts lie that these are offsets in.
        """
        buffer = pa.memory_map(str(path)).read_buffer()
        self._bytes.append(np.frombuffer(buffer, np.uint8))
        for batch in pa.ipc.open_stream(buffer):
            self.has_word_starts &= "word_starts" in batch.schema.names
            if not len(batch):
                continue
            ids = batch.column("input_ids")
            if not pa.types.is_list(ids.type) or ids.type.value_type != pa.from_numpy_dtype(self._dtype):
                raise ValueError(f"input_ids is {ids.type}")
            offsets = _place(ids.buffers()[1], buffer, np.dtype(np.int32)) + ids.offset
            tokens, bits = 0, 0
            if len(ids.values):
                tokens = _place(ids.values.buffers()[1], buffer, self._dtype) + ids.values.offset
            if self.has_word_starts:
                words = batch.column("word_starts")
                between = words.offsets[0].as_py() - ids.offsets[0].as_py()
                if len(words.values):
                    bits = _place(words.values.buffers()[1], buffer, np.dtype(np.uint8)) * 8
                bits += words.values.offset + between
            yield len(batch), offsets, tokens, bits

    @property
    def lengths(self) -> Int32s:
        """Tokens in each document: int32[documents]. Read from the files each time."""
        parts = [
            np.diff(self._items(file, np.int32)[at : at + documents + 1])
            for file, at, documents in zip(
                self._file.tolist(), self._offsets_at.tolist(), np.diff(self._first).tolist(), strict=True
            )
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def _items(self, file: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A file seen as numbers of a type, from its start."""
        raw = self._bytes[file]
        size = np.dtype(dtype).itemsize
        return raw[: raw.size // size * size].view(dtype)

    def read(self, spans: TokenSpans) -> tuple[Int64s, Bools]:
        """Token ids, int64[total], and word starts, bool[total] (without any, all False), of the spans."""
        batch = np.searchsorted(self._first, spans.document, side="right") - 1
        if len(self._bytes) == 1:
            return self._read_file(0, batch, spans)
        ids = np.empty(spans.total, np.int64)
        words = np.zeros(spans.total, np.bool_)
        files = self._file[batch]
        for file in np.unique(files).tolist():  # of up to 512 MB: a batch of rows touches few
            mine = files == file
            in_file = np.repeat(mine, spans.length)
            part = TokenSpans(spans.document[mine], spans.start[mine], spans.length[mine])
            ids[in_file], words[in_file] = self._read_file(file, batch[mine], part)
        return ids, words

    def _read_file(self, file: int, batch: Int64s, spans: TokenSpans) -> tuple[Int64s, Bools]:
        """The same of spans in one file. `batch`: int64[spans], the record batches that they lie in."""
        offset = self._items(file, np.int32)[self._offsets_at[batch] + spans.document - self._first[batch]]
        first = offset + spans.start
        ids = self._items(file, self._dtype)[spans.spread(self._tokens_at[batch] + first)].astype(np.int64)
        if not self.has_word_starts:
            return ids, np.zeros(spans.total, np.bool_)
        bits = spans.spread(self._bits_at[batch] + first)
        words = (self._bytes[file][bits >> 3] >> (bits & 7).astype(np.uint8)) & 1
        return ids, words.view(np.bool_)

    def documents(self) -> Iterator[tuple[Int64s, Bools]]:
        """Every document's ids and word starts, in order."""
        for number, length in enumerate(self.lengths.tolist()):
            yield self.read(TokenSpans(np.array([number]), np.array([0]), np.array([length])))


def _place(part: pa.Buffer, whole: pa.Buffer, dtype: np.dtype[Any]) -> int:
    """Where a part of a buffer begins, in items of a type. Raises `ValueError` if it does not lie there."""
    at = part.address - whole.address
    if not 0 <= at <= whole.size - part.size or at % dtype.itemsize:
        raise ValueError("its lists are compressed, or do not lie at whole numbers")
    return at // dtype.itemsize

"""Rows of tokens: any row of any pass, found without reading those before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fmlm_cli import keys
from fmlm_cli.corpus.rows.packing import Frame, Packing, RowPlan
from fmlm_cli.corpus.rows.plans import plan_of
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.store.split import TokenSpans
from fmlm_cli.errors import UserError

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Rows of tokens, before any masking. Arrays are [rows, length].

    `input_ids`: int64, padded. `position_ids`: int64, counted from 0 in each document (packing documents) or
    each row. `segments`: int64, 0 for padding, 1, 2, ... for the parts of a row that see only themselves.
    `word_starts`, `maskable`: bool; special tokens, unknown tokens and padding are not maskable.
    `word_starts` is None where the store does not know them; where a document (or a part of one) begins, a
    word does too. `row_ids`: int64[rows], the rows' identities, which their masks depend on. `numbers`:
    int64[rows], the rows' numbers within their split, for messages.
    """

    input_ids: Int64s
    position_ids: Int64s
    segments: Int64s
    word_starts: npt.NDArray[np.bool_] | None
    maskable: npt.NDArray[np.bool_]
    row_ids: Int64s
    numbers: Int64s

    def take(self, index: Int64s) -> "Rows":
        """Some of the rows."""
        return Rows(
            self.input_ids[index],
            self.position_ids[index],
            self.segments[index],
            None if self.word_starts is None else self.word_starts[index],
            self.maskable[index],
            self.row_ids[index],
            self.numbers[index],
        )

    @classmethod
    def joined(cls, parts: Sequence["Rows"]) -> "Rows":
        """Several groups of rows of one length as one; word starts only where all know them."""
        if len(parts) == 1:
            return parts[0]
        starts = [part.word_starts for part in parts if part.word_starts is not None]

        def stack(name: str) -> Any:
            return np.concatenate([getattr(part, name) for part in parts])

        return cls(
            stack("input_ids"),
            stack("position_ids"),
            stack("segments"),
            np.concatenate(starts) if len(starts) == len(parts) else None,
            stack("maskable"),
            stack("row_ids"),
            stack("numbers"),
        )


class RowReader:
    """The rows of one split of a store under one packing.

    `max_rows` keeps a pseudo-random subset, which `subset_seed` and the rows' number alone decide.
    """

    def __init__(
        self,
        store: TokenStore,
        split: str,
        *,
        packing: Packing,
        sequence_length: int,
        max_rows: int | None = None,
        subset_seed: int = 0,
    ) -> None:
        self._split = store.split(split)
        self._identity = store.identity(split)
        self._special = store.special
        self.frame = Frame(
            len(self._special.prefix), len(self._special.suffix), self._special.separator is not None
        )
        if sequence_length <= self.frame.size:
            raise UserError(
                f"sequence_length {sequence_length} leaves no room for text "
                f"beside {self.frame.size} special tokens"
            )
        self.plan: RowPlan = plan_of(store, split, self._split, packing, sequence_length, self.frame)
        self._maskable = np.ones(store.vocabulary, np.bool_)
        self._maskable[list(self._special.never_masked)] = False
        self._rows = min(len(self.plan), max_rows or len(self.plan))
        self._subset_seed = subset_seed

    def __len__(self) -> int:
        return self._rows

    @property
    def is_subset(self) -> bool:
        """Whether any row of the split is left out."""
        return self._rows < len(self.plan)

    @property
    def subset(self) -> tuple[int, int | None]:
        """What decides which rows of the plan these are: how many, and the seed where some are left out."""
        return self._rows, self._subset_seed if self.is_subset else None

    @property
    def sequence_length(self) -> int:
        """Positions in a row."""
        return self.plan.sequence_length

    @property
    def sets_documents_apart(self) -> bool:
        """Whether a special token, or padding, stands between any two documents of a row."""
        packing = self.plan.packing
        return packing == "none" or bool(self.frame.separated if packing == "concat" else self.frame.size)

    def lengths(self, index: Int64s) -> Int64s:
        """Positions that are not padding in rows of one stretch each, without reading them. int64[n]"""
        assert self.plan.packing == "none"
        return self.plan.length[self._numbers(index)].astype(np.int64) + self.frame.size

    def _numbers(self, index: Int64s) -> Int64s:
        """The numbers in the plan of these of the rows."""
        if not self.is_subset:
            return index
        key = keys.derive(self._subset_seed, keys.Stream.ROW_SUBSET)
        return keys.permute(index, len(self.plan), key)

    def read(self, index: Int64s) -> Rows:
        """Rows number `index` (int64[n], each in [0, len(self)))."""
        plan, number = self.plan, self._numbers(index)
        first = plan.first[number].astype(np.int64)
        counts = plan.first[number + 1] - first
        row = np.repeat(np.arange(len(number)), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        piece = first[row] + within
        document, start, length, column = (
            array[piece].astype(np.int64) for array in (plan.document, plan.start, plan.length, plan.column)
        )
        spans = TokenSpans(document, start, length)
        return self._fill(_Layout(number, row, within, spans, column, plan.closed[piece]))

    def _fill(self, layout: "_Layout") -> Rows:
        shape = (len(layout.number), self.sequence_length)
        input_ids = np.full(shape, self._special.pad, np.int64)
        word_starts = np.zeros(shape, np.bool_) if self._split.has_word_starts else None
        spans = layout.spans
        first = layout.row * self.sequence_length + layout.column
        at = spans.spread(first)
        input_ids.ravel()[at], starts = self._split.read(spans)
        if word_starts is not None:
            word_starts.ravel()[at] = starts
            word_starts.ravel()[first[spans.length > 0]] = True
        frame = self._frame_rows if self.plan.packing == "concat" else self._frame_stretches
        segment, covered = frame(input_ids, layout)
        segments = np.zeros(shape, np.int64)
        position_ids = np.zeros(shape, np.int64)
        at = covered.spread(covered.document * self.sequence_length + covered.start)
        segments.ravel()[at] = np.repeat(segment, covered.length)
        position_ids.ravel()[at] = covered.within
        maskable = self._maskable.take(input_ids) & (segments > 0)
        row_ids = keys.derive(self._identity, layout.number).view(np.int64)
        return Rows(input_ids, position_ids, segments, word_starts, maskable, row_ids, layout.number)

    def _frame_stretches(self, ids: Int64s, layout: "_Layout") -> tuple[Int64s, TokenSpans]:
        """Put special tokens around every stretch; each one's segment, and the columns that it covers."""
        begin, end = layout.column - self.frame.before, layout.column + layout.spans.length
        for offset, token in enumerate(self._special.prefix):
            ids[layout.row, begin + offset] = token
        for offset, token in enumerate(self._special.suffix):
            ids[layout.row, end + offset] = token
        return layout.within + 1, TokenSpans(layout.row, begin, end + self.frame.after - begin)

    def _frame_rows(self, ids: Int64s, layout: "_Layout") -> tuple[Int64s, TokenSpans]:
        """Put separators after documents, special tokens around rows; one segment to a row, its columns."""
        every, closed = np.arange(len(ids)), layout.closed
        end = layout.column + layout.spans.length
        if self._special.separator is not None:
            ids[layout.row[closed], end[closed]] = self._special.separator
        row_end = np.zeros(len(ids), np.int64)
        np.maximum.at(row_end, layout.row, end + closed * self.frame.separated)
        for offset, token in enumerate(self._special.prefix):
            ids[:, offset] = token
        for offset, token in enumerate(self._special.suffix):
            ids[every, row_end + offset] = token
        return np.ones_like(every), TokenSpans(every, np.zeros_like(every), row_end + self.frame.after)


@dataclass(frozen=True)
class _Layout:
    """Some rows, by their stretches.

    `number`: int64[rows], the rows' numbers. The others have one entry a stretch: its row among these, its
    number within the row, its tokens, its first column, whether special tokens follow it.
    """

    number: Int64s
    row: Int64s
    within: Int64s
    spans: TokenSpans
    column: Int64s
    closed: npt.NDArray[np.bool_]

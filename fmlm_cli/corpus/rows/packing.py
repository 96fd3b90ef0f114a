"""Packing: which stretch of which document stands where in which row.

Three ways, chosen by `data.packing`:

    documents   [CLS] a a a [SEP] [CLS] b b [SEP] pad     rows filled by best fit; a document longer than a
                                                          row is cut into full rows and a rest; attention and
                                                          positions never cross a document's border
    concat      [CLS] a a a [SEP] b b b b [SEP]           one continuous text cut at every row's end;
                                                          documents set apart by a separator; attention
                                                          over the whole row
    none        [CLS] a a a [SEP] pad pad pad             one stretch of one document a row

A plan is computed once from the documents' lengths. It holds no text, and a row's contents never change.
Nothing is dropped: every token of every document stands in exactly one row.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fmlm_cli.corpus.store.reading import TokenSpans

Packing = Literal["documents", "concat", "none"]
Int64s = npt.NDArray[np.int64]

_WINDOW = 16_384  # stretches among which best fit looks for partners: keeps neighbours in the file together


@dataclass(frozen=True)
class Frame:
    """Special tokens around a sequence: tokens before and after, and whether documents are set apart."""

    before: int
    after: int
    separated: bool

    @property
    def size(self) -> int:
        """Tokens that a framed stretch needs beyond its own."""
        return self.before + self.after


@dataclass(frozen=True)
class RowPlan:
    """Rows as stretches of documents. Stretches are sorted by row; all arrays int64[stretches] unless said.

    `spans`: which tokens. `column`: where in the row the first of them stands. `closed`: bool, whether
    special tokens follow the stretch (packing documents and none: always; concat: a separator, where the
    document ends). `first`: int64[rows + 1], row r holds the stretches first[r] to first[r + 1]. `cut`: how
    many documents stand in more than one stretch.
    """

    packing: Packing
    sequence_length: int
    spans: TokenSpans
    column: Int64s
    closed: npt.NDArray[np.bool_]
    first: Int64s
    cut: int

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def tokens(self) -> int:
        """Text tokens in all rows, special ones not counted."""
        return int(self.spans.length.sum())

    def used(self, frame: Frame) -> int:
        """Positions in all rows that are not padding."""
        if self.packing == "concat":
            return self.tokens + int(self.closed.sum()) * frame.separated + len(self) * frame.size
        return self.tokens + len(self.column) * frame.size


def plan_rows(lengths: Int64s, packing: Packing, sequence_length: int, frame: Frame) -> RowPlan:
    """Lay documents of these lengths (in tokens, each > 0) out in rows of `sequence_length`."""
    assert sequence_length > frame.size
    if packing == "concat":
        return _continuous(lengths, sequence_length, frame)
    body = sequence_length - frame.size
    spans = _cut(lengths, body)
    packed = packing == "documents"
    row = _best_fit(spans.length + frame.size, sequence_length) if packed else np.arange(len(spans.length))
    return _arrange(spans, row, packing, sequence_length, frame, cut=int(np.count_nonzero(lengths > body)))


def _cut(lengths: Int64s, body: int) -> TokenSpans:
    """Cut documents into stretches of at most `body` tokens: full ones, then a rest."""
    pieces = -(-lengths // body)
    document = np.repeat(np.arange(len(lengths)), pieces)
    number = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = number * body
    return TokenSpans(document, start, np.minimum(body, lengths[document] - start))


def _best_fit(sizes: Int64s, capacity: int) -> Int64s:
    """Row of each stretch: best fit decreasing within windows of consecutive stretches. int64[stretches]."""
    row = np.empty(len(sizes), np.int64)
    rows = 0
    for begin in range(0, len(sizes), _WINDOW):
        window = slice(begin, begin + _WINDOW)
        row[window], used = _best_fit_window(sizes[window], capacity)
        row[window] += rows
        rows += used
    return row


def _best_fit_window(sizes: Int64s, capacity: int) -> tuple[Int64s, int]:
    """Rows (counted from 0) for one window, and how many there are.

    The longest stretch first, each into the fullest row that still holds it. Rows are kept by the space left;
    bit s of the integer `spaces` says that some row has space s left, so the best row is the lowest set bit
    from the stretch's size on.
    """
    row = np.empty(len(sizes), np.int64)
    full = sizes >= capacity
    rows = int(np.count_nonzero(full))
    row[full] = np.arange(rows)
    by_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    spaces = 0
    rest = np.flatnonzero(~full)
    order = rest[np.argsort(-sizes[rest], kind="stable")]
    for index, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        fitting = spaces >> size
        if fitting:
            space = size + (fitting & -fitting).bit_length() - 1
            fitting_row = by_space[space].pop()
            if not by_space[space]:
                spaces ^= 1 << space
        else:
            space, fitting_row, rows = capacity, rows, rows + 1
        row[index] = fitting_row
        by_space[space - size].append(fitting_row)
        spaces |= 1 << (space - size)
    return row, rows


def _arrange(
    spans: TokenSpans, row: Int64s, packing: Packing, sequence_length: int, frame: Frame, cut: int
) -> RowPlan:
    """Sort stretches by row and give each its column."""
    order = np.argsort(row, kind="stable")
    spans = TokenSpans(spans.document[order], spans.start[order], spans.length[order])
    sizes = spans.length + frame.size
    first = np.concatenate([[0], np.cumsum(np.bincount(row))])
    before = np.cumsum(sizes) - sizes
    column = before - np.repeat(before[first[:-1]], np.diff(first)) + frame.before
    closed = np.ones(len(order), np.bool_)
    return RowPlan(packing, sequence_length, spans, column, closed, first, cut)


def _continuous(lengths: Int64s, sequence_length: int, frame: Frame) -> RowPlan:
    """Cut one long text of all documents, each followed by a separator slot, at every row's end."""
    body = sequence_length - frame.size
    slots = lengths + frame.separated
    document_begin = np.cumsum(slots) - slots
    total = int(slots.sum()) - (frame.separated and len(lengths) > 0)  # the last document needs none
    rows = -(-total // body)
    begin = np.union1d(document_begin, np.arange(rows) * body)
    end = np.append(begin[1:], total)
    document = np.searchsorted(document_begin, begin, side="right") - 1
    start = begin - document_begin[document]
    length = (
        np.minimum(end - document_begin[document], lengths[document]) - start
    )  # 0: only the separator is left
    closed = end - document_begin[document] == slots[document]
    first = np.append(np.searchsorted(begin, np.arange(rows) * body), len(begin))
    column = begin % body + frame.before
    cut = int(np.count_nonzero(np.bincount(document[length > 0]) > 1))
    return RowPlan("concat", sequence_length, TokenSpans(document, start, length), column, closed, first, cut)

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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fmlm_cli.corpus.rows.best_fit import best_fit_decreasing
from fmlm_cli.corpus.store.split import TokenSpans

Packing = Literal["documents", "concat", "none"]
Integers = npt.NDArray[np.integer]
Int64s = npt.NDArray[np.int64]

PLANNING = 2  # raised whenever the same documents come to stand in other rows, or these in another order
_WINDOW = 1 << 17  # stretches that are laid out at once, and among which best fit looks for partners


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
    """Rows as stretches of documents, sorted by row. Arrays are of the smallest types that serve.

    `document`, `start`, `length`: unsigned [stretches], `length[i]` tokens of document `document[i]` from
    token `start[i]` on. `column`: unsigned [stretches], where in the row the first of them stands. `closed`:
    bool[stretches], whether special tokens follow the stretch (packing documents and none: always; concat: a
    separator, where the document ends). `first`: integers [rows + 1], row r holds the stretches first[r] to
    first[r + 1].

    `tokens`: text tokens in all rows, special ones not counted. `used`: positions in all rows that are not
    padding. `cut`: how many documents stand in more than one stretch.
    """

    packing: Packing
    sequence_length: int
    document: Integers
    start: Integers
    length: Integers
    column: Integers
    closed: npt.NDArray[np.bool_]
    first: Integers
    tokens: int
    used: int
    cut: int

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def padding(self) -> float:
        """Share of padding among all positions."""
        return 1 - self.used / max(1, len(self) * self.sequence_length)


STRETCHES = ("document", "start", "length", "column", "closed")  # the arrays with an entry a stretch


class _Laid(NamedTuple):
    """The stretches of some documents, laid out in rows: as in `RowPlan`, all int64 but `closed`.

    `begins`: which of these stretches begin a row.
    """

    document: Int64s
    start: Int64s
    length: Int64s
    column: Int64s
    closed: npt.NDArray[np.bool_]
    begins: Int64s
    cut: int


def plan_rows(lengths: Integers, packing: Packing, sequence_length: int, frame: Frame) -> RowPlan:
    """Lay documents of these lengths (in tokens, each > 0) out in rows of `sequence_length`."""
    assert sequence_length > frame.size
    lay = _continuous if packing == "concat" else _packed if packing == "documents" else _alone
    types = _unsigned(len(lengths)), _unsigned(lengths.max(initial=0)), _unsigned(sequence_length)
    laid = [_shrunk(part, *types) for part in lay(lengths, sequence_length, frame)]
    document, start, length, column, closed = (
        np.concatenate(arrays) for arrays in list(zip(*laid, strict=True))[: len(STRETCHES)]
    )
    after = np.cumsum([len(part.document) for part in laid])
    begins = [part.begins + end - len(part.document) for part, end in zip(laid, after, strict=True)]
    first = np.append(np.concatenate(begins), len(document)).astype(_unsigned(len(document)))
    tokens, rows = int(length.sum(dtype=np.int64)), len(first) - 1
    special = np.count_nonzero(closed) * frame.separated + rows * frame.size
    used = tokens + (int(special) if packing == "concat" else len(document) * frame.size)
    cut = sum(part.cut for part in laid)
    return RowPlan(
        packing, sequence_length, document, start, length, column, closed, first, tokens, used, cut
    )


def _unsigned(largest: int) -> type[np.integer]:
    """The type of numbers up to `largest`; not uint64, which numpy takes to floats beside int64."""
    return np.uint16 if largest < 1 << 16 else np.uint32 if largest < 1 << 32 else np.int64


def _windows(lengths: Integers, body: int) -> Iterator[tuple[int, Int64s]]:
    """Consecutive documents of about `_WINDOW` stretches together: the number of the first, their lengths."""
    begin = 0
    while begin == 0 or begin < len(lengths):
        part = lengths[begin : begin + _WINDOW].astype(np.int64)
        stretches = np.cumsum(-(-part // body))
        whole = max(1, int(np.searchsorted(stretches, _WINDOW, side="right")))
        yield begin, part[:whole]
        begin += whole


def _cut(lengths: Int64s, body: int) -> TokenSpans:
    """Cut documents into stretches of at most `body` tokens: full ones, then a rest."""
    pieces = -(-lengths // body)
    document = np.repeat(np.arange(len(lengths)), pieces)
    number = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = number * body
    return TokenSpans(document, start, np.minimum(body, lengths[document] - start))


def _alone(lengths: Integers, sequence_length: int, frame: Frame) -> Iterator[_Laid]:
    """A row for each stretch."""
    body = sequence_length - frame.size
    for begin, part in _windows(lengths, body):
        spans = _cut(part, body)
        every = np.arange(len(spans.length))
        yield _framed(begin, spans, every, frame, cut=int(np.count_nonzero(part > body)))


def _packed(lengths: Integers, sequence_length: int, frame: Frame) -> Iterator[_Laid]:
    """Rows of several stretches, by best fit."""
    body = sequence_length - frame.size
    for begin, part in _windows(lengths, body):
        spans = _cut(part, body)
        row, _ = best_fit_decreasing(spans.length + frame.size, sequence_length)
        yield _framed(begin, spans, row, frame, cut=int(np.count_nonzero(part > body)))


def _framed(begin: int, spans: TokenSpans, row: Int64s, frame: Frame, cut: int) -> _Laid:
    """Stretches of the documents from `begin` on, sorted by row, each between special tokens of its own."""
    order = np.argsort(row, kind="stable")
    document, start, length = spans.document[order] + begin, spans.start[order], spans.length[order]
    sizes = length + frame.size
    before = np.cumsum(sizes) - sizes
    stretches = np.bincount(row)
    begins = np.cumsum(stretches) - stretches
    column = before - np.repeat(before[begins], stretches) + frame.before
    return _Laid(document, start, length, column, np.ones(len(order), np.bool_), begins, cut)


def _continuous(lengths: Integers, sequence_length: int, frame: Frame) -> Iterator[_Laid]:
    """One long text of all documents, each followed by a separator's slot, cut at every row's end."""
    body = sequence_length - frame.size
    text = 0  # slots before these documents
    for first, part in _windows(lengths, body):
        slots = part + frame.separated
        document_begin = text + np.cumsum(slots) - slots
        total = text + int(slots.sum())
        if first + len(part) >= len(lengths):  # the last document needs no separator
            total -= frame.separated and len(part) > 0
        rows = np.arange(-(-text // body), -(-total // body)) * body
        begin = np.union1d(document_begin, rows)
        end = np.append(begin[1:], total)
        document = np.searchsorted(document_begin, begin, side="right") - 1
        start = begin - document_begin[document]
        length = (
            np.minimum(end - document_begin[document], part[document]) - start
        )  # 0: of the separator alone
        closed = end - document_begin[document] == slots[document]
        cut = int(np.count_nonzero(np.bincount(document[length > 0]) > 1))
        column = begin % body + frame.before
        yield _Laid(document + first, start, length, column, closed, np.searchsorted(begin, rows), cut)
        text = total


def _shrunk(
    laid: _Laid, document: type[np.integer], start: type[np.integer], column: type[np.integer]
) -> _Laid:
    """The same in the types that serve for all documents, and for columns."""
    return laid._replace(
        document=laid.document.astype(document),
        start=laid.start.astype(start),
        length=laid.length.astype(column),
        column=laid.column.astype(column),
    )

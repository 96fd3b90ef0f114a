"""From what is found in a source to its documents: bad, long, short and empty ones, decided in one place."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import pyarrow as pa

from fmlm_cli.corpus.text.fields import TextFields, joined
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.errors import UserError
from fmlm_cli.readers.columnar import texts_in
from fmlm_cli.readers.jsonl import HALF_CHARACTER

Kind = Literal["txt", "jsonl", "json", "csv", "tsv", "parquet", "arrow"]  # of a file
DocumentMode = Literal["auto", "blank-line", "line", "file"]
BadText = Literal["stop", "skip", "replace"]
LongDocument = Literal["stop", "cut", "skip"]

BAD_TEXT = "pass --on-bad-text skip|replace, or convert the file (for example iconv -f LATIN1 -t UTF-8)"
_NOT_UTF8 = -1

Complaint = Callable[[], UserError]  # made only when wanted: finding a bad byte reads the file again


class Found(NamedTuple):
    """A document as it was found: the line on which it begins or the number of its row, its text, repaired
    where bad, and of what to complain then. `cut`: whether it is the beginning only of one that is far too
    long; it has no text where it has none.
    """

    place: int
    text: str
    complaint: Complaint | None = None
    cut: bool = False


@dataclass(frozen=True)
class ReadOptions:
    """How to find and read text.

    `documents` is for .txt and .md files, `fields` for all that has rows. `on_long`: what to do with a
    document of more than `most_characters`, of which never much more is in memory. Those with fewer than
    `min_characters` or more than `max_characters` are left out. `split` and `revision` say what to read of a
    set that has several; `format` what standard input is, and a file whose name does not say it.
    """

    documents: DocumentMode = "auto"
    fields: TextFields = TextFields()  # noqa: RUF009, it is frozen
    on_bad_text: BadText = "stop"
    most_characters: int = 20_000_000
    on_long: LongDocument = "stop"
    min_characters: int = 0
    max_characters: int | None = None
    split: str | None = None
    revision: str | None = None
    format: Kind | None = None

    def __post_init__(self) -> None:
        if self.max_characters is not None and self.min_characters > self.max_characters:
            raise UserError(
                f"no document has {self.min_characters:,} characters or more (--min-chars) and "
                f"{self.max_characters:,} or fewer (--max-chars): change one of them"
            )

    @property
    def most_bytes(self) -> int:
        """Of a document's text: no character takes more than four."""
        return 4 * self.most_characters


def documents_of(
    found: Iterable[Found], options: ReadOptions, stats: ReadStats, where: Callable[[int], str]
) -> Iterator[str]:
    """The documents to keep, stripped and never empty, while counting into `stats`.

    `where`: a place in words. Raises `UserError` (place, remedy) where `options` say "stop".
    """
    least, most = max(options.min_characters, 1), options.most_characters
    if options.max_characters is not None:
        most = min(most, options.max_characters)
    for place, text, complaint, cut in found:
        document = text.strip()
        size = _bytes(document)
        if complaint or size == _NOT_UTF8:
            if options.on_bad_text == "stop":
                raise complaint() if complaint else _half_character(document, where(place))
            stats.bad_text += 1
            if options.on_bad_text == "skip":
                continue
            document = _mended(document)
            size = _bytes(document)
        if cut or not least <= len(document) <= most:
            fitted = _fitted(document, cut, options, stats, partial(where, place))
            if fitted is None:
                continue
            document, size = fitted, _bytes(fitted)
        stats.documents += 1
        stats.text_bytes += size
        yield document


def found_in_columns(columns: Sequence[pa.Array], first: int, options: ReadOptions) -> Iterator[Found]:
    """The texts of some rows, given the columns of their fields; `first`: the number of the first row."""
    read = [texts_in(column, options.most_bytes) for column in columns]
    cut = {row for _, rows in read for row in rows}
    texts = read[0][0] if len(read) == 1 else map(joined, zip(*(texts for texts, _ in read), strict=True))
    for row, text in enumerate(texts):
        yield Found(first + row, text or "", None, row in cut)


def _bytes(document: str) -> int:
    """How long it is in UTF-8, or `_NOT_UTF8` where it has half characters, which cannot be written so."""
    if document.isascii():
        return len(document)
    try:
        return len(document.encode())
    except UnicodeEncodeError:
        return _NOT_UTF8


def _mended(document: str) -> str:
    """The text with U+FFFD for what is no UTF-8: half characters, or the bytes that they stand for."""
    try:
        return document.encode(errors="surrogateescape").decode(errors="replace")
    except UnicodeEncodeError:
        return HALF_CHARACTER.sub("\ufffd", document)


def _half_character(document: str, where: str) -> UserError:
    """An error for half a character, which may stand for a byte that is no UTF-8 (`surrogateescape`)."""
    half = HALF_CHARACTER.search(document)
    byte = ord(half[0]) - 0xDC00 if half else 0
    wrong = (
        f"not UTF-8 (byte 0x{byte:02x})"
        if 0x80 <= byte <= 0xFF
        else "the text has half a character (\\ud800 to \\udfff, alone)"
    )
    return UserError(f"{where}: {wrong}; {BAD_TEXT}")


def _fitted(
    document: str, cut: bool, options: ReadOptions, stats: ReadStats, where: Callable[[], str]
) -> str | None:
    """What is kept of a document that is too short or too long, or has been cut already; None: nothing."""
    if options.max_characters is not None and (cut or len(document) > options.max_characters):
        stats.over_max += 1
        return None
    if cut or len(document) > options.most_characters:
        if options.on_long == "stop":
            raise too_long(where(), options)
        stats.long += 1
        if options.on_long == "skip":
            return None
        document = document[: options.most_characters].rstrip()
    if not document:
        stats.empty += 1
        return None
    if len(document) < options.min_characters:
        stats.under_min += 1
        return None
    return document


def too_long(where: str, options: ReadOptions) -> UserError:
    """An error for a document that is longer than it may be."""
    return UserError(
        f"{where}: the document that begins here is longer than {options.most_characters:,} characters; pass "
        "--on-long-document cut|skip or a larger --max-document-chars, or see to --documents"
    )

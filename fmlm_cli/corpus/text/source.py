"""What text is read from: one protocol for files, the embedded corpus and whatever comes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass
class ReadStats:
    """Counters, filled while reading.

    `documents` were yielded, `empty` were left out for having no text, `bad_text` were skipped or repaired,
    `long` were skipped or cut; `under_min` and `over_max` were left out for having fewer or more characters
    than asked for. `text_bytes` are the UTF-8 bytes yielded, `disk_bytes` the bytes of files on disk taken in
    so far.
    """

    documents: int = 0
    empty: int = 0
    bad_text: int = 0
    long: int = 0
    under_min: int = 0
    over_max: int = 0
    text_bytes: int = 0
    disk_bytes: int = 0


class Source(Protocol):
    """Documents in a fixed order, which can be read again. Whoever inherits from this gets its defaults."""

    @property
    def size(self) -> int:
        """Bytes that reading all documents takes in, in the measure of `ReadStats.disk_bytes`."""
        ...

    @property
    def paths(self) -> Sequence[Path]:
        """The files on the disk that it is read from, which nothing may replace meanwhile."""
        return ()

    @property
    def parts(self) -> "Sequence[Source]":
        """Sources whose documents in turn are these, each of which can be read alone: its files, say.

        A sample holds something of each; reading one again gives the same documents.
        """
        return (self,)

    @property
    def passed_over(self) -> Sequence[str]:
        """What was left out before any reading, as clauses: "12 repeated paragraphs left out"."""
        return ()

    def documents(self, stats: ReadStats) -> Iterator[str]:
        """All documents, none of them empty, counted into `stats`. Raises `UserError` (place, remedy)."""
        ...

    def identity(self) -> list[dict[str, Any]]:
        """What the text is, by content, for JSON: equal identities mean equal text. Reads all of it."""
        ...

    def describe(self) -> list[str]:
        """Sentences for the user: what a document is here, where from, what was passed over."""
        return []

    def cautions(self) -> list[str]:
        """Sentences about what may not be what the user wants."""
        return []

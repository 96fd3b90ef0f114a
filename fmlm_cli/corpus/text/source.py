"""What text is read from: one protocol for files, the embedded corpus and whatever comes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


@dataclass
class ReadStats:
    """Counters, filled while reading.

    `documents` were yielded, `empty` were left out for having no text, `bad_text` were skipped or repaired,
    `long` were skipped or cut; `text_bytes` are the UTF-8 bytes yielded, `disk_bytes` the bytes of files on
    disk taken in so far.
    """

    documents: int = 0
    empty: int = 0
    bad_text: int = 0
    long: int = 0
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
        """What a sample is to hold something of each: the source as it is, or the files of several."""
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

    def shards(self, number: int) -> "Sequence[Source]":
        """So many sources of about one size, some perhaps empty, whose documents in turn are these."""
        ...


def even_runs(items: Sequence[T], sizes: Sequence[int], number: int) -> list[tuple[T, ...]]:
    """Items in order as `number` runs of about one size: each item is in the run that its middle falls into.

    A run's size differs from the mean by no more than that of the largest item.
    """
    runs: list[list[T]] = [[] for _ in range(number)]
    total, before = max(sum(sizes), 1), 0
    for item, size in zip(items, sizes, strict=True):
        runs[min((2 * before + size) * number // (2 * total), number - 1)].append(item)
        before += size
    return [tuple(run) for run in runs]

"""The source that is files, of whatever format: a stream of documents, one in memory at a time.

Whatever is wrong with a file is a `UserError` that names it, and the line or row where there is one.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fmlm_cli import storage
from fmlm_cli.corpus.text.documents import ReadOptions, documents_of
from fmlm_cli.corpus.text.files.passed_over import PassedOver, Reason, listed, printable
from fmlm_cli.corpus.text.files.paths import SourceFile, resolve_sources
from fmlm_cli.corpus.text.files.plain import detect_mode
from fmlm_cli.corpus.text.files.rows import found_in, place_in
from fmlm_cli.corpus.text.source import ReadStats, Source
from fmlm_cli.events import counted, data_size
from fmlm_cli.readers.bytes import readable

_MEANING = {"blank-line": "text between blank lines", "line": "a line", "file": "a file"}


@dataclass(frozen=True)
class TextFiles(Source):
    """Files in the order in which they are read, all in the same way."""

    files: tuple[SourceFile, ...]
    options: ReadOptions
    others: tuple[PassedOver, ...] = ()

    @classmethod
    def find(
        cls, sources: Sequence[str], options: ReadOptions, held_out: Collection[Path] = ()
    ) -> "TextFiles":
        """The files that sources name, without those `held_out`.

        Raises `UserError` for one that is missing or holds none; it may be that none is left.
        """
        found = resolve_sources(sources, held_out, form=options.format, split=options.split)
        return cls(found.files, options, found.passed_over)

    @property
    def size(self) -> int:
        """Bytes on the disk, compressed as they may lie there."""
        return sum(file.size for file in self.files)

    @property
    def paths(self) -> list[Path]:
        """Of the files."""
        return [file.path for file in self.files]

    @property
    def parts(self) -> list["TextFiles"]:
        """Each file by itself."""
        return [TextFiles((file,), self.options) for file in self.files]

    @property
    def passed_over(self) -> list[str]:
        """What lay among the files."""
        return [listed(self.others)] if self.others else []

    def documents(self, stats: ReadStats) -> Iterator[str]:
        """The documents of all files in order, stripped and never empty.

        Raises `UserError` (file, place, remedy) for a file that is unreadable or damaged, for a row without
        the wanted text and, where the options say "stop", for text that is not valid UTF-8 and for a document
        that is too long.
        """
        for file in self.files:
            found = found_in(file, self.options, stats)
            yield from documents_of(found, self.options, stats, partial(place_in, file))

    def identity(self) -> list[dict[str, Any]]:
        """Each file's name, bytes and hash."""
        return [_identity(file) for file in self.files]

    def describe(self) -> list[str]:
        """What is read and what is not; what a document is, in how many of the files of plain text."""
        setting = self.options.documents
        modes = Counter(
            detect_mode(file) if setting == "auto" else setting for file in self.files if file.kind == "txt"
        )
        how = " (found by looking; --documents sets it)" if setting == "auto" else ""
        return [
            f"reading {counted(len(self.files), 'file')} ({data_size(self.size)})"
            + "".join(f"; passed over: {clause}" for clause in self.passed_over),
            *(
                f"a document is {_MEANING[mode]}, in {counted(number, 'text file')}{how}"
                for mode, number in modes.items()
            ),
        ]

    def cautions(self) -> list[str]:
        """Where less is read than lies beside it in files of other kinds."""
        unread = sum(other.size for other in self.others if other.reason in (Reason.UNKNOWN, Reason.HIDDEN))
        if unread <= self.size:
            return []
        return [
            f"most of what lies there is passed over: {data_size(unread)} in files that are not read, "
            f"{data_size(self.size)} in files that are; convert them (or name those that are hidden) if they "
            "are to be trained on"
        ]


def _identity(file: SourceFile) -> dict[str, Any]:
    with readable(file.path):
        content = storage.sha256_of_file(file.path)
    return {"name": printable(file.path.name), "bytes": file.size, "sha256": content}

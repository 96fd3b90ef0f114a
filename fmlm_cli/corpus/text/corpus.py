"""The text of a corpus, from files or from the embedded default corpus, as a stream that can be read again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fmlm_cli import storage
from fmlm_cli.corpus.text.files import (
    DocumentMode,
    ReadOptions,
    ReadStats,
    SourceFile,
    detect_mode,
    read_documents,
    resolve_sources,
)
from fmlm_cli.corpus.text.python_docs import PythonDocs, read_python_docs
from fmlm_cli.corpus.text.splits import in_validation
from fmlm_cli.events import Emit, Progress

PYTHON_DOCS = "python-docs"


@dataclass(frozen=True)
class TextCorpus:
    """Files and, if asked for, the documents of `python-docs`, which come first."""

    files: tuple[SourceFile, ...]
    embedded: PythonDocs | None
    options: ReadOptions

    @classmethod
    def find(cls, sources: Sequence[str], options: ReadOptions, emit: Emit) -> "TextCorpus":
        """Resolve sources. Raises `UserError` for one that is missing."""
        paths = [source for source in sources if source != PYTHON_DOCS]
        files = tuple(resolve_sources(paths)) if paths else ()
        return cls(files, _read_embedded(emit) if PYTHON_DOCS in sources else None, options)

    def documents(self, stats: ReadStats) -> Iterator[str]:
        """All documents in a fixed order; `stats` is filled while reading."""
        for text in self.embedded.documents if self.embedded else ():
            size = len(text.encode("utf-8"))
            stats.documents += 1
            stats.text_bytes += size
            stats.disk_bytes += size
            yield text
        yield from read_documents(self.files, self.options, stats)

    @property
    def disk_bytes(self) -> int:
        """Bytes that reading all documents consumes, in the measure of `ReadStats.disk_bytes`."""
        embedded = sum(len(text.encode("utf-8")) for text in self.embedded.documents) if self.embedded else 0
        return embedded + sum(file.size for file in self.files)

    def sample(self, largest: int, valid_fraction: float) -> Iterator[str]:
        """At most about `largest` bytes of text: from each file its beginning, in proportion to its size.

        Documents that the validation split will take by their contents are left out.
        """
        parts: list[TextCorpus] = [TextCorpus((file,), None, self.options) for file in self.files]
        if self.embedded:
            parts.insert(0, TextCorpus((), self.embedded, self.options))
        for part in parts:
            stats, quota = ReadStats(), largest * part.disk_bytes / max(self.disk_bytes, 1)
            for text in part.documents(stats):
                if not in_validation(storage.content_hash(text), valid_fraction):
                    yield text
                if stats.text_bytes >= quota:
                    break

    def document_modes(self) -> dict[DocumentMode, int]:
        """For .txt files: in how many files a document is what."""
        modes: dict[DocumentMode, int] = {}
        for file in self.files:
            if file.kind == "txt":
                mode = detect_mode(file) if self.options.documents == "auto" else self.options.documents
                modes[mode] = modes.get(mode, 0) + 1
        return modes

    def describe(self) -> list[dict[str, Any]]:
        """What the text is, by content: equal descriptions mean equal text."""
        described: list[dict[str, Any]] = [
            {"name": file.path.name, "bytes": file.size, "sha256": storage.sha256_of_file(file.path)}
            for file in self.files
        ]
        if self.embedded:
            content = storage.sha256_of_json(list(self.embedded.documents))
            described.insert(
                0, {"name": PYTHON_DOCS, "packages": dict(self.embedded.packages), "sha256": content}
            )
        return described


def _read_embedded(emit: Emit) -> PythonDocs:
    return read_python_docs(
        progress=lambda done, total: emit(Progress("reading docstrings", done, total, "files"))
    )

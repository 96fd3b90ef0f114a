"""The text of a corpus: the sources that a command was given, one after the other."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from fmlm_cli import storage
from fmlm_cli.corpus.text.documents import ReadOptions
from fmlm_cli.corpus.text.files.text_files import TextFiles
from fmlm_cli.corpus.text.hub_set import HUB, HubSet
from fmlm_cli.corpus.text.python_docs import PYTHON_DOCS, PythonDocs, read_python_docs
from fmlm_cli.corpus.text.source import ReadStats, Source
from fmlm_cli.corpus.text.splits import HeldOut, assign_splits
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Progress


class _Document(NamedTuple):
    text: str
    content: int  # the hash of it


@dataclass(frozen=True)
class TextCorpus(Source):
    """Sources in the order in which they are read, as one."""

    sources: tuple[Source, ...]

    @classmethod
    def find(
        cls, names: Sequence[str], options: ReadOptions, emit: Emit, held_out: Collection[Path] = ()
    ) -> "TextCorpus":
        """What names stand for: `python-docs`; files, without those `held_out`; data sets of the Hub.

        They are read in this order. Raises `UserError` for a name that stands for nothing, and where nothing
        is left.
        """
        hub_sets = [HubSet.find(name, options) for name in dict.fromkeys(names) if name.startswith(HUB)]
        paths = [name for name in names if name != PYTHON_DOCS and not name.startswith(HUB)]
        files = [TextFiles.find(paths, options, held_out)] if paths else []
        embedded = [_read_python_docs(emit)] if PYTHON_DOCS in names else []
        corpus = cls((*embedded, *files, *hub_sets))
        if not corpus.parts:
            why = "; ".join(corpus.passed_over)
            raise UserError(f"{', '.join(names)}: nothing is left to train on ({why}); name more text")
        return corpus

    @property
    def size(self) -> int:
        """Of all sources."""
        return sum(source.size for source in self.sources)

    @property
    def paths(self) -> list[Path]:
        """Of all sources."""
        return [path for source in self.sources for path in source.paths]

    @property
    def parts(self) -> list[Source]:
        """Of all sources."""
        return [part for source in self.sources for part in source.parts]

    @property
    def passed_over(self) -> list[str]:
        """By all sources."""
        return [clause for source in self.sources for clause in source.passed_over]

    def documents(self, stats: ReadStats) -> Iterator[str]:
        """Of all sources, in order."""
        return chain.from_iterable(source.documents(stats) for source in self.sources)

    def identity(self) -> list[dict[str, Any]]:
        """Of all sources, in order."""
        return [entry for source in self.sources for entry in source.identity()]

    def describe(self) -> list[str]:
        """By all sources; what the embedded corpus has to say comes last, though it is read first."""
        return [sentence for source in reversed(self.sources) for sentence in source.describe()]

    def cautions(self) -> list[str]:
        """By all sources."""
        return [sentence for source in self.sources for sentence in source.cautions()]

    def sample(self, largest: int, valid_fraction: float, held_out: HeldOut) -> Iterator[str]:
        """At most about `largest` bytes of text: from each part its beginning, in proportion to its size.

        Documents of the validation split are left out: those `held_out`, and those that it takes by their
        contents.
        """
        texts = self.beginnings(largest, ReadStats())
        sampled = (_Document(text, storage.content_hash(text)) for text in texts)
        for split, document in assign_splits(sampled, valid_fraction):
            if split == "train" and document.content not in held_out:
                yield document.text

    def beginnings(self, largest: int, stats: ReadStats) -> Iterator[str]:
        """At most about `largest` bytes of text: from each part its beginning, in proportion to its size."""
        total = max(self.size, 1)
        for part in self.parts:
            quota = stats.text_bytes + largest * part.size / total
            for text in part.documents(stats):
                yield text
                if stats.text_bytes >= quota:
                    break


def _read_python_docs(emit: Emit) -> PythonDocs:
    return read_python_docs(
        progress=lambda done, total: emit(Progress("reading docstrings", done, total, "files"))
    )

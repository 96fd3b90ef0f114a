"""Sources: what each of them gives, alone, together and in shards."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fmlm_cli.corpus.text.corpus import TextCorpus
from fmlm_cli.corpus.text.documents import ReadOptions
from fmlm_cli.corpus.text.files.text_files import TextFiles
from fmlm_cli.corpus.text.python_docs import PythonDocs
from fmlm_cli.corpus.text.source import ReadStats, Source
from fmlm_cli.corpus.text.splits import HeldOut

_WORD = st.text("abc\u00e9", min_size=1, max_size=8)
_TEXTS = st.lists(_WORD, max_size=12).map(tuple)


@dataclass(frozen=True)
class Words(Source):
    """The least that a source has to be."""

    text: str

    @property
    def size(self) -> int:
        return len(self.text)

    def documents(self, stats: ReadStats) -> Iterator[str]:
        for word in self.text.split():
            stats.documents += 1
            stats.text_bytes += len(word)
            stats.disk_bytes += len(word) + 1
            yield word

    def identity(self) -> list[dict[str, Any]]:
        return [{"name": "words", "text": self.text}]


def read(source: Source) -> tuple[list[str], ReadStats]:
    stats = ReadStats()
    return list(source.documents(stats)), stats


def docs_of(texts: Sequence[str]) -> PythonDocs:
    return PythonDocs(tuple(texts), {"python": "3.11", "numpy": "2"}, ("torch",), 1234)


def files_of(folder: Path, contents: Sequence[Sequence[str]]) -> TextFiles:
    """A file for each, every other one .jsonl; each ends with a blank line, so that none is empty."""
    for number, texts in enumerate(contents):
        if number % 2:
            lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
            (folder / f"{number:02}.jsonl").write_text(lines + "\n")
        else:
            (folder / f"{number:02}.txt").write_text("".join(f"{text}\n" for text in (*texts, "")), "utf-8")
    return TextFiles.find([str(folder)], ReadOptions(documents="line"))


@settings(deadline=None, max_examples=50)
@given(st.lists(_TEXTS, min_size=1, max_size=4), _TEXTS)
def test_a_corpus_is_its_sources_in_turn(contents: list[Sequence[str]], texts: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files, docs = files_of(Path(folder), contents), docs_of(texts)
        corpus = TextCorpus((docs, files))
        documents, stats = read(corpus)
        assert documents == [*texts, *(text for file in contents for text in file)]
        assert stats.disk_bytes == corpus.size
        assert corpus.identity() == [*docs.identity(), *files.identity()]
        assert [read(part)[0] for part in corpus.parts] == [[*texts], *([*text] for text in contents)]
        assert sorted(corpus.sample(10**6, 0.0, HeldOut())) == sorted(documents)


def test_what_a_user_is_told_comes_from_the_sources(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "b.txt").write_text("one\ntwo\n")
    (tmp_path / "c.txt").write_text("one\ntwo\n")
    (tmp_path / "d.rst").write_text("one\n")
    found = TextFiles.find([str(tmp_path)], ReadOptions())
    assert TextCorpus((docs_of("ab"), found, Words("x"))).describe() == [
        "reading 3 files (25 bytes); passed over: 1 .rst file (4 bytes)",
        "a document is text between blank lines, in 1 text file (found by looking; --documents sets it)",
        "a document is a line, in 2 text files (found by looking; --documents sets it)",
        "python-docs: 2 documents from the docstrings of Python 3.11 and 1 packages (numpy, ...); "
        "not installed: torch; 1,234 repeated paragraphs left out",
    ]

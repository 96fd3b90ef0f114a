"""Standard input and pipes: taken in once, whole, in whatever way they are compressed."""

import bz2
import gzip
import io
import lzma
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fmlm_cli.corpus.text.documents import Kind, ReadOptions
from fmlm_cli.corpus.text.files.text_files import TextFiles
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.corpus.text.spool import is_stream, spooled
from fmlm_cli.errors import UserError
from fmlm_cli.events import Event, Note, ignore

ROWS = b'{"text": "one"}\n{"text": "two"}\n'


class Standard:
    """In the place of `sys.stdin`."""

    def __init__(self, content: bytes, *, terminal: bool = False) -> None:
        self.buffer, self._terminal = io.BytesIO(content), terminal

    def isatty(self) -> bool:
        return self._terminal


def given(monkeypatch: pytest.MonkeyPatch, content: bytes, *, terminal: bool = False) -> None:
    monkeypatch.setattr(sys, "stdin", Standard(content, terminal=terminal))


def read(path: str) -> list[str]:
    return list(TextFiles.find([path], ReadOptions()).documents(ReadStats()))


@pytest.fixture
def pipe() -> Iterator[str]:
    """What the shell makes of <(command): a pipe by the number of its descriptor."""
    reading, writing = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writing, ROWS), os.close(writing)))
    thread.start()
    yield f"/dev/fd/{reading}"
    thread.join()
    os.close(reading)


def test_what_is_a_stream(tmp_path: Path, pipe: str) -> None:
    (tmp_path / "a.txt").write_text("x")
    os.mkfifo(tmp_path / "pipe.txt")
    for name in ("-", pipe, str(tmp_path / "pipe.txt"), "/dev/null"):
        assert is_stream(name)
    for name in (str(tmp_path), str(tmp_path / "a.txt"), "none", "*.txt", "hub:a/b", "a\0b", "x" * 5000):
        assert not is_stream(name)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (ROWS, "stdin.jsonl"),
        (gzip.compress(ROWS), "stdin.jsonl.gz"),
        (bz2.compress(ROWS), "stdin.jsonl.bz2"),
        (lzma.compress(ROWS), "stdin.jsonl.xz"),
    ],
    ids=["plain", "gzip", "bzip2", "xz"],  # the hour is in what gzip writes, and every worker has its own
)
def test_standard_input_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, name: str
) -> None:
    given(monkeypatch, content)
    assert spooled(["a.txt", "-", "-"], tmp_path, "jsonl", ignore) == {"-": str(tmp_path / name)}
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert read(str(tmp_path / name)) == ["one", "two"]


def test_what_was_taken_in_is_not_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stdin.jsonl.unfinished").write_bytes(b"half of it")
    given(monkeypatch, ROWS * 2)
    first = spooled(["-"], tmp_path, "jsonl", ignore)
    given(monkeypatch, b"")
    events: list[Event] = []
    assert spooled(["-"], tmp_path, "jsonl", events.append) == first
    assert events == [Note("standard input: taken in before (64 bytes)")]
    assert read(first["-"]) == ["one", "two"] * 2


def test_pipes_are_taken_in_and_may_say_what_they_are(tmp_path: Path, pipe: str) -> None:
    (tmp_path / "spool").mkdir()
    fifo = tmp_path / "rows.csv"
    os.mkfifo(fifo)
    thread = threading.Thread(target=lambda: fifo.write_text("text\nthree\n"))
    thread.start()
    found = spooled([pipe, str(fifo)], tmp_path / "spool", "jsonl", ignore)
    thread.join()
    assert [read(path) for path in found.values()] == [["one", "two"], ["three"]]
    assert [Path(path).name for path in found.values()] == ["pipe-0.jsonl", "pipe-1.csv"]


@pytest.mark.parametrize(
    ("content", "terminal", "form", "said"),
    [
        (ROWS, False, None, "standard input: say what it is with --format txt|jsonl|json|csv|tsv"),
        (b"", False, "txt", "standard input gave nothing: see whether the command before it ran"),
        (b"", True, "txt", "standard input is a terminal: pipe text into it"),
    ],
)
def test_refusals_leave_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    terminal: bool,
    form: Kind | None,
    said: str,
) -> None:
    given(monkeypatch, content, terminal=terminal)
    with pytest.raises(UserError, match=said.replace("|", r"\|")):
        spooled(["-"], tmp_path, form, ignore)
    assert list(tmp_path.iterdir()) == []


def test_where_it_cannot_be_taken_in_it_is_refused() -> None:
    with pytest.raises(UserError, match="standard input can be read only once"):
        TextFiles.find(["-"], ReadOptions())

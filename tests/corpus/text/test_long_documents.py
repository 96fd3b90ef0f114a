"""Documents that are too long: found, whatever else a file holds, and never held in memory whole."""

import gzip
import json
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.corpus.text.documents import DocumentMode, LongDocument, ReadOptions
from fmlm_cli.corpus.text.files.text_files import TextFiles
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.errors import UserError
from fmlm_cli.readers import bytes as reading
from fmlm_cli.readers.lines import split_lines

_LINE = st.text("ab\u00e9\u4e2d\U0001f98a", min_size=1, max_size=40)
END = {"line": "\n", "blank-line": "\n\n"}


@pytest.fixture(autouse=True)
def block_size() -> Iterator[None]:
    """Put the size of a block back, which some tests make tiny."""
    before = reading.BLOCK
    yield
    reading.BLOCK = before


def read(
    path: Path, most: int, on_long: LongDocument, documents: DocumentMode = "auto", **how: Any
) -> tuple[list[str], ReadStats]:
    stats = ReadStats()
    options = ReadOptions(documents, most_characters=most, on_long=on_long, **how)
    return list(TextFiles.find([str(path)], options).documents(stats)), stats


@given(
    st.lists(_LINE, min_size=1, max_size=9),
    st.integers(1, 30),
    st.integers(1, 200),
    st.sampled_from(["x.txt", "x.txt.gz", "x.jsonl"]),
    st.sampled_from(["line", "blank-line"]),
)
def test_no_document_is_longer_and_the_others_are_what_they_were(
    lines: list[str], most: int, block: int, name: str, mode: DocumentMode
) -> None:
    reading.BLOCK = block
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if name == "x.jsonl":
            content = "".join(json.dumps({"text": line, "n": 1}) + "\n" for line in lines).encode()
        else:
            content = END[mode].join(lines).encode()
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        long = [line for line in lines if len(line) > most]
        cut, stats = read(path, most, "cut", mode)
        assert cut == [line[:most] for line in lines]
        assert stats.long == len(long)
        skipped, stats = read(path, most, "skip", mode)
        assert skipped == [line for line in lines if len(line) <= most]
        assert (stats.long, stats.documents) == (len(long), len(skipped))
        if long:
            first = next(number for number, line in enumerate(lines) if len(line) > most)
            place = first * (2 if mode == "blank-line" and name != "x.jsonl" else 1) + 1
            with pytest.raises(
                UserError, match=rf":{place}: the document that begins here is longer"
            ) as caught:
                read(path, most, "stop", mode)
            assert "--max-document-chars" in str(caught.value)
            assert "\n" not in str(caught.value)
        else:
            assert read(path, most, "stop", mode)[0] == lines


def test_a_paragraph_and_a_file_count_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("one\n\n" + "ab\n" * 40 + "\ntwo\n")
    for most, on_long, wanted in ((119, "stop", 3), (118, "skip", 2), (118, "cut", 3)):
        documents, _ = read(tmp_path / "x.txt", most, on_long, "blank-line")  # type: ignore[arg-type]
        assert (len(documents), documents[-1]) == (wanted, "two")
    with pytest.raises(UserError, match=r"x.txt:3: the document that begins here is longer than 118 char"):
        read(tmp_path / "x.txt", 118, "stop", "blank-line")
    with pytest.raises(UserError, match=r"x.txt:1: the document"):
        read(tmp_path / "x.txt", 118, "stop", "file")
    assert read(tmp_path / "x.txt", 5, "cut", "file")[0] == ["one"]


def test_json_of_which_too_much_is_no_text(tmp_path: Path) -> None:
    line = json.dumps({"text": "short", "html": "x" * (1 << 20) + "y" * 100})
    (tmp_path / "x.jsonl").write_text(f"{line}\n" + '{"text": "other"}\n')
    assert read(tmp_path / "x.jsonl", 30, "stop")[0] == ["short", "other"]
    assert read(tmp_path / "x.jsonl", 10, "skip")[0] == ["other"]
    with pytest.raises(UserError, match=r"x.jsonl:1: the document that begins here"):
        read(tmp_path / "x.jsonl", 10, "stop")
    with pytest.raises(
        UserError,
        match=r"x.jsonl:1: a row that is longer than .* cannot be cut; pass --on-long-document skip",
    ):
        read(tmp_path / "x.jsonl", 10, "cut")


@given(st.lists(st.binary(max_size=12).map(lambda part: part.replace(b"\r", b"\n"))), st.integers(0, 9))
def test_lines_are_those_of_python_or_their_beginnings(blocks: list[bytes], most: int) -> None:
    whole = b"".join(blocks).split(b"\n")
    wanted = whole if whole[-1] else whole[:-1]
    lines = list(split_lines(blocks, most))
    assert len(lines) == len(wanted)
    for line, line_wanted in zip(lines, wanted, strict=True):
        assert line_wanted.startswith(line)
        assert line == line_wanted or most < len(line) < most + 24


@pytest.mark.parametrize("name", ["line.txt.gz", "paragraph.txt.gz", "file.txt.gz", "x.jsonl.gz"])
@pytest.mark.parametrize("on_long", ["skip", "cut"])
def test_memory_does_not_grow_with_the_document(tmp_path: Path, name: str, on_long: LongDocument) -> None:
    reading.BLOCK = 1 << 14
    part = b"many words\n" * 1000 if name in ("paragraph.txt.gz", "file.txt.gz") else b"words" * 2000
    with gzip.open(tmp_path / name, "wb", 1) as file:
        file.write(b'{"text": "' if "jsonl" in name else b"")
        for _ in range(400):
            file.write(part)
    mode: DocumentMode = (
        "blank-line" if name.startswith("paragraph") else "file" if name[0] == "f" else "line"
    )
    tracemalloc.start()
    try:
        if "jsonl" in name and on_long == "cut":
            with pytest.raises(UserError, match="cannot be cut"):
                read(tmp_path / name, 10_000, on_long)
        else:
            _, stats = read(tmp_path / name, 10_000, on_long, mode)
            assert stats.long == 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000, "of 4.4 MB in the document"

"""Bytes, lines and objects: what comes back, and what each error says."""

import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.errors import UserError
from fmlm_cli.readers import lines, tables
from fmlm_cli.readers.bytes import opened, readable
from fmlm_cli.readers.jsonl import kind, parsed_object
from fmlm_cli.readers.lines import lines_of, numbered_lines

_LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(_LINE), st.sampled_from([".txt", ".txt.gz", ".GZ"]), st.booleans())
def test_lines_come_back_with_their_numbers(lines: list[str], suffix: str, marked: bool) -> None:
    content = (("\ufeff" * marked) + "".join(f"{line}\n" for line in lines)).encode()
    wanted = list(enumerate(lines, start=1))
    if wanted and not marked:
        wanted[0] = (1, wanted[0][1].removeprefix("\ufeff"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        path.write_bytes(gzip.compress(content) if suffix.lower().endswith("gz") else content)
        assert list(lines_of(path)) == (wanted if lines else [(1, "")] * marked)
        with opened(path) as (stream, disk):
            assert b"".join(iter(lambda: stream.read(7), b"")) == content
            assert disk.tell() == path.stat().st_size
    assert list(numbered_lines(io.BytesIO(content), "x")) == (wanted if lines else [(1, "")] * marked)


@given(st.lists(_LINE, max_size=4), st.sampled_from([b"\xff", b"\xc3(", b"caf\xe9"]))
def test_the_first_bad_line_is_named(lines: list[str], bad: bytes) -> None:
    content = "".join(f"{line}\n" for line in lines).encode() + bad
    with pytest.raises(
        UserError, match=rf"^standard input:{len(lines) + 1}: not UTF-8 \(byte 0x\w\w\); convert"
    ):
        list(numbered_lines(io.BytesIO(content), "standard input"))


@given(_JSON)
def test_objects_and_nothing_else_are_rows(value: Any) -> None:
    line = json.dumps(value)
    if isinstance(value, dict):
        assert parsed_object(line, "x:1", "{}") == value
    else:
        with pytest.raises(UserError) as caught:
            parsed_object(line, "x:1", '{"a": 1}')
        assert str(caught.value) == f'x:1: {kind(value)}, not an object; write each line as {{"a": 1}}'


def test_a_line_is_bounded_wherever_lines_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lines, tables):
        monkeypatch.setattr(module, "LONGEST", 99)
    long = tmp_path / "long"
    long.write_text("a\n" + "x" * 99 + "\n" + "y" * 100 + "\n")
    with pytest.raises(
        UserError, match=r"long:3: the line is longer than 99 bytes; check where its lines end"
    ):
        list(lines_of(long))
    open_quote = tmp_path / "x.csv"
    open_quote.write_text('a,b\n1,"2\n' + "3,4\n" * 99)
    with pytest.raises(UserError, match=r"x\.csv:2: the row that begins here is longer than 99 characters"):
        tables.read_table(open_quote)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"^nowhere: no such file; check the name"):
        list(lines_of(Path("nowhere")))
    with pytest.raises(UserError, match=r"^there: cannot read it \(boom\)"), readable("there"):
        raise OSError("boom")

"""Files of rows: what each form holds, and what each error says."""

import csv
import gzip
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.readers.tables import ColumnTable, read_parquet, read_table, read_tsv
from tests.tasks import writing
from tests.tasks.writing import write

# of which a file of little else is no text
CONTROLS = "".join(c for c in map(chr, range(32)) if c not in "\t\n\v\f\r\x1b")
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=CONTROLS), max_size=20)
# what a tsv can hold: no tab, no line feed, no carriage return before the end of a line
_CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r" + CONTROLS), max_size=20)


def refused(path: Path) -> str:
    return writing.refused(read_table, path)


def columns_of(name: str, content: bytes | str) -> dict[str, list[Any]]:
    with tempfile.TemporaryDirectory() as folder:
        return dict(read_table(write(Path(folder) / name, content)).columns)


@given(st.lists(st.tuples(_TEXT, _TEXT), min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_csv_comes_back_as_written(rows: list[tuple[str, str]], end: str, packed: bool) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    columns = columns_of("x.csv.gz" if packed else "x.csv", text.getvalue())
    assert columns == {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}


@given(
    st.lists(st.tuples(_CELL, _CELL), min_size=1),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.sampled_from(["", "\ufeff"]),
)
def test_tsv_comes_back_as_written(rows: list[tuple[str, str]], end: str, last_end: bool, mark: str) -> None:
    text = mark + end.join("\t".join(row) for row in [("a", "b"), *rows]) + end * last_end
    assert columns_of("x.tsv", text) == {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}


@given(
    st.lists(st.tuples(_TEXT, st.integers() | st.floats(allow_nan=False) | st.none()), min_size=1),
    st.booleans(),
)
def test_jsonl_comes_back_as_written(rows: list[tuple[str, Any]], escape: bool) -> None:
    text = "\n\n".join(json.dumps({"a": row[0], "b": row[1]}, ensure_ascii=escape) for row in rows)
    assert columns_of("x.jsonl", text) == {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}


def test_parquet_in_parts(tmp_path: Path) -> None:
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for number, path in enumerate(paths):
        pq.write_table(pa.table({"a": [f"x{number}"], "b": [number]}), path)
    assert read_table(paths[1]).columns == {"a": ["x1"], "b": [1]}
    whole = read_parquet(paths)
    assert whole.columns == {"a": ["x0", "x1"], "b": [0, 1]}
    assert whole.where(1) == f"{paths[0]} and the parts after it, row 2"


def test_rows_know_their_lines(tmp_path: Path) -> None:
    of_csv = read_table(write(tmp_path / "x.csv", 'a,b\r\n"one\r\ntwo",1\r\n\r\nthree,2\r\n'))
    assert of_csv.lines == [2, 5]
    of_jsonl = read_table(write(tmp_path / "x.jsonl", '{"a": 1}\n\n{"b": 2}\n'))
    assert (of_jsonl.lines, of_jsonl.columns) == ([1, 3], {"a": [1, None], "b": [None, 2]})
    of_tsv = read_table(write(tmp_path / "x.tsv", "a\n1\n\n2\n3\n"))
    assert of_tsv.where(1) == f"{tmp_path}/x.tsv:4"
    assert of_tsv.kept([1, 2]) == ColumnTable(of_tsv.source, {"a": ["2", "3"]}, [4, 5])


def test_quotes_in_tsv_are_text_and_odd_line_ends_are_characters(tmp_path: Path) -> None:
    line = 'one "half\u2028quote\u0085\x0b\x1c\rhere\t1\r\n'
    assert read_table(write(tmp_path / "x.tsv", f"a\tb\n{line}")).columns == {"a": [line[:-4]], "b": ["1"]}


def test_a_huge_line(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    huge = "word " * 200_000
    for name in ("x.csv", "x.tsv.gz"):
        assert read_table(write(tmp_path / name, f"a\n{huge}\n")).columns == {"a": [huge]}
    assert csv.field_size_limit() == before


def test_tsv_without_header_and_with_broken_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", "1\tx\n2\n3\ty\tz\n4\tw\n")
    table = read_tsv(path, header=("n", "text"), only={"text"}, skip_broken=True)
    assert (table.columns, table.lines, table.broken, len(table)) == ({"text": ["x", "w"]}, [1, 4], 2, 2)
    headed = write(tmp_path / "y.tsv", "id\ttext\n1\tx\n")
    assert read_tsv(headed, header=("n", "text")).columns == {"id": ["1"], "text": ["x"]}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", "", ": the file holds no rows"),
        ("x.tsv", "\ufeff", ": the file holds no rows"),
        ("x.csv", "a,b\n", ": the file holds no rows"),
        ("x.jsonl", "\n \n", ": the file holds no rows"),
        ("x.tsv", "a\tb\nx\ty\nz\n", ":3: 1 columns, not 2 as above; fields of a .tsv hold no tabs"),
        ("x.tsv", "a\tb\nx\ty\tz\n", ":2: 3 columns, not 2"),
        ("x.csv", "a,b\nx,y,z\n", ":2: 3 columns, not 2 as above; quote fields that hold commas"),
        ("x.csv", 'a,b\nx,y\n"p\nq",r\n"x"y,1\n', ":5: not valid csv"),
        ("x.csv", 'a,b\nx,y\n"never closed,1\nz,2\n', ":3: not valid csv (a quote is not closed)"),
        ("x.csv", "a,b,a\nx,y,z\n", ":1: 2 columns are named 'a'"),
        ("x.tsv", "\na\ta\nx\ty\n", ":2: 2 columns are named 'a'"),
        ("x.jsonl", '{"a": 1}\n{"a": 1', ":2: not valid JSON (Expecting ',' delimiter"),
        ("x.jsonl", "[" * 100_000, ":1: not valid JSON (maximum recursion depth"),
        ("x.jsonl", '{"a": 1}\n["a"]\n', ":2: a list, not an object"),
        ("x.jsonl", "null\n", ":1: nothing, not an object"),
        ("x.jsonl", b'{"a": 1}\n{"a": "f\xfc"}\n', ":2: not UTF-8 (byte 0xfc)"),
        ("x.tsv.gz", b"a\nb\nf\xfcnf\n", ":3: not UTF-8 (byte 0xfc); convert the file"),
        ("x.csv", b"a\n\xff\n", ":2: not UTF-8 (byte 0xff)"),
        ("x.parquet", "text", ": not parquet, or damaged ("),
        ("x.parquet", "", ": not parquet, or damaged ("),
        ("x.txt", "text", ": unknown extension; labelled sets are .jsonl, .csv"),
        ("x.json", "[]", ": unknown extension"),
    ],
)
def test_errors_say_where_and_what(tmp_path: Path, name: str, content: bytes | str, said: str) -> None:
    path = write(tmp_path / name, content)
    assert refused(path).startswith(f"{path}{said}")


def test_parquet_without_rows_or_with_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), path)
    assert "holds no rows" in refused(path)
    pq.write_table(pa.Table.from_arrays([pa.array(["x"])] * 2, names=["a", "a"]), path)
    assert "2 columns are named 'a'" in refused(path)


@pytest.mark.parametrize(("ending", "codec"), [(".zst", "zstd"), (".lz4", "lz4"), (".bz2", "bz2")])
def test_labelled_sets_may_be_compressed_in_any_way(tmp_path: Path, ending: str, codec: str) -> None:
    for name, content in (("x.csv", b"text,label\none,1\n"), ("x.jsonl", b'{"text": "one", "label": "1"}\n')):
        with pa.CompressedOutputStream(str(tmp_path / f"{name}{ending}"), codec) as stream:
            stream.write(content)
        assert read_table(tmp_path / f"{name}{ending}").columns == {"text": ["one"], "label": ["1"]}


def test_missing_files_folders_and_damaged_gzip(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.csv").startswith(f"{tmp_path}/none.csv: no such file, seen from ")
    assert (
        refused(tmp_path)
        == f"{tmp_path} is a folder: give a .jsonl, .csv, .tsv (each also compressed: .gz, .zst, .xz, .bz2, .lz4) and .parquet file in it"
    )
    path = tmp_path / "x.jsonl.gz"
    whole = gzip.compress(os.urandom(3000).hex().encode())
    for content, said in [
        (whole[:-1000], "the gzip file is cut short"),
        (b'{"a": 1}\n', "not a gzip file, or damaged at byte "),
        (whole[:20] + bytes(100) + whole[120:], "not a gzip file, or damaged at byte "),
    ]:
        path.write_bytes(content)
        assert refused(path).startswith(f"{path}: {said}")


def test_a_file_that_the_system_will_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.csv", "a\n1\n")

    def fail(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", fail)
    assert refused(path) == f"{path}: cannot read it (Permission denied); check its permissions and the disk"


def test_lists_of_fields_are_kept_short(tmp_path: Path) -> None:
    table = ColumnTable("x", {f"c{number}": [] for number in range(30)}, [])
    assert table.fields.endswith("'c19' and 10 more")
    assert ColumnTable("x", {}, []).fields == "none"

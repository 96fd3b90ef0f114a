"""One text in every format gives the same documents, and the same complaints about what is wrong in it."""

import bz2
import csv
import gzip
import io
import json
import lzma
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather

from fmlm_cli.corpus.text.documents import BadText, ReadOptions
from fmlm_cli.corpus.text.fields import TextFields
from fmlm_cli.corpus.text.files.text_files import TextFiles
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.errors import UserError
from fmlm_cli.readers import bytes as reading

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "corpora"

# What comes back unchanged from all of them: without the white space around, and with one kind of line end.
_CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t")
_TEXT = st.text(_CHARACTERS, max_size=40).map(str.strip)
_ROWS = st.lists(_TEXT, min_size=1, max_size=8)


def _compressed(name: str, data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, name) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: _compressed("zstd", data),
    ".lz4": lambda data: _compressed("lz4", data),
}


def _jsonl(texts: Sequence[str]) -> bytes:
    return "".join(json.dumps({"n": 1, "text": text}) + "\n" for text in texts).encode()


def _json(texts: Sequence[str]) -> bytes:
    return json.dumps([{"n": [1, {}], "text": text} for text in texts], ensure_ascii=False, indent=1).encode()


def _csv(texts: Sequence[str]) -> bytes:
    sink = io.StringIO()
    csv.writer(sink).writerows([["n", "text"], *(["1", text] for text in texts)])
    return sink.getvalue().encode()


WRITERS = {"jsonl": _jsonl, "ndjson": _jsonl, "json": _json, "csv": _csv}


def _table(texts: Sequence[str | None]) -> pa.Table:
    meta = [{"text": text, "n": 1} for text in texts]
    return pa.table({"n": range(len(texts)), "text": pa.array(texts, pa.string()), "meta": meta})


def _write_stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def _write_arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


TABLES: dict[str, Callable[[pa.Table, Path], None]] = {
    "x.parquet": lambda table, path: pq.write_table(table, path, row_group_size=3),
    "y.parquet": lambda table, path: pq.write_table(table, path, compression="zstd", use_dictionary=False),
    "x.arrow": _write_arrow,
    "y.arrow": _write_stream,
    "x.feather": lambda table, path: feather.write_feather(table, path, compression="zstd"),
}


def read(path: Path, field: str = "text", bad: BadText = "stop", **how: Any) -> tuple[list[str], ReadStats]:
    stats = ReadStats()
    options = ReadOptions(fields=TextFields.parse(field), on_bad_text=bad, **how)
    return list(TextFiles.find([str(path)], options).documents(stats)), stats


def message(path: Path, **how: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(path, **how)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def block_size() -> Any:
    before = reading.BLOCK
    yield
    reading.BLOCK = before


@settings(max_examples=60)
@given(_ROWS, st.sampled_from([*WRITERS]), st.sampled_from([*CODECS]), st.integers(3, 60))
def test_texts_come_back_from_text_formats(texts: list[str], form: str, ending: str, block: int) -> None:
    reading.BLOCK = block
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{form}{ending}"
        path.write_bytes(CODECS[ending](WRITERS[form](texts)))
        documents, stats = read(path)
        assert stats.disk_bytes == path.stat().st_size
    assert documents == [text for text in texts if text]
    assert stats.empty == texts.count("")
    assert stats.text_bytes == sum(len(text.encode()) for text in texts)


@settings(max_examples=60)
@given(_ROWS, st.sampled_from([*TABLES]), st.sampled_from(["text", "meta.text"]))
def test_texts_come_back_from_columns(texts: list[str], name: str, field: str) -> None:
    rows = [text or None for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        TABLES[name](_table(rows), path)
        documents, stats = read(path, field)
        assert stats.disk_bytes == path.stat().st_size
    assert documents == [text for text in texts if text]
    assert stats.empty == rows.count(None)


@given(st.lists(st.text("ab é\u4e2d\"'", max_size=9), min_size=1, max_size=8))
def test_tsv_knows_no_quotes(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.tsv.zst"
        path.write_bytes(CODECS[".zst"]("".join(f"{t}\t1\n" for t in ["text", *texts]).encode()))
        assert read(path)[0] == [text.strip() for text in texts if text.strip()]


@pytest.mark.parametrize("ending", [*CODECS])
def test_files_put_one_after_the_other_are_one(tmp_path: Path, ending: str) -> None:
    parts = [b"one\ntw", b"o\n" * 40, b"three\n"]
    (tmp_path / f"x.txt{ending}").write_bytes(b"".join(map(CODECS[ending], parts)))
    assert read(tmp_path / f"x.txt{ending}")[0] == ["one", "two", *["o"] * 39, "three"]


@pytest.mark.parametrize("ending", [ending for ending in CODECS if ending])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_cut_file_says_where_it_ends(tmp_path: Path, ending: str, share: float) -> None:
    text = "".join(f"{n:x} {n * n:x}\n" for n in range(60_000)).encode()
    whole = CODECS[ending](text)
    path = tmp_path / f"x.txt{ending}"
    path.write_bytes(whole[: int(len(whole) * share)])
    said = message(path)
    assert "cut short at byte" in said and "fetch it again" in said
    there = int(said.split(" at byte ")[1].split(" ")[0].replace(",", ""))
    with reading.opened(path) as (stream, _):
        assert b"".join(stream.read(1) for _ in range(there)) == text[:there]
        with pytest.raises(UserError, match="cut short"):
            stream.read(1)


@pytest.mark.parametrize("ending", [ending for ending in CODECS if ending])
def test_damage_and_other_contents_are_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.jsonl{ending}"
    whole = bytearray(CODECS[ending](_jsonl([f"{n * n:x}" for n in range(9000)])))
    whole[len(whole) // 2 : len(whole) // 2 + 60] = b"\xff" * 60
    path.write_bytes(whole)
    assert "or damaged at byte" in message(path)
    path.write_bytes(b'{"text": "plain"}\n')
    assert f"take {ending} off its name" in message(path)
    other = next(codec for codec in CODECS if codec not in ("", ending))
    path.write_bytes(CODECS[other](b'{"text": "plain"}\n'))
    assert f"let its name end with {other}" in message(path)


@pytest.mark.parametrize("name", [*TABLES])
def test_damaged_columns_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    TABLES[name](_table([f"text {n}" for n in range(99)]), path)
    whole = path.read_bytes()
    for cut in (len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:cut])
        assert "cut short" in message(path)
    path.write_bytes(whole[:4] + b"garbage" * 99)
    assert "cut short or damaged" in message(path)


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pa.table({"text": [f"text {n}" * 99 for n in range(90)]})
    pq.write_table(table, path, row_group_size=30, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    whole = bytearray(path.read_bytes())
    begin = column.data_page_offset
    whole[begin + 30 : begin + column.total_compressed_size] = bytes(column.total_compressed_size - 30)
    path.write_bytes(whole)
    assert "cut short or damaged in row group 2 of 3" in message(path)


def test_arrow_whose_batches_are_lost_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    _write_stream(_table(list("abcdef")), path)
    whole = path.read_bytes()
    with pa.ipc.open_stream(path) as reader:
        reader.read_next_batch()
    second = whole.rindex(b"\xff\xff\xff\xff", 0, len(whole) - 8)  # where the last batch begins
    path.write_bytes(whole[:second])
    assert "cut short after batch 1" in message(path)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(["x.arrow", "y.arrow", "x.parquet"]))
def test_whatever_stands_in_a_file_of_columns_ends_nothing(seed: int, name: str) -> None:
    """Offsets that lead out of memory would end the process."""
    from random import Random

    random = Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        TABLES[name](_table([f"text {n}" for n in range(200)]), path)
        whole = bytearray(path.read_bytes())
        for _ in range(12):
            whole[random.randrange(len(whole))] = random.randrange(256)
        path.write_bytes(whole)
        for field in ("text", "meta.text"):
            try:
                read(path, field, "replace")
            except UserError as error:
                assert "\n" not in str(error)


# --- which fields ---


_OBJECTS = [
    {"title": "One", "meta": {"body": "first"}, "n": 1},
    {"title": None, "meta": {"body": "second"}, "n": 2},
    {"title": "  ", "meta": {"body": None}, "n": 3},
    {"title": "Four", "meta": {"body": ""}, "n": 4},
]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", *TABLES])
def test_several_fields_are_joined_by_a_blank_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name in TABLES:
        TABLES[name](pa.Table.from_pylist(_OBJECTS), path)
    else:
        lines = "\n".join(map(json.dumps, _OBJECTS))
        path.write_text(lines if name == "x.jsonl" else json.dumps(_OBJECTS))
    documents, stats = read(path, "title, meta.body")
    assert documents == ["One\n\nfirst", "second", "Four"]
    assert stats.empty == 1
    assert "did you mean 'meta.body'?" in message(path, field="title,meta.boddy")
    assert "'n'" in message(path, field="n") and "not" in message(path, field="n")


def test_cells_are_joined_too_and_a_header_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('title,n,body\nOne,1,"first\n\nhalf"\n,2,second\n')
    assert read(tmp_path / "x.csv", "title,body")[0] == ["One\n\nfirst\n\nhalf", "second"]
    said = message(tmp_path / "x.csv", field="titel")
    assert ":1: no field 'titel': did you mean 'title'? fields are 'title', 'n', 'body';" in said


def test_columns_without_text_are_told(tmp_path: Path) -> None:
    for name, write in TABLES.items():
        write(pa.table({"content": ["a"], "n": [1]}), tmp_path / name)
        said = message(tmp_path / name)
        assert "no field 'text': did you mean 'content'?" in said or "fields are 'content', 'n'" in said
        assert "column 'n' holds int64, not text" in message(tmp_path / name, field="n")


@pytest.mark.parametrize(
    "type_", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_of_any_type_of_column(tmp_path: Path, type_: pa.DataType) -> None:
    column = pa.array(["one", None, "two", "one"]).cast(type_)
    for name, write in TABLES.items():
        if name.startswith("x.feather") or (name.endswith("parquet") and type_ == pa.string_view()):
            continue  # these know them not
        write(pa.table({"text": column}), tmp_path / name)
        assert read(tmp_path / name)[0] == ["one", "two", "one"]


# --- bad text ---


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.json", "x.parquet", "y.arrow", "x.arrow"])
def test_bad_text_has_the_same_three_policies(tmp_path: Path, name: str) -> None:
    rows = [b"one", b"f\xfcnf", b"caf\xc3\xa9"]
    path = tmp_path / name
    if name in TABLES:
        TABLES[name](pa.table({"text": pa.array(rows, pa.binary()).view(pa.string())}), path)
    elif name == "x.json":
        path.write_bytes(b"[" + b", ".join(b'{"text": "%b"}' % row for row in rows) + b"]")
    else:
        path.write_bytes(b"text\n" + b"\n".join(rows))
    said = message(path)
    assert "not UTF-8 (byte 0xfc)" in said and "--on-bad-text skip|replace" in said
    documents, stats = read(path, bad="skip")
    assert (documents, stats.bad_text) == (["one", "caf\u00e9"], 1)
    documents, stats = read(path, bad="replace")
    assert (documents, stats.bad_text) == (["one", "f\ufffdnf", "caf\u00e9"], 1)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", '{"text": "one"}', "not a JSON array ([...]); write it as one, or an object a line"),
        ("x.json", '[{"text": "one"},\n{"text": }]', ":2: not valid JSON (Expecting value)"),
        ("x.json", '[{"text": "one"}\n,{"text": "tw', ":2: not valid JSON (Unterminated string"),
        ("x.json", '[{"text": "one"}\n', ":2: not valid JSON (the array is cut short)"),
        ("x.json", '[{"text": "one"} {"text": "two"}]', ":1: not valid JSON (no comma between two"),
        ("x.json", '[{"text": "one"}]\n[]', ":2: not valid JSON (more after the array's end)"),
        ("x.json", '[\n\n"one"]', ":3: a string, not an object"),
        ("x.json", '[{"text": 1}]', ":1: field 'text' is a number"),
        ("x.json", '[{"text": "a"},\n{"txt": "b"}]', ":2: no field 'text': did you mean 'txt'?"),
        ("x.json", "[" * 9000, "not"),
        ("x.csv", 'text,n\none,1\n"two,2\nthree,3\n', ":3: not valid csv (a quote is not closed); mend"),
        ("x.csv", "text,n\none,1\n\ntwo,2,3\n", ":4: 3 columns, not 2 as above; quote fields"),
        ("x.csv", "text,text\none,1\n", ":1: 2 columns are named 'text'"),
        ("x.tsv", "text\tn\none\n", ":2: 1 columns, not 2 as above; fields of a .tsv hold no tabs"),
        ("x.csv", "\ufefftext\none\n".encode("utf-16-le"), "it seems to be UTF-16 text (little-endian)"),
        ("x.md", b"\x7fELF\x02\x01\x01" + bytes(99), "it seems to be a program (ELF)"),
        ("x.json", b"\x89PNG\r\n\x1a\n" + bytes(99), "it seems to be a picture"),
        ("x.tsv", b"some text\n" * 900 + bytes(3000), "NULs"),
        ("x.ndjson", b"PAR1\x15" + bytes(99), "it seems to be parquet"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: Path, name: str, content: bytes | str, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert said in message(path)


def test_a_mark_at_the_beginning_and_nuls_in_text_do_no_harm(tmp_path: Path) -> None:
    for name, content in [
        ("x.csv", "\ufefftext\na\0b and so on\n"),
        ("x.tsv", "\ufefftext\na\0b and so on\n"),
        ("x.json", '\ufeff[{"text": "a\\u0000b and so on"}]'),
    ]:
        (tmp_path / name).write_text(content, "utf-8")
        assert read(tmp_path / name)[0] == ["a\0b and so on"]


# --- lengths ---


@given(
    st.lists(_TEXT, min_size=1), st.integers(0, 12), st.integers(0, 30), st.sampled_from(["jsonl", "parquet"])
)
def test_documents_are_chosen_by_their_length(texts: list[str], least: int, more: int, form: str) -> None:
    most = least + more
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{form}"
        pq.write_table(_table(texts), path) if form == "parquet" else path.write_bytes(_jsonl(texts))
        documents, stats = read(path, min_characters=least, max_characters=most)
    assert documents == [text for text in texts if text and least <= len(text) <= most]
    assert stats.over_max == sum(len(text) > most for text in texts)
    assert stats.under_min == sum(0 < len(text) < least for text in texts)
    assert stats.documents + stats.over_max + stats.under_min + stats.empty == len(texts)


def test_what_is_too_long_to_be_wanted_need_not_fit_in_memory(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a" * 500 + "\nshort\n")
    assert "the document that begins here is longer" in message(tmp_path / "x.txt", most_characters=99)
    documents, stats = read(tmp_path / "x.txt", most_characters=99, max_characters=99)
    assert (documents, stats.over_max, stats.long) == (["short"], 1, 0)
    with pytest.raises(UserError, match="no document has 5 characters or more"):
        ReadOptions(min_characters=5, max_characters=4)


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "y.arrow"])
def test_long_texts_in_columns(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    TABLES[name](_table(["one", "\u00e9" * 300, "two"]), path)
    assert "row 2: the document that begins here is longer than 50 characters" in message(
        path, most_characters=50
    )
    assert read(path, most_characters=50, on_long="cut")[0] == ["one", "\u00e9" * 50, "two"]
    assert read(path, most_characters=50, on_long="skip")[0] == ["one", "two"]


# --- saved data sets, and the corpora that are shared ---


def _written(texts: list[str], folder: Path) -> list[Path]:
    """The same texts in five ways."""
    paths = [folder / name for name in ("a.txt.gz", "a.jsonl.zst", "a.csv", "a.parquet", "saved")]
    paths[0].write_bytes(gzip.compress("\n\n\n".join(texts).encode(), 1))
    paths[1].write_bytes(CODECS[".zst"](_jsonl(texts)))
    paths[2].write_bytes(_csv(texts))
    pq.write_table(_table(list(texts)), paths[3])
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(paths[4], num_shards=2)
    return paths


def _check_all_alike(sources: list[Path], folder: Path) -> None:
    options = ReadOptions(documents="blank-line")
    texts = list(TextFiles.find([str(source) for source in sources], options).documents(ReadStats()))
    assert len(texts) > 80
    for path in _written(texts, folder):
        assert list(TextFiles.find([str(path)], options).documents(ReadStats())) == texts, path


needs_corpora = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared data sets are not at {SHARED}")


@needs_corpora
def test_real_text_is_the_same_in_all_formats(tmp_path: Path) -> None:
    _check_all_alike([SHARED / "wikipedia-en.valid.txt.gz"], tmp_path)


@needs_corpora
@pytest.mark.slow
def test_all_corpora_are_the_same_in_all_formats(tmp_path: Path) -> None:
    _check_all_alike(sorted(SHARED.glob("*.txt.gz")), tmp_path)

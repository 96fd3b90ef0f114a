"""Files that are no UTF-8 text: each is refused by the name of what it is, whatever its own name says."""

import bz2
import gzip
import io
import lzma
import sqlite3
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.errors import UserError
from fmlm_cli.readers.bytes import BLOCK, blocks_of, opened
from fmlm_cli.readers.formats import other_format, other_than_text
from fmlm_cli.readers.lines import lines_of
from fmlm_cli.readers.tables import read_table

TEXT = b"The quick brown fox jumps over the lazy dog.\n" * 20
TABLE = pa.table({"text": ["The quick brown fox", "jumps over"], "label": [0, 1]})


def _parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink)
    return sink.getvalue()


def _arrow(make: Callable[..., pa.ipc.RecordBatchStreamWriter]) -> bytes:
    sink = io.BytesIO()
    with make(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return sink.getvalue()


def _zip() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.txt", TEXT)
    return sink.getvalue()


def _tar() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = len(TEXT)
        archive.addfile(entry, io.BytesIO(TEXT))
    return sink.getvalue()


def _numpy() -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.arange(99))
    return sink.getvalue()


def _sqlite() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.db"
        connection = sqlite3.connect(path)
        connection.execute("create table t (a text)")
        connection.commit()
        connection.close()
        return path.read_bytes()


MADE: dict[str, bytes] = {  # by those who know the format
    "gzip": gzip.compress(TEXT),
    "bzip2": bz2.compress(TEXT),
    "xz": lzma.compress(TEXT),
    "Zstandard": pa.Codec("zstd").compress(TEXT).to_pybytes(),
    "LZ4": pa.Codec("lz4").compress(TEXT).to_pybytes(),
    "zip": _zip(),
    "tar": _tar(),
    "parquet": _parquet(),
    "Arrow": _arrow(pa.ipc.new_stream),
    "an Arrow": _arrow(pa.ipc.new_file),
    "NumPy": _numpy(),
    "SQLite": _sqlite(),
    "UTF-16 text (little-endian)": "\ufeffOne.\n".encode("utf-16-le"),
    "UTF-16 text (big-endian)": "\ufeffOne.\n".encode("utf-16-be"),
    "UTF-32 text (little-endian)": "\ufeffOne.\n".encode("utf-32-le"),
    "UTF-32 text (big-endian)": "\ufeffOne.\n".encode("utf-32-be"),
    "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "ELF": b"\x7fELF\x02\x01\x01",
}


@pytest.mark.parametrize("name", MADE)
def test_what_it_is_is_said(tmp_path: Path, name: str) -> None:
    for file in ("x.txt", "x.jsonl", "x.csv", "x.tsv"):
        path = tmp_path / file
        path.write_bytes(MADE[name])
        read = list if file == "x.txt" else None
        with pytest.raises(UserError) as caught:
            read(lines_of(path)) if read else read_table(path)
        assert str(caught.value).startswith(f"{path}: it seems to be ")
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in MADE if name != "gzip"])
def test_what_is_within_a_gz_or_in_its_place_is_said(tmp_path: Path, name: str) -> None:
    for content in (gzip.compress(MADE[name]), MADE[name]):
        path = tmp_path / "x.txt.gz"
        path.write_bytes(content)
        with pytest.raises(UserError, match="it seems to be") as caught:
            list(lines_of(path))
        assert name in str(caught.value)


SCRIPTS = {
    "Latin": "The quick brown fox, naïve café.\n",
    "Greek": "Η γρήγορη καφέ αλεπού πηδά.\n",
    "Cyrillic": "Быстрая бурая лиса прыгает.\n",
    "Hebrew": "השועל החום המהיר קופץ.\n",
    "Arabic": "الثعلب البني السريع يقفز.\n",
    "Devanagari": "तेज़ भूरी लोमड़ी कूदती है।\n",
    "Thai": "สุนัขจิ้งจอกสีน้ำตาลกระโดด\n",
    "Japanese": "素早い茶色の狐は怠け者の犬を飛び越える。\n",
    "emoji": "fox 🦊 and dog 🐕, twice.\n",
}
WIDE = {"utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE", "utf-32-le": "UTF-32LE", "utf-32-be": "UTF-32BE"}


@pytest.mark.parametrize("encoding", WIDE)
@given(st.lists(st.sampled_from([*SCRIPTS]), min_size=1, max_size=2), st.integers(2, 40))
def test_wide_text_without_a_mark_is_told_by_its_nuls(encoding: str, scripts: list[str], lines: int) -> None:
    text = "".join(SCRIPTS[script] for script in scripts) * lines
    said = other_than_text(text.encode(encoding))
    assert said is not None
    assert f"iconv -f {WIDE[encoding]} -t UTF-8" in said


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    st.sampled_from(["", "The quick brown fox, and so on. ", "word\n"]),
    st.lists(st.integers(0, 1000), max_size=8),
)
def test_text_in_utf8_is_text(text: str, more: str, slips: list[int]) -> None:
    """Also where a few NULs stand in it, as long as there are four characters to each."""
    characters = list(text + more)
    for place in slips[: len(characters) // 4]:
        characters.insert(place % (len(characters) + 1), "\0")
    content = "".join(characters).encode()
    assert other_than_text(content) is None
    assert other_format(content) is None


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=900))
def test_utf8_with_many_nuls_is_not_called_utf16(places: list[int]) -> None:
    content = bytearray(TEXT * 4)
    for place in places:
        content[place % len(content)] = 0
    assert "UTF-16" not in (other_than_text(bytes(content)) or "")


def test_a_nul_does_not_make_latin_1_wide() -> None:
    assert other_than_text("le petit café du coin,\0 juste à côté du grand marché".encode("latin-1")) is None


@pytest.mark.parametrize("tail", [20, 21, 22, 23])
def test_where_a_block_ends_decides_nothing(tmp_path: Path, tail: int) -> None:
    clean = "The quick brown fox, naïve café.\n".encode()
    content = (clean * (BLOCK // len(clean) + 1))[:BLOCK] + b"some\0 more text, as it is"[:tail]
    for path in (tmp_path / "x.txt", tmp_path / "x.txt.gz"):
        path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
        with opened(path) as (stream, _):
            assert b"".join(blocks_of(stream, path)) == content


@pytest.mark.parametrize(
    "content",
    [
        b"PAR1 is how a parquet file begins\n",
        b"BZh is how a bzip2 file begins\n",
        b"PK for short\n",
        b"ARROW1 and SQLite format 3\n",
        b"x" * 257 + b"ustar is a format",
        b"1\x012\x013\n",  # Hive parts its fields so
        b"N\bNA\bAM\bME\bE\n",  # a manual's page in bold
        b"\x1b[1mbold\x1b[0m\n",
        "caf\u00e9\n".encode("latin-1"),  # for others to say that it is not UTF-8
        b"",
    ],
)
def test_text_about_formats_is_text(content: bytes) -> None:
    assert other_format(content) is None
    assert other_than_text(content) is None


@given(st.integers(0))
def test_bytes_at_random_are_no_text(seed: int) -> None:
    """What is compressed or encrypted, in whatever way, looks so."""
    assert "seems to be no text" in str(other_than_text(Random(seed).randbytes(20_000)))


def test_a_run_of_nuls_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "cut-off-by-a-crash.txt"
    path.write_bytes(b"line\n" * (1 << 19) + bytes(1 << 20))
    with pytest.raises(UserError, match=r"from byte position 2,097,152 on, .* NULs, .*leave it out"):
        list(lines_of(path))

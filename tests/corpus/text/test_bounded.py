"""Memory stays bounded, whatever a file holds: measured by processes of their own."""

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")

MB = 1_000_000
LINE = "words and more " * 20  # 300 bytes

READ = r"""
import re, sys
from pathlib import Path
from fmlm_cli.corpus.text.documents import ReadOptions
from fmlm_cli.corpus.text.files.text_files import TextFiles
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.errors import UserError

stats = ReadStats()
source = TextFiles.find([sys.argv[1]], ReadOptions(documents="line", on_long="skip"))
try:
    for _ in source.documents(stats):
        pass
    said = "read"
except UserError as error:
    said = str(error)
# Of this program alone: what getrusage tells goes on from the process that started it.
peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024
print(peak, stats.documents, stats.long, said)
"""


def measured(path: Path) -> tuple[int, int, int, str]:
    """MiB that reading a file takes at most, documents, those too long, and what was said."""
    done = subprocess.run([sys.executable, "-c", READ, path], check=True, capture_output=True, text=True)
    peak, documents, long, said = done.stdout.split(" ", 3)
    return int(peak), int(documents), int(long), said.strip()


def _line(path: Path, before: bytes, after: bytes, part: bytes = LINE.encode()) -> None:
    """One of 300 MB between two others."""
    with path.open("wb") as file:
        file.write(before)
        for _ in range(300 * MB // len(part)):
            file.write(part)
        file.write(after)


def _table(path: Path, write: Callable[[pa.Table, Path], None]) -> None:
    write(pa.table({"text": ["one", LINE * MB, "two"]}), path)


def _stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, tuple[Callable[[Path], None], int, str]] = {  # documents read, and what is said
    "x.txt": (lambda path: _line(path, b"one\n", b"\ntwo\n"), 2, "read"),
    "x.jsonl": (
        lambda path: _line(path, b'{"text": "one"}\n{"text": "', b'"}\n{"text": "two"}\n'),
        2,
        "read",
    ),
    "x.tsv": (lambda path: _line(path, b"text\none\n", b"\ntwo\n"), 2, "read"),
    "x.csv": (
        lambda path: _line(path, b"text\none\n", b"\ntwo\n"),
        1,
        "x.csv:3: the row that begins here is",
    ),
    "q.csv": (
        lambda path: _line(path, b'text\none\n"', b"\ntwo\n", f"{LINE}\n".encode()),
        1,
        "q.csv:3: the row that begins here is longer than 121,048,576 characters, or a quote in it is not",
    ),
    "x.json": (
        lambda path: _line(path, b'[{"text": "one"}, {"text": "', b'"}, {"text": "two"}]'),
        1,
        "x.json:1: the element that begins here is longer than",
    ),
    "x.arrow": (lambda path: _table(path, _stream), 2, "read"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_one_line_of_300_mb(tmp_path: Path, name: str) -> None:
    write, documents, said = WRITERS[name]
    write(tmp_path / name)
    peak, read, long, told = measured(tmp_path / name)
    assert (read, long) == (documents, documents - 1)
    assert said in told
    assert peak < 800


@pytest.mark.slow
@pytest.mark.parametrize("byte", [b"\0", b"a"])
@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_gigabyte_of_one_byte(tmp_path: Path, byte: bytes, ending: str) -> None:
    path = tmp_path / f"x.txt{ending}"
    opened = {
        ".gz": lambda: gzip.open(path, "wb", 1),  # noqa: SIM115
        ".zst": lambda: pa.CompressedOutputStream(str(path), "zstd"),
    }
    with opened[ending]() as file:
        for _ in range(1024):
            file.write(byte * (1 << 20))
    peak, read, long, told = measured(path)
    assert ("NULs" in told, read, long) == ((True, 0, 0) if byte == b"\0" else (False, 0, 1))
    assert peak < 500


def test_texts_that_parquet_has_once_are_not_all_there_at_once(tmp_path: Path) -> None:
    """200 rows of one megabyte, which compress to next to nothing."""
    pq.write_table(pa.table({"text": [LINE * 4000] * 200}), tmp_path / "x.parquet", compression="zstd")
    assert (tmp_path / "x.parquet").stat().st_size < MB
    peak, read, _, _ = measured(tmp_path / "x.parquet")
    assert read == 200
    assert peak < 300

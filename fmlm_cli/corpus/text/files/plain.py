"""The documents of plain text: lines, text between blank lines, or whole files."""

import codecs
import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, groupby
from typing import Literal

from fmlm_cli.corpus.text.documents import BAD_TEXT, Complaint, Found, ReadOptions
from fmlm_cli.corpus.text.files.paths import SourceFile
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.errors import UserError
from fmlm_cli.readers.bytes import blocks_of, opened, with_plain_ends
from fmlm_cli.readers.lines import split_lines

_BLANK_LINE = re.compile(rb"\n[ \t\v\f]*\n")


def blocks_in(file: SourceFile, stats: ReadStats) -> Iterator[bytes]:
    """The decompressed contents in blocks of 1 MiB; counts `stats.disk_bytes`."""
    before = stats.disk_bytes
    with opened(file.path) as (stream, disk):
        for block in blocks_of(stream, file.path):
            stats.disk_bytes = before + disk.tell()
            yield block
        stats.disk_bytes = before + disk.tell()  # now with the end of a .gz, which holds no text


def text_blocks(file: SourceFile, stats: ReadStats) -> Iterator[bytes]:
    """The contents without byte-order mark and with every line end as a line feed; blocks may be empty."""
    return with_plain_ends(blocks_in(file, stats))


def detect_mode(file: SourceFile) -> Literal["blank-line", "line"]:
    """What "auto" means for a file: "blank-line" if its first MiB has a blank line between text, else "line".

    Blank is a line of nothing but ASCII whitespace. Raises `UserError` if the file cannot be read.
    """
    head = next(text_blocks(file, ReadStats()), b"").strip()
    return "blank-line" if _BLANK_LINE.search(head) else "line"


def plain_documents(file: SourceFile, options: ReadOptions, stats: ReadStats) -> Iterator[Found]:
    """The documents of a file of plain text."""
    mode = detect_mode(file) if options.documents == "auto" else options.documents
    blocks = text_blocks(file, stats)
    most = options.most_bytes
    if mode == "file":
        documents: Iterable[tuple[int, bytes]] = [(1, _joined(blocks, b"", most))]
    elif mode == "blank-line":
        documents = _paragraphs(split_lines(blocks, most), most)
    else:
        documents = (line for line in enumerate(split_lines(blocks, most), start=1) if line[1].strip())
    for line, document in documents:
        cut = len(document) > most
        yield Found(line, *decoded(document, file, cut=cut), cut)


def _paragraphs(lines: Iterable[bytes], most: int) -> Iterator[tuple[int, bytes]]:
    """Runs of non-blank lines, joined by line feeds, and the number of the first line of each."""
    for has_text, run in groupby(enumerate(lines, start=1), key=lambda line: bool(line[1].strip())):
        if has_text:
            number, first = next(run)
            yield number, _joined(chain([first], (line for _, line in run)), b"\n", most)


def _joined(parts: Iterable[bytes], between: bytes, most: int) -> bytes:
    """The parts as one, and no further ones once it is longer than `most`."""
    joined = bytearray()
    for number, part in enumerate(parts):
        joined += between + part if number else part
        if len(joined) > most:
            break
    return bytes(joined)


def decoded(text: bytes, file: SourceFile, *, cut: bool = False) -> tuple[str, Complaint | None]:
    """The text, and what to complain of if it had to be repaired; `cut`: it may end within a character."""
    try:
        return codecs.utf_8_decode(text, "strict", not cut)[0], None
    except UnicodeDecodeError:
        return text.decode(errors="replace"), partial(_not_utf8, file)


def _not_utf8(file: SourceFile) -> UserError:
    """Read a file again to say where it first stops being UTF-8: line from 1, decompressed byte from 0.

    Documents know nothing of their place in the file, which keeps the ordinary case fast.
    """
    rest, position, line = b"", 0, 1
    for block in chain(blocks_in(file, ReadStats()), [b""]):
        data = rest + block
        try:
            done = codecs.utf_8_decode(data, "strict", not block)[1]
        except UnicodeDecodeError as error:
            at = error.start
            where = f"{file.path}:{line + _line_ends(data[:at])}"
            wrong = f"not UTF-8 (byte 0x{data[at]:02x} at byte position {position + at})"
            return UserError(f"{where}: {wrong}; {BAD_TEXT}")
        if block and data[:done].endswith(b"\r"):
            done -= 1  # counted together with the '\n' that may follow
        position, line, rest = position + done, line + _line_ends(data[:done]), data[done:]
    return UserError(f"{file.path}: changed while it was read; wait until it is complete, then start again")


def _line_ends(data: bytes) -> int:
    """How many line ends there are, '\r\n' being one."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")

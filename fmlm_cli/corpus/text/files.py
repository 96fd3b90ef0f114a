"""The source that is .txt and .jsonl files (also .gz): a stream of documents, one in memory at a time.

Whatever is wrong with a file is a `UserError` that names it, and the line where there is one.
"""

import codecs
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, Literal

from fmlm_cli import storage
from fmlm_cli.corpus.text.paths import SourceFile, resolve_sources
from fmlm_cli.corpus.text.source import ReadStats, Source, even_runs
from fmlm_cli.errors import UserError, nearest
from fmlm_cli.readers.bytes import opened
from fmlm_cli.readers.jsonl import HALF_CHARACTER, kind, parsed_object
from fmlm_cli.readers.lines import BOM

DocumentMode = Literal["auto", "blank-line", "line", "file"]
BadText = Literal["stop", "skip", "replace"]

_BLOCK = 1 << 20  # bytes read at once: large enough to be fast, small beside any model
_BLANK_LINE = re.compile(rb"\n[ \t\v\f]*\n")
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # the first also of UTF-32-LE
_WIDE = "it seems to be UTF-16 or UTF-32: convert the file first (iconv -f UTF-16 -t UTF-8)"
_NARROW = "pass --on-bad-text skip|replace, or convert the file (for example iconv -f LATIN1 -t UTF-8)"
_SHOWN_FIELDS = 20
_EXAMPLE = '{"text": "..."}'
_MEANING = {"blank-line": "text between blank lines", "line": "a line", "file": "a file"}

Complaint = Callable[[], UserError]  # made only when wanted: finding a bad byte reads the file again
_MaybeBad = tuple[str, Complaint | None]


@dataclass(frozen=True)
class ReadOptions:
    """How to read: `documents` is for .txt files, `text_field` for .jsonl, `on_bad_text` for both.

    `text_field` may name a nested field with dots ("meta.text").
    """

    documents: DocumentMode = "auto"
    text_field: str = "text"
    on_bad_text: BadText = "stop"


def _blocks(file: SourceFile, stats: ReadStats) -> Iterator[bytes]:
    """The decompressed contents in blocks of 1 MiB; counts `stats.disk_bytes`."""
    before = stats.disk_bytes
    with opened(file.path) as (stream, disk):
        while block := stream.read(_BLOCK):
            stats.disk_bytes = before + disk.tell()
            yield block
        stats.disk_bytes = before + disk.tell()  # now with the end of a .gz, which holds no text


def _text_blocks(file: SourceFile, stats: ReadStats) -> Iterator[bytes]:
    """The contents without byte-order mark and with every line end as a line feed; blocks may be empty."""
    held = b""  # a carriage return at a block's end, perhaps half of '\r\n'; the file's last one ends nothing
    blocks = _blocks(file, stats)
    for block in chain([next(blocks, b"").removeprefix(BOM)], blocks):
        text = held + block
        held = b"\r" if text.endswith(b"\r") else b""
        text = text[: len(text) - len(held)]
        yield text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their ends; a line may run over many blocks."""
    unfinished: list[bytes] = []
    for block in blocks:
        lines = block.split(b"\n")
        unfinished.append(lines[0])
        if len(lines) > 1:
            yield b"".join(unfinished)
            yield from lines[1:-1]
            unfinished = [lines[-1]]
    if last := b"".join(unfinished):
        yield last


def _paragraphs(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Runs of non-blank lines, joined by line feeds."""
    for has_text, run in groupby(lines, key=lambda line: bool(line.strip())):
        if has_text:
            yield b"\n".join(run)


def detect_mode(file: SourceFile) -> Literal["blank-line", "line"]:
    """What "auto" means for a file: "blank-line" if its first MiB has a blank line between text, else "line".

    Blank is a line of nothing but ASCII whitespace. A .jsonl file is always "line". Raises `UserError` if the
    file cannot be read.
    """
    if file.kind == "jsonl":
        return "line"
    head = next(_text_blocks(file, ReadStats()), b"").strip()
    return "blank-line" if _BLANK_LINE.search(head) else "line"


@dataclass(frozen=True)
class TextFiles(Source):
    """Files in the order in which they are read, all in the same way."""

    files: tuple[SourceFile, ...]
    options: ReadOptions

    @classmethod
    def find(cls, sources: Sequence[str], options: ReadOptions) -> "TextFiles":
        """The files that sources name. Raises `UserError` for one that is missing or holds none."""
        return cls(tuple(resolve_sources(sources)), options)

    @property
    def size(self) -> int:
        """Bytes on the disk, compressed as they may lie there."""
        return sum(file.size for file in self.files)

    @property
    def paths(self) -> list[Path]:
        """Of the files."""
        return [file.path for file in self.files]

    @property
    def parts(self) -> list["TextFiles"]:
        """Each file by itself."""
        return [TextFiles((file,), self.options) for file in self.files]

    def documents(self, stats: ReadStats) -> Iterator[str]:
        """As `read_documents`."""
        return read_documents(self.files, self.options, stats)

    def identity(self) -> list[dict[str, Any]]:
        """Each file's name, bytes and hash."""
        return [
            {"name": file.path.name, "bytes": file.size, "sha256": storage.sha256_of_file(file.path)}
            for file in self.files
        ]

    def describe(self) -> list[str]:
        """What a document is, in how many of the .txt files."""
        setting = self.options.documents
        modes = Counter(
            detect_mode(file) if setting == "auto" else setting for file in self.files if file.kind == "txt"
        )
        how = " (found by looking; --documents sets it)" if setting == "auto" else ""
        return [
            f"a document is {_MEANING[mode]}, in {number:,} .txt file{'s' * (number > 1)}{how}"
            for mode, number in modes.items()
        ]

    def shards(self, number: int) -> list["TextFiles"]:
        """By whole files."""
        runs = even_runs(self.files, [file.size for file in self.files], number)
        return [TextFiles(run, self.options) for run in runs]


def read_documents(files: Sequence[SourceFile], options: ReadOptions, stats: ReadStats) -> Iterator[str]:
    """Yield the documents of all files in order, stripped and never empty, while counting into `stats`.

    Raises `UserError` (file, line, remedy) for a file that is unreadable or damaged, for JSON without the
    wanted text and, where `options.on_bad_text` is "stop", for text that is not valid UTF-8.
    """
    for file in files:
        texts = _jsonl_texts if file.kind == "jsonl" else _txt_texts
        for text, complaint in texts(file, options, stats):
            if complaint:
                if options.on_bad_text == "stop":
                    raise complaint()
                stats.bad_text += 1
                if options.on_bad_text == "skip":
                    continue
            document = text.strip()
            if not document:
                stats.empty += 1
                continue
            stats.documents += 1
            stats.text_bytes += len(document) if document.isascii() else len(document.encode())
            yield document


def _txt_texts(file: SourceFile, options: ReadOptions, stats: ReadStats) -> Iterator[_MaybeBad]:
    """The documents of a .txt file, repaired where bad, with what to complain of."""
    mode = detect_mode(file) if options.documents == "auto" else options.documents
    blocks = _text_blocks(file, stats)
    if mode == "file":
        documents: Iterable[bytes] = [b"".join(blocks)]
    elif mode == "blank-line":
        documents = _paragraphs(_lines(blocks))
    else:
        documents = filter(bytes.strip, _lines(blocks))
    for document in documents:
        yield _decode(document, file)


def _decode(text: bytes, file: SourceFile) -> _MaybeBad:
    """The text, and what to complain of if it had to be repaired."""
    try:
        return text.decode(), None
    except UnicodeDecodeError:
        return text.decode(errors="replace"), partial(_not_utf8, file)


def _not_utf8(file: SourceFile) -> UserError:
    """Read a file again to say where it first stops being UTF-8: line from 1, decompressed byte from 0.

    Documents know nothing of their place in the file, which keeps the ordinary case fast.
    """
    rest, position, line = b"", 0, 1
    for block in chain(_blocks(file, ReadStats()), [b""]):
        data = rest + block
        try:
            done = codecs.utf_8_decode(data, "strict", not block)[1]
        except UnicodeDecodeError as error:
            at = error.start
            remedy = _WIDE if position == 0 and data.startswith(_WIDE_MARKS) else _NARROW
            where = f"{file.path}:{line + _line_ends(data[:at])}"
            wrong = f"not UTF-8 (byte 0x{data[at]:02x} at byte position {position + at})"
            return UserError(f"{where}: {wrong}; {remedy}")
        if block and data[:done].endswith(b"\r"):
            done -= 1  # counted together with the '\n' that may follow
        position, line, rest = position + done, line + _line_ends(data[:done]), data[done:]
    return UserError(f"{file.path}: changed while it was read; wait until it is complete, then start again")


def _line_ends(data: bytes) -> int:
    """How many line ends there are, '\r\n' being one."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _jsonl_texts(file: SourceFile, options: ReadOptions, stats: ReadStats) -> Iterator[_MaybeBad]:
    """The texts of a .jsonl file, repaired where bad, with what to complain of."""
    for number, raw in enumerate(_lines(_text_blocks(file, stats)), start=1):
        if not raw.strip():
            continue
        line, complaint = _decode(raw, file)
        if complaint and options.on_bad_text != "replace":
            yield "", complaint  # not parsed: it may not even be JSON any more
            continue
        where = f"{file.path}:{number}"
        text = _text_of(parsed_object(line, where, _EXAMPLE), options.text_field, where)
        if not text.isascii() and HALF_CHARACTER.search(text):
            complaint = complaint or partial(_lone_surrogate, where)
            text = HALF_CHARACTER.sub("\ufffd", text)
        yield text, complaint


def _lone_surrogate(where: str) -> UserError:
    """An error for half a character, which JSON can write down but UTF-8 cannot."""
    remedy = "pass --on-bad-text skip|replace, or mend the line"
    return UserError(f"{where}: the text has half a character (\\ud800 to \\udfff, alone); {remedy}")


def _text_of(value: dict[str, Any], field: str, where: str) -> str:
    """The text in a field; null is an empty text."""
    inner: Any = value
    for name in [field] if field in value else field.split("."):
        if not isinstance(inner, dict) or name not in inner:
            raise _no_field(value, field, where)
        inner = inner[name]
    if inner is None:
        return ""
    if not isinstance(inner, str):
        raise UserError(
            f"{where}: field '{field}' is {kind(inner)}, not a string; choose another --text-field"
        )
    return inner


def _no_field(value: dict[str, Any], field: str, where: str) -> UserError:
    """An error for a missing field that tells which ones there are."""
    names = list(islice(_fields(value), _SHOWN_FIELDS))
    close = nearest(field, names)
    hint = f"did you mean '{close}'? " if close else ""
    listed = ", ".join(map(repr, names)) or "none"
    return UserError(f"{where}: no field '{field}': {hint}fields are {listed}; choose one with --text-field")


def _fields(value: dict[str, Any], prefix: str = "", depth: int = 4) -> Iterator[str]:
    """The names by which `text_field` can reach what is in an object, nested ones with dots."""
    for name, inner in value.items():
        if isinstance(inner, dict) and inner and depth > 1:
            yield from _fields(inner, f"{prefix}{name}.", depth - 1)
        else:
            yield prefix + name

"""The source that is .txt and .jsonl files (also .gz): a stream of documents, one in memory at a time.

Whatever is wrong with a file is a `UserError` that names it, and the line where there is one.
"""

import codecs
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fmlm_cli import storage
from fmlm_cli.corpus.text.passed_over import PassedOver, Reason, data_size, listed, printable
from fmlm_cli.corpus.text.paths import EXTENSIONS, SourceFile, resolve_sources
from fmlm_cli.corpus.text.source import ReadStats, Source, even_runs
from fmlm_cli.errors import UserError, nearest
from fmlm_cli.events import counted
from fmlm_cli.readers.bytes import blocks_of, opened, readable
from fmlm_cli.readers.jsonl import HALF_CHARACTER, kind, parsed_object
from fmlm_cli.readers.lines import BOM, split_lines

DocumentMode = Literal["auto", "blank-line", "line", "file"]
BadText = Literal["stop", "skip", "replace"]
LongDocument = Literal["stop", "cut", "skip"]

_BLANK_LINE = re.compile(rb"\n[ \t\v\f]*\n")
_BAD_TEXT = "pass --on-bad-text skip|replace, or convert the file (for example iconv -f LATIN1 -t UTF-8)"
_ESCAPED = 6  # bytes in which JSON may write a character (\u00e9)
_OTHER_FIELDS = 1 << 20  # bytes of a line of JSON beside its text, at least
_SHOWN_FIELDS = 20
_EXAMPLE = '{"text": "..."}'
_MEANING = {"blank-line": "text between blank lines", "line": "a line", "file": "a file"}

Complaint = Callable[[], UserError]  # made only when wanted: finding a bad byte reads the file again


class _Found(NamedTuple):
    """A document as it was found: the line on which it begins, its text, repaired where bad, and of what to
    complain then; `cut`: whether it is the beginning only of one that is far too long.
    """

    line: int
    text: str
    complaint: Complaint | None
    cut: bool = False


@dataclass(frozen=True)
class ReadOptions:
    """How to read: `documents` is for .txt files, `text_field` for .jsonl, the others for both.

    `text_field` may name a nested field with dots ("meta.text"). `on_long`: what to do with a document of
    more than `most_characters`, of which never much more is in memory.
    """

    documents: DocumentMode = "auto"
    text_field: str = "text"
    on_bad_text: BadText = "stop"
    most_characters: int = 20_000_000
    on_long: LongDocument = "stop"


def _blocks(file: SourceFile, stats: ReadStats) -> Iterator[bytes]:
    """The decompressed contents in blocks of 1 MiB; counts `stats.disk_bytes`."""
    before = stats.disk_bytes
    with opened(file.path) as (stream, disk):
        for block in blocks_of(stream, file.path):
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
    others: tuple[PassedOver, ...] = ()

    @classmethod
    def find(
        cls, sources: Sequence[str], options: ReadOptions, held_out: Collection[Path] = ()
    ) -> "TextFiles":
        """The files that sources name, without those `held_out`.

        Raises `UserError` for one that is missing or holds none; it may be that none is left.
        """
        found = resolve_sources(sources, held_out)
        return cls(found.files, options, found.passed_over)

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

    @property
    def passed_over(self) -> list[str]:
        """What lay among the files."""
        return [listed(self.others)] if self.others else []

    def documents(self, stats: ReadStats) -> Iterator[str]:
        """As `read_documents`."""
        return read_documents(self.files, self.options, stats)

    def identity(self) -> list[dict[str, Any]]:
        """Each file's name, bytes and hash."""
        return [_identity(file) for file in self.files]

    def describe(self) -> list[str]:
        """What is read and what is not; what a document is, in how many of the .txt files."""
        setting = self.options.documents
        modes = Counter(
            detect_mode(file) if setting == "auto" else setting for file in self.files if file.kind == "txt"
        )
        how = " (found by looking; --documents sets it)" if setting == "auto" else ""
        return [
            f"reading {counted(len(self.files), 'file')} ({data_size(self.size)})"
            + "".join(f"; passed over: {clause}" for clause in self.passed_over),
            *(
                f"a document is {_MEANING[mode]}, in {counted(number, '.txt file')}{how}"
                for mode, number in modes.items()
            ),
        ]

    def cautions(self) -> list[str]:
        """Where less is read than lies beside it in files of other kinds."""
        unread = sum(other.size for other in self.others if other.reason in (Reason.UNKNOWN, Reason.HIDDEN))
        if unread <= self.size:
            return []
        return [
            f"most of what lies there is passed over: {data_size(unread)} in files that are not read, "
            f"{data_size(self.size)} in {EXTENSIONS} files; convert them (or name those that are hidden) if "
            "they are to be trained on"
        ]

    def shards(self, number: int) -> list["TextFiles"]:
        """By whole files; what was passed over is the first shard's."""
        runs = even_runs(self.files, [file.size for file in self.files], number)
        first, *others = (TextFiles(run, self.options) for run in runs)
        return [replace(first, others=self.others), *others]


def _identity(file: SourceFile) -> dict[str, Any]:
    with readable(file.path):
        content = storage.sha256_of_file(file.path)
    return {"name": printable(file.path.name), "bytes": file.size, "sha256": content}


def read_documents(files: Sequence[SourceFile], options: ReadOptions, stats: ReadStats) -> Iterator[str]:
    """Yield the documents of all files in order, stripped and never empty, while counting into `stats`.

    Raises `UserError` (file, line, remedy) for a file that is unreadable or damaged, for JSON without the
    wanted text and, where `options` say "stop", for text that is not valid UTF-8 and for a document that is
    too long.
    """
    for file in files:
        texts = _jsonl_texts if file.kind == "jsonl" else _txt_texts
        for found in texts(file, options, stats):
            if found.complaint:
                if options.on_bad_text == "stop":
                    raise found.complaint()
                stats.bad_text += 1
                if options.on_bad_text == "skip":
                    continue
            document = found.text.strip()
            if found.cut or len(document) > options.most_characters:
                if options.on_long == "stop":
                    raise _too_long(file, found.line, options)
                stats.long += 1
                if options.on_long == "skip":
                    continue
                document = document[: options.most_characters].rstrip()
            if not document:
                stats.empty += 1
                continue
            stats.documents += 1
            stats.text_bytes += len(document) if document.isascii() else len(document.encode())
            yield document


def _too_long(file: SourceFile, line: int, options: ReadOptions) -> UserError:
    """An error for a document that is longer than it may be."""
    return UserError(
        f"{file.path}:{line}: the document that begins here is longer than {options.most_characters:,} "
        "characters; pass --on-long-document cut|skip or a larger --max-document-chars, or see to --documents"
    )


def _txt_texts(file: SourceFile, options: ReadOptions, stats: ReadStats) -> Iterator[_Found]:
    """The documents of a .txt file."""
    mode = detect_mode(file) if options.documents == "auto" else options.documents
    blocks = _text_blocks(file, stats)
    most = 4 * options.most_characters  # bytes: no character takes more
    if mode == "file":
        documents: Iterable[tuple[int, bytes]] = [(1, _joined(blocks, b"", most))]
    elif mode == "blank-line":
        documents = _paragraphs(split_lines(blocks, most), most)
    else:
        documents = (line for line in enumerate(split_lines(blocks, most), start=1) if line[1].strip())
    for line, document in documents:
        cut = len(document) > most
        yield _Found(line, *_decode(document, file, cut=cut), cut)


def _decode(text: bytes, file: SourceFile, *, cut: bool = False) -> tuple[str, Complaint | None]:
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
    for block in chain(_blocks(file, ReadStats()), [b""]):
        data = rest + block
        try:
            done = codecs.utf_8_decode(data, "strict", not block)[1]
        except UnicodeDecodeError as error:
            at = error.start
            where = f"{file.path}:{line + _line_ends(data[:at])}"
            wrong = f"not UTF-8 (byte 0x{data[at]:02x} at byte position {position + at})"
            return UserError(f"{where}: {wrong}; {_BAD_TEXT}")
        if block and data[:done].endswith(b"\r"):
            done -= 1  # counted together with the '\n' that may follow
        position, line, rest = position + done, line + _line_ends(data[:done]), data[done:]
    return UserError(f"{file.path}: changed while it was read; wait until it is complete, then start again")


def _line_ends(data: bytes) -> int:
    """How many line ends there are, '\r\n' being one."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _jsonl_texts(file: SourceFile, options: ReadOptions, stats: ReadStats) -> Iterator[_Found]:
    """The texts of a .jsonl file."""
    most = _ESCAPED * options.most_characters + _OTHER_FIELDS
    for number, raw in enumerate(split_lines(_text_blocks(file, stats), most), start=1):
        if not raw.strip():
            continue
        where = f"{file.path}:{number}"
        if len(raw) > most:
            if options.on_long == "cut":
                raise UserError(
                    f"{where}: a line of JSON that is longer than {most:,} bytes cannot be cut; pass "
                    "--on-long-document skip, or a larger --max-document-chars"
                )
            yield _Found(number, "", None, cut=True)
            continue
        line, complaint = _decode(raw, file)
        if complaint and options.on_bad_text != "replace":
            yield _Found(number, "", complaint)  # not parsed: it may not even be JSON any more
            continue
        text = _text_of(parsed_object(line, where, _EXAMPLE), options.text_field, where)
        if not text.isascii() and HALF_CHARACTER.search(text):
            complaint = complaint or partial(_lone_surrogate, where)
            text = HALF_CHARACTER.sub("\ufffd", text)
        yield _Found(number, text, complaint)


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

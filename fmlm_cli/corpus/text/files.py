"""From SOURCE arguments to a stream of documents, one document in memory at a time.

A source is a .txt or .jsonl file (also .gz), a folder of such files, or a glob. Whatever is wrong with one
is a `UserError` that names the file, and the line where there is one.
"""

import codecs
import contextlib
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import IO, Any, Literal

from fmlm_cli.errors import UserError, nearest

DocumentMode = Literal["auto", "blank-line", "line", "file"]
BadText = Literal["stop", "skip", "replace"]

EXTENSIONS = ".txt, .jsonl, .txt.gz, .jsonl.gz"
_NAME = re.compile(r"\.(txt|jsonl)(\.gz)?$", re.IGNORECASE)
_GLOB = re.compile(r"[*?[]")
_BLOCK = 1 << 20  # bytes read at once: large enough to be fast, small beside any model
_BLANK_LINE = re.compile(rb"\n[ \t\v\f]*\n")
_SURROGATE = re.compile("[\ud800-\udfff]")  # in a Python string each of them is unpaired
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # the first also of UTF-32-LE
_WIDE = "it seems to be UTF-16 or UTF-32: convert the file first (iconv -f UTF-16 -t UTF-8)"
_NARROW = "pass --on-bad-text skip|replace, or convert the file (for example iconv -f LATIN1 -t UTF-8)"
_SHOWN_FIELDS = 20

Complaint = Callable[[], UserError]  # made only when wanted: finding a bad byte reads the file again
_MaybeBad = tuple[str, Complaint | None]


@dataclass(frozen=True)
class SourceFile:
    """One file to read; `size` is in bytes on disk, compressed as it lies there."""

    path: Path
    kind: Literal["txt", "jsonl"]
    compressed: bool
    size: int


@dataclass(frozen=True)
class ReadOptions:
    """How to read: `documents` is for .txt files, `text_field` for .jsonl, `on_bad_text` for both.

    `text_field` may name a nested field with dots ("meta.text").
    """

    documents: DocumentMode = "auto"
    text_field: str = "text"
    on_bad_text: BadText = "stop"


@dataclass
class ReadStats:
    """Counters, filled while reading.

    `documents` were yielded, `empty` were left out for having no text, `bad_text` were skipped or repaired;
    `text_bytes` are the UTF-8 bytes yielded, `disk_bytes` the bytes of files on disk taken in so far.
    """

    documents: int = 0
    empty: int = 0
    bad_text: int = 0
    text_bytes: int = 0
    disk_bytes: int = 0


def resolve_sources(sources: Sequence[str]) -> list[SourceFile]:
    """The files that the sources name, in order, each once however often it is named.

    Folders (searched to the bottom, links to folders not followed) and globs give their files sorted, without
    hidden ones and other extensions. Raises `UserError` for a source that cannot be read or gives no file.
    """
    found: dict[str, SourceFile] = {}
    for source in sources:
        try:
            for file in _resolve(source):
                found.setdefault(os.path.realpath(file.path), file)
        except OSError as error:
            raise _unreadable(error.filename or source, error) from error
    return list(found.values())


def _resolve(source: str) -> list[SourceFile]:
    """The files of one source."""
    if not source:
        raise UserError("a source is an empty name (an unset shell variable?): give a file, folder or glob")
    path = Path(source)
    if path.is_dir():
        files, none = _in_folder(path), "the folder holds no"
    elif path.exists():  # also where its name has glob characters
        return [_named_file(path)]
    elif _GLOB.search(source):
        files, none = _in_glob(source), "the glob matches no"
    else:
        raise UserError(f"{source}: no such file or folder, seen from {Path.cwd()}; check the name")
    if not files:
        raise UserError(f"{source}: {none} {EXTENSIONS} files; name another source")
    return files


def _named_file(path: Path) -> SourceFile:
    """A file that was named itself, so that nothing about it may be passed over in silence."""
    if not path.is_file():
        raise UserError(f"{path}: not a regular file (a pipe or a device); save its contents to a file first")
    if not _NAME.search(path.name):
        raise UserError(f"{path}: unknown extension; sources are {EXTENSIONS} files, so rename or convert it")
    file = _source_file(path)
    if file.size == 0:
        raise UserError(f"{path}: the file is empty; leave it out or name another")
    return file


def _source_file(path: Path) -> SourceFile:
    """Describe a file with a known extension; one without read permission is a `UserError`."""
    match = _NAME.search(path.name)
    assert match, path
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read it; change that (chmod u+r) or leave it out")
    kind: Literal["txt", "jsonl"] = "txt" if match[1].lower() == "txt" else "jsonl"
    return SourceFile(path, kind, compressed=match[2] is not None, size=path.stat().st_size)


def _in_folder(folder: Path) -> list[SourceFile]:
    """All visible files with a known extension under a folder, sorted."""
    paths: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=_reraise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(root, name) for name in names if not name.startswith(".")]
    return [_source_file(path) for path in sorted(paths) if _NAME.search(path.name) and path.is_file()]


def _reraise(error: OSError) -> None:
    """`os.walk` would pass over folders that it cannot list; missing data must not go unnoticed."""
    raise error


def _in_glob(source: str) -> list[SourceFile]:
    """What a shell would expand the glob to, less other extensions; folders stand for their files."""
    pattern = Path(source)
    allowed = [part for part in pattern.parts if part.startswith(".")]
    try:
        # `Path.glob`, not `glob.glob`: it does not run in circles through links
        matches = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError as error:
        raise UserError(f"{source}: not a valid glob ({error}); write ** only between slashes") from None
    files: list[SourceFile] = []
    for path in matches:
        if _is_hidden(path, allowed):
            continue
        if path.is_dir():
            files += _in_folder(path)
        elif _NAME.search(path.name) and path.is_file():
            files.append(_source_file(path))
    return files


def _is_hidden(path: Path, allowed: Iterable[str]) -> bool:
    """Whether part of a path starts with a dot that the glob does not write out itself."""
    dotted = [part for part in path.parts if part.startswith(".")]
    return any(not any(fnmatchcase(part, pattern) for pattern in allowed) for part in dotted)


def _unreadable(path: object, error: OSError) -> UserError:
    """An error for a file or folder that the system will not let us read."""
    return UserError(
        f"{path}: cannot read it ({error.strerror or error}); check its permissions and the disk"
    )


@contextlib.contextmanager
def _clear_read_errors(path: Path) -> Iterator[None]:
    """Turn what reading a file may raise into one clear line."""
    try:
        yield
    except EOFError:
        raise UserError(f"{path}: the gzip file is cut short; fetch it again, or leave it out") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        remedy = "test it with gzip -t; if it is plain text, take .gz off its name"
        raise UserError(f"{path}: not a gzip file, or damaged ({error}); {remedy}") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _blocks(file: SourceFile, stats: ReadStats) -> Iterator[bytes]:
    """The decompressed contents in blocks of 1 MiB; counts `stats.disk_bytes`."""
    before = stats.disk_bytes
    with _clear_read_errors(file.path), file.path.open("rb") as disk:
        stream: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=disk) if file.compressed else disk
        with stream:
            while block := stream.read(_BLOCK):
                stats.disk_bytes = before + disk.tell()
                yield block
            stats.disk_bytes = before + disk.tell()  # now with the end of a .gz, which holds no text


def _text_blocks(file: SourceFile, stats: ReadStats) -> Iterator[bytes]:
    """The contents without byte-order mark and with every line end as a line feed; blocks may be empty."""
    held = b""  # a carriage return at the end of a block, perhaps half of '\r\n'; the file's last one ends nothing
    blocks = _blocks(file, stats)
    for block in chain([next(blocks, b"").removeprefix(codecs.BOM_UTF8)], blocks):
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
        text = _text_of(_parse(line, where), options.text_field, where)
        if not text.isascii() and _SURROGATE.search(text):
            complaint = complaint or partial(_lone_surrogate, where)
            text = _SURROGATE.sub("\ufffd", text)
        yield text, complaint


def _lone_surrogate(where: str) -> UserError:
    """An error for half a character, which JSON can write down but UTF-8 cannot."""
    remedy = "pass --on-bad-text skip|replace, or mend the line"
    return UserError(f"{where}: the text has half a character (\\ud800 to \\udfff, alone); {remedy}")


def _parse(line: str, where: str) -> dict[str, Any]:
    """The object on one line of JSON."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, [[[[ without end
        reason = str(error).replace(": line 1 ", ", ")
        raise UserError(f"{where}: not valid JSON ({reason}); each line must be one JSON object") from None
    if not isinstance(value, dict):
        raise UserError(f'{where}: {_kind(value)}, not an object; write each line as {{"text": "..."}}')
    return value


def _text_of(value: dict[str, Any], field: str, where: str) -> str:
    """The text in a field; null is an empty text."""
    found: Any = value
    for name in [field] if field in value else field.split("."):
        if not isinstance(found, dict) or name not in found:
            raise _no_field(value, field, where)
        found = found[name]
    if found is None:
        return ""
    if not isinstance(found, str):
        raise UserError(
            f"{where}: field '{field}' is {_kind(found)}, not a string; choose another --text-field"
        )
    return found


def _no_field(value: dict[str, Any], field: str, where: str) -> UserError:
    """An error for a missing field that tells which ones there are."""
    names = list(islice(_fields(value), _SHOWN_FIELDS))
    close = nearest(field, names)
    hint = f"did you mean '{close}'? " if close else ""
    there = ", ".join(map(repr, names)) or "none"
    return UserError(f"{where}: no field '{field}': {hint}fields are {there}; choose one with --text-field")


def _fields(value: dict[str, Any], prefix: str = "", depth: int = 4) -> Iterator[str]:
    """The names by which `text_field` can reach what is in an object, nested ones with dots."""
    for name, inner in value.items():
        if isinstance(inner, dict) and inner and depth > 1:
            yield from _fields(inner, f"{prefix}{name}.", depth - 1)
        else:
            yield prefix + name


def _kind(value: object) -> str:
    """What a JSON value is, in words."""
    words = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    return "null" if value is None else words.get(type(value), "an object")

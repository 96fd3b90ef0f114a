"""From SOURCE arguments to files: a source is a file, a folder of files or a glob."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from fmlm_cli.corpus.text.passed_over import PassedOver, Reason, listed
from fmlm_cli.errors import UserError
from fmlm_cli.readers.bytes import unreadable

EXTENSIONS = ".txt, .jsonl, .txt.gz, .jsonl.gz"
_NAME = re.compile(r"\.(txt|jsonl)(\.gz)?$", re.IGNORECASE)
_GLOB = re.compile(r"[*?[]")


@dataclass(frozen=True)
class SourceFile:
    """One file to read; `size` is in bytes on disk, compressed as it may lie there."""

    path: Path
    kind: Literal["txt", "jsonl"]
    size: int


_Entry = SourceFile | PassedOver


@dataclass(frozen=True)
class FoundFiles:
    """The files to read, in order, and what was found beside them."""

    files: tuple[SourceFile, ...]
    passed_over: tuple[PassedOver, ...] = ()


def resolve_sources(sources: Sequence[str], held_out: Collection[Path] = ()) -> FoundFiles:
    """The files that the sources name, in order, each once however often it is named.

    Folders (searched to the bottom, links to folders not followed) and globs give their files sorted, without
    hidden ones, empty ones and other extensions. Of a file and the same compressed the former is read.
    `held_out`: files that other text is read from, which are none of these, compressed or not.

    Raises `UserError` for a source that cannot be read or gives no file; it may be that none is left.
    """
    files: dict[object, SourceFile] = {}
    others: dict[str, PassedOver] = {}
    for source in sources:
        try:
            found = _resolve(source)
            for file in found.files:
                first = files.setdefault(_identity(file.path), file)
                if _name(first.path) != _name(file.path):
                    others[_name(file.path)] = PassedOver(file.path, Reason.SAME_FILE, file.size)
            for other in found.passed_over:
                others.setdefault(_name(other.path), other)
        except OSError as error:
            raise unreadable(error.filename or source, error) from error
    left = list(_left_out(list(files.values()), held_out))
    gone = {other.path for other in left}
    kept = tuple(file for file in files.values() if file.path not in gone)
    return FoundFiles(kept, (*others.values(), *left))


def _name(path: Path) -> str:
    """A file's name with the folder that it lies in, however that was reached."""
    return str(path.parent.resolve() / path.name)


def _identity(path: Path) -> object:
    """What the names of one and the same file have in common, links and hard links among them."""
    status = _status(path)
    return (status.st_dev, status.st_ino) if status else path


def _status(path: Path) -> os.stat_result | None:
    """What the system says of a file; None of a link that leads nowhere, or in a circle."""
    try:
        return path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise


def _uncompressed(path: Path) -> str:
    """The name that a file has, or had before it was compressed."""
    return _name(path.with_name(path.name[:-3]) if path.suffix.lower() == ".gz" else path)


def _left_out(files: Sequence[SourceFile], held_out: Collection[Path]) -> Iterator[PassedOver]:
    """The files that are read as others, held out or not compressed."""
    held = {_identity(path) for path in held_out} | {_uncompressed(path) for path in held_out}
    plain = {_uncompressed(file.path) for file in files if file.path.suffix.lower() != ".gz"}
    for file in files:
        name = _uncompressed(file.path)
        if not held.isdisjoint((_identity(file.path), name)):
            yield PassedOver(file.path, Reason.HELD_OUT, file.size)
        elif file.path.suffix.lower() == ".gz" and name in plain:
            yield PassedOver(file.path, Reason.COMPRESSED, file.size)


def _resolve(source: str) -> FoundFiles:
    """The files of one source."""
    if not source:
        raise UserError("a source is an empty name (an unset shell variable?): give a file, folder or glob")
    path = Path(source)
    if path.is_dir():
        entries, none = _in_folder(path), "the folder holds no"
    elif path.exists():  # also where its name has glob characters
        return FoundFiles((_named_file(path),))
    elif _GLOB.search(source):
        entries, none = _in_glob(source), "the glob matches no"
    else:
        raise UserError(f"{source}: no such file or folder, seen from {Path.cwd()}; check the name")
    files = tuple(entry for entry in entries if isinstance(entry, SourceFile))
    others = tuple(entry for entry in entries if isinstance(entry, PassedOver))
    if not files:
        beside = f", but {listed(others)}" if others else ""
        raise UserError(f"{source}: {none} {EXTENSIONS} files{beside}; name another source")
    return FoundFiles(files, others)


def _named_file(path: Path) -> SourceFile:
    """A file that was named itself, so that nothing about it may be passed over in silence."""
    entry = _entry(path)
    if isinstance(entry, SourceFile):
        return entry
    if not path.is_file():
        raise UserError(f"{path}: not a regular file (a pipe or a device); save its contents to a file first")
    if not _NAME.search(path.name):
        raise UserError(f"{path}: unknown extension; sources are {EXTENSIONS} files, so rename or convert it")
    raise UserError(f"{path}: the file is empty; leave it out or name another")


def _entry(path: Path) -> _Entry:
    """What becomes of something that was found; a file to read that gives no permission is a `UserError`."""
    status = _status(path)
    if status is None:
        return PassedOver(path, Reason.BROKEN_LINK)
    if stat.S_ISDIR(status.st_mode):
        return PassedOver(path, Reason.LINKED_FOLDER)
    if not stat.S_ISREG(status.st_mode):
        return PassedOver(path, Reason.NO_FILE)
    match = _NAME.search(path.name)
    if not match:
        return PassedOver(path, Reason.UNKNOWN, status.st_size)
    if not status.st_size:
        return PassedOver(path, Reason.EMPTY)
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read it; change that (chmod u+r) or leave it out")
    kind: Literal["txt", "jsonl"] = "txt" if match[1].lower() == "txt" else "jsonl"
    return SourceFile(path, kind, status.st_size)


def _in_folder(folder: Path) -> list[_Entry]:
    """What becomes of all that lies under a folder, sorted; of what is hidden nothing, however much it is."""
    paths: list[Path] = []
    hidden: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=_reraise):
        hidden += [Path(root, name) for name in (*folders, *names) if name.startswith(".")]
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(root, name) for name in names if not name.startswith(".")]
        paths += [link for name in folders if (link := Path(root, name)).is_symlink()]
    passed_over = (PassedOver(path, Reason.HIDDEN, _bytes_of_text(path)) for path in sorted(hidden))
    return [*map(_entry, sorted(paths)), *passed_over]


def _bytes_of_text(hidden: Path) -> int:
    """Size of a hidden file, or of the files in a hidden folder, as far as they are text by their names."""
    files = [hidden]
    if hidden.is_dir():
        below = () if hidden.is_symlink() else os.walk(hidden)
        files = [Path(root, name) for root, _, names in below for name in names]
    size = 0
    for file in files:
        if _NAME.search(file.name):
            with contextlib.suppress(OSError):  # it has just gone, or is not for us to see
                size += file.lstat().st_size
    return size


def _reraise(error: OSError) -> None:
    """`os.walk` would pass over folders that it cannot list; missing data must not go unnoticed."""
    raise error


def _in_glob(source: str) -> list[_Entry]:
    """What becomes of what a shell would expand the glob to; folders stand for what is in them."""
    pattern = Path(source)
    entries: list[_Entry] = []
    for path in _matches(pattern):
        entries += _in_folder(path) if path.is_dir() else [_entry(path)]
    for folders in pattern.parents:
        for folder in _matches(folders) if _GLOB.search(str(folders)) else ():
            if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):  # `glob` passed over it
                raise UserError(f"{folder}: no permission to list it; change that (chmod u+rx)")
    return entries


def _matches(pattern: Path) -> list[Path]:
    """The paths that match a glob, sorted, without hidden ones."""
    allowed = [part for part in pattern.parts if part.startswith(".")]
    try:
        # `Path.glob`, not `glob.glob`: it does not run in circles through links
        matches = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError as error:
        raise UserError(f"{pattern}: not a valid glob ({error}); write ** only between slashes") from None
    return [path for path in matches if not _is_hidden(path, allowed)]


def _is_hidden(path: Path, allowed: Iterable[str]) -> bool:
    """Whether part of a path starts with a dot that the glob does not write out itself."""
    dotted = [part for part in path.parts if part.startswith(".")]
    return any(not any(fnmatchcase(part, pattern) for pattern in allowed) for part in dotted)

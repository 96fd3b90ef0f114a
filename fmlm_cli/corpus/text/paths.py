"""From SOURCE arguments to files: a source is a file, a folder of files or a glob."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

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


def resolve_sources(sources: Sequence[str]) -> list[SourceFile]:
    """The files that the sources name, in order, each once however often it is named.

    Folders (searched to the bottom, links to folders not followed) and globs give their files sorted, without
    hidden ones and other extensions. Raises `UserError` for a source that cannot be read or gives no file.
    """
    by_real_path: dict[str, SourceFile] = {}
    for source in sources:
        try:
            for file in _resolve(source):
                by_real_path.setdefault(os.path.realpath(file.path), file)
        except OSError as error:
            raise unreadable(error.filename or source, error) from error
    return list(by_real_path.values())


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
    return SourceFile(path, kind, path.stat().st_size)


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

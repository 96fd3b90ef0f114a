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

from fmlm_cli import storage
from fmlm_cli.corpus.text.documents import Kind
from fmlm_cli.corpus.text.files.folders import Folder
from fmlm_cli.corpus.text.files.passed_over import PassedOver, Reason, listed
from fmlm_cli.corpus.text.files.saved import is_saved, saved_set
from fmlm_cli.errors import UserError
from fmlm_cli.readers.bytes import BOM, opened, unreadable
from fmlm_cli.readers.compression import ENDINGS, split_name

_KINDS: dict[str, Kind] = {
    ".txt": "txt",
    ".md": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_COLUMNAR = ("parquet", "arrow")  # these compress what is in them
_PLAIN = [ending for ending, kind in _KINDS.items() if kind not in _COLUMNAR]
EXTENSIONS = f"{', '.join(_PLAIN)} (each also {ENDINGS}), .parquet, .arrow, .feather"
_GLOB = re.compile(r"[*?[]")
_HEAD = 1 << 12
STDIN = "-"


@dataclass(frozen=True)
class SourceFile:
    """One file to read; `size` is in bytes on disk, compressed as it may lie there."""

    path: Path
    kind: Kind
    size: int


def kind_of(name: str) -> Kind | None:
    """What a file is by its name; None where that says nothing that is read."""
    bare, codec = split_name(name)
    kind = _KINDS.get(Path(bare).suffix.lower())
    return None if codec and kind in _COLUMNAR else kind


_Entry = SourceFile | PassedOver


@dataclass(frozen=True)
class FoundFiles:
    """The files to read, in order, and what was found beside them."""

    files: tuple[SourceFile, ...]
    passed_over: tuple[PassedOver, ...] = ()


def resolve_sources(
    sources: Sequence[str],
    held_out: Collection[Path] = (),
    *,
    form: Kind | None = None,
    split: str | None = None,
) -> FoundFiles:
    """The files that the sources name, in order, each once however often it is named.

    Folders (searched to the bottom) and globs give their files sorted, without hidden ones, empty ones and
    other extensions; a folder of `datasets.save_to_disk` those of the `split`. Of a file and the same
    compressed the former is read. `held_out`: files that other text is read from, which are none of these,
    compressed or not. `form`: what a file is that was named and whose name does not say it.

    Raises `UserError` for a source that cannot be read or gives no file; it may be that none is left.
    """
    files: dict[object, SourceFile] = {}
    others: dict[str, PassedOver] = {}
    for source in sources:
        try:
            found = _resolve(source, form, split)
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
    return _name(path.with_name(split_name(path.name)[0]))


def _is_compressed(file: SourceFile) -> bool:
    return split_name(file.path.name)[1] is not None


def _left_out(files: Sequence[SourceFile], held_out: Collection[Path]) -> Iterator[PassedOver]:
    """The files that are read as others, held out or not compressed, or compressed in another way."""
    held = {_identity(path) for path in held_out} | {_uncompressed(path) for path in held_out}
    first: dict[str, SourceFile] = {}
    for file in sorted(files, key=_is_compressed):  # a stable sort
        first.setdefault(_uncompressed(file.path), file)
    for file in files:
        name = _uncompressed(file.path)
        if not held.isdisjoint((_identity(file.path), name)):
            yield PassedOver(file.path, Reason.HELD_OUT, file.size)
        elif first[name] is not file:
            yield PassedOver(file.path, Reason.COMPRESSED, file.size)


def _resolve(source: str, form: Kind | None, split: str | None) -> FoundFiles:
    """The files of one source."""
    if not source:
        raise UserError("a source is an empty name (an unset shell variable?): give a file, folder or glob")
    path = Path(source)
    if source == STDIN:
        raise UserError(
            "standard input can be read only once, which is not enough here: save it to a file first"
        )
    if path.is_dir():
        if made := storage.kind_of(path):
            raise UserError(f"{source} is a {made} that fmlm made, not text: name the text itself")
        entries, none = _in_folder(path, split), "the folder holds no"
    elif path.exists():  # also where its name has glob characters
        return FoundFiles((_named_file(path, form),))
    elif _GLOB.search(source):
        entries, none = _in_glob(source, split), "the glob matches no"
    else:
        raise UserError(_not_there(source))
    files = tuple(entry for entry in entries if isinstance(entry, SourceFile))
    others = tuple(entry for entry in entries if isinstance(entry, PassedOver))
    if not files:
        beside = f", but {listed(others)}" if others else ""
        raise UserError(f"{source}: {none} {EXTENSIONS} files{beside}; name another source")
    return FoundFiles(files, others)


def _not_there(source: str) -> str:
    if "://" in source:
        return f"{source}: an address: fetch the file first, or write hub:OWNER/NAME"
    return f"{source}: no such file or folder, seen from {Path.cwd()}; check the name"


def _named_file(path: Path, form: Kind | None) -> SourceFile:
    """A file that was named itself, so that nothing about it may be passed over in silence."""
    entry = _entry(path, form)
    if isinstance(entry, SourceFile):
        return entry
    if not path.is_file():
        raise UserError(f"{path}: not a regular file (a pipe or a device); save its contents to a file first")
    if entry.reason is Reason.UNKNOWN:
        raise UserError(
            f"{path}: unknown extension; sources are {EXTENSIONS} files: rename or convert it, or say with "
            "--format what it is"
        )
    raise UserError(f"{path}: the file is empty; leave it out or name another")


def _entry(path: Path, form: Kind | None = None) -> _Entry:
    """What becomes of something that was found; a file to read that gives no permission is a `UserError`."""
    status = _status(path)
    if status is None:
        return PassedOver(path, Reason.BROKEN_LINK)
    if stat.S_ISDIR(status.st_mode):
        return PassedOver(path, Reason.LINKED_FOLDER)
    if not stat.S_ISREG(status.st_mode):
        return PassedOver(path, Reason.NO_FILE)
    kind = kind_of(path.name) or form
    if kind is None:
        return PassedOver(path, Reason.UNKNOWN, status.st_size)
    if not status.st_size:
        return PassedOver(path, Reason.EMPTY)
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read it; change that (chmod u+r) or leave it out")
    return SourceFile(path, kind, status.st_size)


def _met(path: Path) -> _Entry:
    """What becomes of something that was not named itself: a .json may be of anything, a list of documents
    or, say, settings.
    """
    entry = _entry(path)
    if isinstance(entry, SourceFile) and entry.kind == "json" and not _is_array(path):
        return PassedOver(path, Reason.NO_ARRAY, entry.size)
    return entry


def _is_array(path: Path) -> bool:
    with opened(path) as (stream, _):
        return stream.read(_HEAD).removeprefix(BOM).lstrip().startswith(b"[")


def _in_folder(path: Path, split: str | None) -> list[_Entry]:
    """What becomes of all that lies under a folder, sorted; of what is hidden nothing, however much it is."""
    folder = Folder.walk(path, is_leaf=lambda folder: _is_made(folder) or is_saved(folder))
    entries: list[tuple[Path, list[_Entry]]] = [(file, [_met(file)]) for file in folder.files]
    entries += [
        (leaf, [PassedOver(leaf, Reason.MADE)] if _is_made(leaf) else _in_saved(leaf, split))
        for leaf in folder.leaves
    ]
    hidden = [PassedOver(path, Reason.HIDDEN, _bytes_of_text(path)) for path in folder.hidden]
    return [entry for _, found in sorted(entries, key=lambda pair: pair[0]) for entry in found] + hidden


def _is_made(folder: Path) -> bool:
    """Whether a command of fmlm's made a folder, as of the store that lies beside its text."""
    return (folder / storage.MARKER).is_file()


def _in_saved(folder: Path, split: str | None) -> list[_Entry]:
    """The files of a saved data set, in its own order."""
    found = saved_set(folder, split)
    sizes = ((path, path.stat().st_size) for path in found.files)
    files = [SourceFile(path, "arrow", size) for path, size in sizes]
    return [*files, *(PassedOver(path, Reason.OTHER_SPLIT) for path in found.other_splits)]


def _bytes_of_text(hidden: Path) -> int:
    """Size of a hidden file, or of the files in a hidden folder, as far as they are text by their names."""
    files = [hidden]
    if hidden.is_dir():
        below = () if hidden.is_symlink() else os.walk(hidden)
        files = [Path(root, name) for root, _, names in below for name in names]
    size = 0
    for file in files:
        if kind_of(file.name):
            with contextlib.suppress(OSError):  # it has just gone, or is not for us to see
                size += file.lstat().st_size
    return size


def _in_glob(source: str, split: str | None) -> list[_Entry]:
    """What becomes of what a shell would expand the glob to; folders stand for what is in them."""
    pattern = Path(source)
    entries: list[_Entry] = []
    base = next(folder for folder in pattern.parents if not _GLOB.search(str(folder))).resolve()
    above = {_identity(folder) for folder in (base, *base.parents)}
    for path in _matches(pattern):
        looked_into = path.is_dir() and not (path.is_symlink() and _identity(path) in above)
        entries += _in_folder(path, split) if looked_into else [_met(path)]
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

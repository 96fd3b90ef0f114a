"""Whose a folder is, by a marker that nobody writes by chance, and who may write into it, by a lock on that.

.fmlm.json is the first file in every folder that a command makes, and says what kind of folder it is. Nothing
without it is ever cleared or replaced. Whoever writes into the folder holds a lock on it, which is given back
however the process ends.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from fmlm_cli.errors import UserError
from fmlm_cli.storage.files import clear_disk_errors
from fmlm_cli.storage.folders import (
    beside,
    is_left_over,
    missing_folders,
    put_back,
    put_in_place,
    remove,
    remove_empty,
    sweep,
)
from fmlm_cli.storage.leases import Holder, Lease, is_lease
from fmlm_cli.storage.locks import Lock, Tell, is_held, locked

MARKER = ".fmlm.json"
LOCK = ".lock"  # in a part of a marked folder
VERSION = 1  # of what a marker means

_SHOWN = 3  # foreign files that are named


@dataclass(frozen=True)
class Kind:
    """What a command makes of a folder.

    `name`: as the marker has it. `made_by`: the command. `holds`: patterns of the names that it puts there; a
    folder that holds anything else is not replaced.
    """

    name: str
    made_by: str
    holds: tuple[str, ...]


class OwnedFolder:
    """A folder that this process may write into; `lock`: the one on its marker."""

    def __init__(self, root: Path, kind: Kind, lock: Lock) -> None:
        self.root, self.kind, self._lock = root, kind, lock

    @property
    def is_empty(self) -> bool:
        """Whether nothing but its marker is in it."""
        return not _whole(_contents(self.root))

    def clear(self, *, but: str = "") -> None:
        """Remove what it holds, `but` what is called so, and not itself: it may be a link, a mount or the
        working folder.

        The marker stays, so an interrupted call can be repeated. Raises `UserError`, and removes nothing,
        where it holds what fmlm did not make.
        """
        _check_nothing_foreign(self.root, self.kind)
        _remove_contents(self.root, but)

    def share(self) -> None:
        """From now on let others in that share the work."""
        self._lock.take(self.root, shared=True)

    def has_moved(self, target: Path) -> None:
        """It lies there now, with its marker."""
        self._lock.lease.moved_to(target)

    def leave(self) -> None:
        """Take back the marker of a folder that holds nothing else, and in which nobody else is at work."""
        with contextlib.suppress(OSError, UserError):
            if self.is_empty and os.path.samestat(
                os.fstat(self._lock.descriptor), (self.root / MARKER).stat()
            ):
                self._lock.take(self.root, shared=False)
                (self.root / MARKER).unlink()


@contextlib.contextmanager
def owned_folder(
    root: Path,
    kind: Kind,
    *,
    overwrite: bool = False,
    resume: bool = False,
    shared: bool = False,
    shown: Path | None = None,
    tell: Tell | None = None,
) -> Iterator[OwnedFolder]:
    """Make `root` if need be, mark it, and keep other processes of fmlm's out of it while inside.

    With `shared`, only those that do not share. A folder in which nothing is left in the end goes again.
    `shown`: what to call one that another process is at work in: that is a `UserError`, as is what
    `check_claim` refuses, and nothing is touched. `tell`: see `locked`.
    """
    check_claim(root, kind, overwrite=overwrite, resume=resume)
    missing = missing_folders(root)
    try:
        with locked(root / MARKER, shown or root, shared=shared, tell=tell) as lock:
            check_claim(root, kind, overwrite=overwrite, resume=resume)  # another one may just have finished
            folder = OwnedFolder(root, kind, lock)
            try:
                with clear_disk_errors(root):
                    if kind_of(root) and not shared:
                        sweep(root)
                    _write_marker(lock.descriptor, kind)
                yield folder
            finally:
                folder.leave()
    finally:
        remove_empty(missing)


@contextlib.contextmanager
def replaced_folder(
    target: Path, kind: Kind, *, overwrite: bool = False, resume: bool = False
) -> Iterator[Path]:
    """As `owned_folder`, but fill a folder beside `target` that takes its name only if the block succeeds.

    What is there stays as it is until then.
    """
    check_claim(target, kind, overwrite=overwrite, resume=resume)
    clear_left_overs(target)
    shown, target = target, target.resolve()  # a link stays, and its target is replaced; "." has a name
    place = beside(target, "partial")
    try:
        with owned_folder(place, kind, resume=True, shown=shown) as building, clear_disk_errors(shown):
            try:
                with work_in(target, shown) if kind_of(target) else contextlib.nullcontext():
                    _check_replaceable(target, kind, overwrite=overwrite, resume=resume)
                    yield place
                    _check_replaceable(target, kind, overwrite=overwrite, resume=resume)
                    put_in_place(place, target)
                    building.has_moved(target)
            except BaseException:
                _remove_contents(building.root)
                raise
    finally:
        remove_empty([place])


@contextlib.contextmanager
def unfinished_folder(target: Path, kind: Kind, tell: Tell | None = None) -> Iterator[OwnedFolder]:
    """As `owned_folder`, but beside `target`, for work that whoever comes next goes on with.

    What is in it stays, whatever ends the block; where that is nothing, the folder goes. `tell`: as `locked`.
    """
    place = unfinished(target)
    try:
        owned = owned_folder(place, kind, resume=True, shown=target, tell=tell)
        with owned as folder, clear_disk_errors(target):
            yield folder
    finally:
        remove_empty([place])


def unfinished(target: Path) -> Path:
    """Where the unfinished work on a folder lies, if there is any."""
    return beside(target.resolve(), "unfinished")  # a link stays, and its target is made; "." has a name


def put_forward(folder: OwnedFolder, target: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Give a folder that lies beside `target`, and is complete, its name; what is there is replaced."""
    shown, target = target, target.resolve()
    with work_in(target, shown) if kind_of(target) else contextlib.nullcontext():
        _check_replaceable(target, folder.kind, overwrite=overwrite, resume=resume)
        put_in_place(folder.root, target)
        folder.has_moved(target)


def _check_replaceable(target: Path, kind: Kind, *, overwrite: bool, resume: bool) -> None:
    check_claim(target, kind, overwrite=overwrite, resume=resume)
    _check_nothing_foreign(target, kind)


def clear_left_overs(target: Path) -> None:
    """Remove what a killed process has left beside a folder that it was making, and undo a replacement.

    Raises `InUseError` where a process is at it.
    """
    shown, target = target, target.resolve()
    partial, replaced = beside(target, "partial"), beside(target, "replaced")
    with clear_disk_errors(target):
        if kind_of(replaced):
            put_back(replaced)
            remove(replaced)
        if kind_of(partial):
            with locked(partial / MARKER, shown, shared=False):
                _remove_contents(partial)
                (partial / MARKER).unlink()
            remove_empty([partial])


@contextlib.contextmanager
def work_in(folder: Path, shown: Path | None = None) -> Iterator[None]:
    """Keep other processes of fmlm's out of a folder that exists; `shown`: what to call it."""
    with locked(folder / MARKER if kind_of(folder) else folder, shown or folder, shared=False):
        sweep(folder)
        yield


def worker_in(folder: Path) -> Holder | None:
    """Who is at work in a folder that a command made, by what is written there; nothing is touched."""
    return Lease(folder / MARKER).holder(leaving_no_trace=True)


def in_use(part: Path) -> bool:
    """Whether a process is the `sole_owner` of a part of an owned folder, or of all of it."""
    return is_held(part / LOCK)


@contextlib.contextmanager
def sole_owner(part: Path) -> Iterator[None]:
    """Keep other processes of fmlm's out of a part of an owned folder, which is made if need be."""
    lock = part / LOCK
    with locked(lock, part, shared=False):
        try:
            sweep(part)
            yield
        finally:
            lock.unlink(missing_ok=True)


def kind_of(folder: Path) -> str | None:
    """The name of the kind that a folder is marked as; None where no command has made anything of it."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        kind, version = str(marker["kind"]), int(marker["version"])
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if version > VERSION:
        raise UserError(f"{folder} was made by a newer fmlm: update fmlm, or choose another folder")
    return kind


def check_claim(root: Path, kind: Kind, *, overwrite: bool, resume: bool) -> None:
    """Check that a command may make a folder of its kind of `root`; nothing is touched.

    Raises `UserError` for a file in the way, for a folder that fmlm has not made or another command has, and
    for one with contents that was neither to be resumed nor to be overwritten.
    """
    if overwrite and resume:
        raise UserError("--resume and --overwrite exclude each other: keep one")
    existing = next(path for path in (root, *root.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        what = "a file, not a folder" if existing.exists() else "a link to nothing"
        raise UserError(f"{existing} is {what}: choose another --out")
    contents = _contents(root) if root.is_dir() else []
    found = kind_of(root)
    if found is None and contents:
        raise UserError(
            f"{root} is not empty, and fmlm did not make it (it has no {MARKER}): choose another --out, or "
            "remove it yourself"
        )
    contents = _whole(contents)
    if found != kind.name and contents:
        raise UserError(
            f"{root} is a {found}, not a {kind.name}: choose another --out, or remove it yourself"
        )
    if overwrite:
        _check_nothing_foreign(root, kind)
    elif contents and not resume:
        raise UserError(
            f"{root} is not empty: pass --resume to keep what is finished, --overwrite to replace it, or "
            "choose another --out"
        )


def check_not_within(root: Path) -> None:
    """Refuse to make a folder inside of one that a command has made, which could not be replaced then.

    One that a command has made already may be gone on with wherever it lies.
    """
    if kind_of(root) is not None:
        return
    for folder in root.resolve().parents:
        if kind := kind_of(folder):
            raise UserError(f"{root} lies inside {folder}, a {kind} of fmlm's: choose another --out")


def check_outside(folder: Path, needed: Mapping[Path, str]) -> None:
    """Refuse to replace a folder that holds what its new content is made of; `needed`: what each path is."""
    for path, kind in needed.items():
        if path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"the {kind} {path} lies inside {folder}: choose another --out")


def _check_nothing_foreign(root: Path, kind: Kind) -> None:
    """Refuse to replace a marked folder that somebody has put other things into."""
    names = [path.name for path in _whole(_contents(root))]
    foreign = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in kind.holds)]
    if foreign:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        raise UserError(
            f"{root} also holds what fmlm did not make ({', '.join(foreign[:_SHOWN])}{more}): move it away, "
            "or choose another --out"
        )


def _contents(root: Path) -> list[Path]:
    """What lies in a folder beside its marker; nothing in one that is gone."""
    try:
        return sorted(path for path in root.iterdir() if path.name != MARKER and not is_lease(path.name))
    except FileNotFoundError:
        return []


def _remove_contents(root: Path, but: str = "") -> None:
    for path in _contents(root):
        if path.name != but:
            remove(path)


def _whole(contents: list[Path]) -> list[Path]:
    """What of a marked folder's contents is no lock, and neither half-written nor half-removed."""
    return [path for path in contents if path.name != LOCK and not is_left_over(path)]


def _write_marker(descriptor: int, kind: Kind) -> None:
    """Say what kind of folder it is whose marker is open."""
    text = json.dumps({"kind": kind.name, "version": VERSION, "made_by": f"fmlm {kind.made_by}"}) + "\n"
    if os.pread(descriptor, len(text) + 1, 0) != text.encode():
        # At once: those who share the folder may be reading it.
        if os.pwrite(descriptor, text.encode(), 0) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(descriptor, len(text))
        os.fsync(descriptor)

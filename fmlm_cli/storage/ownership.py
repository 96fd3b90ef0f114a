"""Whose a folder is, by a marker that nobody writes by chance, and who may write into it, by a lock on that.

.fmlm.json is the first file in every folder that a command makes, and says what kind of folder it is. Nothing
without it is ever cleared or replaced. Whoever writes into the folder holds a lock of the operating system on
it, which is given back however the process ends.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from fmlm_cli.errors import InUseError, UserError
from fmlm_cli.storage.files import clear_disk_errors
from fmlm_cli.storage.folders import (
    LEFT_OVER,
    beside,
    missing_folders,
    put_in_place,
    remove,
    remove_empty,
    sweep,
)

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
    """A folder that this process may write into; `descriptor`: of its marker, on which the lock is."""

    def __init__(self, root: Path, descriptor: int) -> None:
        self.root, self._descriptor = root, descriptor

    @property
    def is_empty(self) -> bool:
        """Whether nothing but its marker is in it."""
        return not _whole(_contents(self.root))

    def clear(self) -> None:
        """Remove what it holds, but not itself: it may be a link, a mount or the working folder.

        The marker stays, so an interrupted call can be repeated.
        """
        for path in _contents(self.root):
            remove(path)

    def share(self) -> None:
        """From now on let others in that share the work."""
        _lock(self._descriptor, self.root, shared=True)

    def leave(self) -> None:
        """Take back the marker of a folder that holds nothing else, and in which nobody else is at work."""
        with contextlib.suppress(OSError, UserError):
            if self.is_empty and os.path.samestat(os.fstat(self._descriptor), (self.root / MARKER).stat()):
                _lock(self._descriptor, self.root, shared=False)
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
) -> Iterator[OwnedFolder]:
    """Make `root` if need be, mark it, and keep other processes of fmlm's out of it while inside.

    With `shared`, only those that do not share. A folder in which nothing is left in the end goes again.
    `shown`: what to call one that another process is at work in: that is a `UserError`, as is what
    `check_claim` refuses, and nothing is touched.
    """
    check_claim(root, kind, overwrite=overwrite, resume=resume)
    missing = missing_folders(root)
    try:
        with _locked(root / MARKER, shown or root, shared=shared) as descriptor:
            check_claim(root, kind, overwrite=overwrite, resume=resume)  # another one may just have finished
            with clear_disk_errors(root):
                if kind_of(root) and not shared:
                    sweep(root)
                _write_marker(descriptor, kind)
            folder = OwnedFolder(root, descriptor)
            try:
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
    shown, target = target, target.resolve()  # a link stays, and its target is replaced; "." has a name
    place = beside(target, "partial")
    try:
        with owned_folder(place, kind, resume=True, shown=shown) as building, clear_disk_errors(shown):
            building.clear()
            try:
                _put_back(target)
                with work_in(target, shown) if kind_of(target) else contextlib.nullcontext():
                    check_claim(target, kind, overwrite=overwrite, resume=resume)
                    yield place
                    check_claim(target, kind, overwrite=overwrite, resume=resume)
                    put_in_place(place, target)
            except BaseException:
                building.clear()
                raise
    finally:
        remove_empty([place])


def _put_back(target: Path) -> None:
    """Undo what a process that was killed while replacing a folder had begun."""
    replaced = beside(target, "replaced")
    if kind_of(replaced) and not target.exists():
        replaced.rename(target)


@contextlib.contextmanager
def work_in(folder: Path, shown: Path | None = None) -> Iterator[None]:
    """Keep other processes of fmlm's out of a folder that a command has made; `shown`: what to call it."""
    with _locked(folder / MARKER, shown or folder, shared=False):
        yield


@contextlib.contextmanager
def sole_owner(part: Path) -> Iterator[None]:
    """Keep other processes of fmlm's out of a part of an owned folder, which is made if need be."""
    lock = part / LOCK
    with _locked(lock, part, shared=False):
        try:
            sweep(part)
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Keep other processes waiting at `path`, a file made for this, while inside."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kind_of(folder: Path) -> str | None:
    """The name of the kind that a folder is marked as; None where no command has made anything of it."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        kind, version = str(marker["kind"]), int(marker["version"])
    except (OSError, ValueError, KeyError, TypeError):
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
        _check_nothing_foreign(root, kind, contents)
    elif contents and not resume:
        raise UserError(
            f"{root} is not empty: pass --resume to keep what is finished, --overwrite to replace it, or "
            "choose another --out"
        )


def check_outside(folder: Path, needed: Mapping[Path, str]) -> None:
    """Refuse to replace a folder that holds what its new content is made of; `needed`: what each path is."""
    for path, kind in needed.items():
        if path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"the {kind} {path} lies inside {folder}: choose another --out")


def _check_nothing_foreign(root: Path, kind: Kind, contents: list[Path]) -> None:
    """Refuse to replace a folder that somebody has put other things into."""
    foreign = [p.name for p in contents if not any(fnmatchcase(p.name, pattern) for pattern in kind.holds)]
    if foreign:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        raise UserError(
            f"{root} also holds what fmlm did not make ({', '.join(foreign[:_SHOWN])}{more}): move it away, "
            "or choose another --out"
        )


def _contents(root: Path) -> list[Path]:
    """What lies in a folder beside its marker; nothing in one that is gone."""
    try:
        return sorted(path for path in root.iterdir() if path.name != MARKER)
    except FileNotFoundError:
        return []


def _whole(contents: list[Path]) -> list[Path]:
    """What is neither half-written nor half-removed of a marked folder's contents."""
    return [path for path in contents if not LEFT_OVER.fullmatch(path.name)]


def _write_marker(descriptor: int, kind: Kind) -> None:
    """Say what kind of folder it is whose marker is open."""
    text = json.dumps({"kind": kind.name, "version": VERSION, "made_by": f"fmlm {kind.made_by}"}) + "\n"
    if os.pread(descriptor, len(text) + 1, 0) != text.encode():
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
        os.fsync(descriptor)


@contextlib.contextmanager
def _locked(path: Path, folder: Path, *, shared: bool) -> Iterator[int]:
    """Hold the lock on a file, which is made with its folder; its descriptor. `InUseError` if it is held."""
    with clear_disk_errors(folder):
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                _lock(descriptor, folder, shared=shared)
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    break
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # whoever had it before has removed the file: the lock would be of nothing
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, *, shared: bool) -> None:
    """Lock an open file, or change the lock that it has. `InUseError` if another process holds it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUseError(
            f"{folder} is in use by another fmlm process: wait for it, or choose another --out"
        ) from None

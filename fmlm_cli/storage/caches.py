"""What can be made again, kept so that it need not be: caches, and hashes of files that have not changed.

A cache lies beside what it is made from where that folder is the user's own, else in the user's cache. It may
be removed at any time, and nothing fails because it cannot be written.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fmlm_cli.errors import UserError
from fmlm_cli.storage.files import sha256_of_files
from fmlm_cli.storage.sealed import read_sealed, write_sealed

CACHE = "cache"  # in the folder that it belongs to

_KEPT_FOLDERS = 32  # of the user's cache: folders that are elsewhere
_LEFT_OVER = 24 * 3600  # seconds after which nobody is writing to a temporary file any more
_WORTH_REMEMBERING = 32 << 20  # bytes together: what takes longer to hash than to look up
_SETTLED = 2 * 10**9  # nanoseconds, the coarsest clock of a file system: in less a file may change unseen

Stamp = list[int]
Entry = list[Any]  # size, times, hash


def cache_of(root: Path, content: str) -> Path | None:
    """The folder for what is made from `root`, which need not exist; None where there is no place for any.

    In `root` itself if this user owns it and may write there, else in the user's cache ($XDG_CACHE_HOME, or
    ~/.cache), named by `content`, a hash of what `root` holds.
    """
    with contextlib.suppress(OSError):
        if root.stat().st_uid == os.geteuid() and os.access(root, os.W_OK):
            return root / CACHE
    try:
        named = Path(os.environ.get("XDG_CACHE_HOME", ""))
        home = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        return None
    return home / "fmlm" / "stores" / content[:32]


class Cache:
    """Files that can be made again, called KIND-KEY-HASH.SUFFIX by what decides them and by their contents.

    `folder`: it need not exist; None: nothing is kept. `hashes`: of its files, as of others.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.hashes = RememberedHashes(folder and folder / "hashes.json")

    def find(self, kind: str, key: str) -> Path | None:
        """The file of this key, if there is one and it is whole."""
        for path in sorted(self.folder.glob(f"{kind}-{key}-*")) if self.folder else ():
            with contextlib.suppress(OSError):  # it may have been removed just now
                if path.stem.endswith(f"-{self._named(path)}"):
                    return path
        return None

    def _named(self, path: Path) -> str:
        (sha256,) = self.hashes.of([path])
        return sha256[:32]

    def keep(
        self, kind: str, key: str, suffix: str, write: Callable[[Path], None], *, most: int
    ) -> Path | None:
        """Have `write` fill a file; where it is then, or None if it cannot be kept.

        Several processes may make the same at once. Of its kind the latest `most` files stay.
        """
        if self.folder is None:
            return None
        # Not the process's number: machines that share a disk have the same ones.
        temporary = self.folder / f".{kind}.{secrets.randbits(64)}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(temporary)
            path = temporary.replace(self.folder / f"{kind}-{key}-{self._named(temporary)}{suffix}")
            with contextlib.suppress(OSError):  # others prune and keep at the same time
                self._prune(f"{kind}-*{suffix}", most)
        except OSError:
            return None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return path

    def _prune(self, pattern: str, most: int) -> None:
        assert self.folder is not None
        for old in _latest_first(self.folder.glob(pattern))[most:]:
            old.unlink(missing_ok=True)
        for left in self.folder.glob(".*.partial"):
            if left.stat().st_mtime < time.time() - _LEFT_OVER:
                left.unlink(missing_ok=True)
        if self.folder.name != CACHE:
            for elsewhere in _latest_first(self.folder.parent.iterdir())[_KEPT_FOLDERS:]:
                shutil.rmtree(elsewhere, ignore_errors=True)


def _latest_first(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


class RememberedHashes:
    """SHA-256 hashes of files by what the system says of them: device, number, size, times of last change.

    A file of which all that is as it was when it was hashed is not read again: as git knows what has changed.
    The time of change (ctime) is the system's own, which no program sets; what a failing disk does to a file
    does not show in it. `path`: the file that the hashes are kept in; None, or one that is damaged or cannot
    be written: then files are hashed each time.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def known(self, paths: Sequence[Path]) -> list[str | None]:
        """The hashes of files as far as they are known, or soon found."""
        stamps = [_stamp(path) for path in paths]
        if not _worth_remembering(stamps):
            return list(sha256_of_files(paths))
        remembered = self._read()
        return [_recall(remembered, stamp) for stamp in stamps]

    def of(self, paths: Sequence[Path], *, afresh: bool = False) -> list[str]:
        """The hashes of files; `afresh`: all are read, whatever is known."""
        stamps = [_stamp(path) for path in paths]
        if not _worth_remembering(stamps):
            return sha256_of_files(paths)
        remembered = self._read()
        known = [None if afresh else _recall(remembered, stamp) for stamp in stamps]
        unknown = [number for number, sha256 in enumerate(known) if sha256 is None]
        now = time.time_ns()
        new = dict(zip(unknown, sha256_of_files([paths[number] for number in unknown]), strict=True))
        settled = {
            _name(stamps[number]): [*stamps[number][2:], sha256]
            for number, sha256 in new.items()
            if max(stamps[number][3:]) < now - _SETTLED and _stamp(paths[number]) == stamps[number]
        }
        if settled:
            self._write(remembered, settled, {_name(stamp) for stamp in stamps})
        return [sha256 or new[number] for number, sha256 in enumerate(known)]

    def _read(self) -> dict[str, Entry]:
        if self._path is None:
            return {}
        try:
            return dict(read_sealed(self._path))
        except (UserError, OSError):
            return {}

    def _write(self, old: dict[str, Entry], new: dict[str, Entry], asked: set[str]) -> None:
        """Other machines know the same files by other devices; what was there long ago is forgotten."""
        if self._path is None:
            return
        if len(old) > 8 * len(asked):
            old = {name: entry for name, entry in old.items() if name in asked}
        with contextlib.suppress(UserError, OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(self._path, {**old, **new})


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _worth_remembering(stamps: Sequence[Stamp]) -> bool:
    return sum(stamp[2] for stamp in stamps) >= _WORTH_REMEMBERING


def _name(stamp: Stamp) -> str:
    return f"{stamp[0]}:{stamp[1]}"


def _recall(remembered: dict[str, Entry], stamp: Stamp) -> str | None:
    *same, sha256 = remembered.get(_name(stamp), [None])
    return str(sha256) if same == stamp[2:] else None

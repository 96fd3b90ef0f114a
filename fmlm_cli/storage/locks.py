"""Locks on files and folders: the operating system's, and a lease for those whom that does not reach."""

import contextlib
import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fmlm_cli.errors import InUseError, UserError
from fmlm_cli.storage.files import clear_disk_errors
from fmlm_cli.storage.leases import LAPSES_AFTER, Holder, Lease

Tell = Callable[[str], None]
_LOOK_EVERY = 0.5  # seconds, at a lease that may lapse
_MOST_TRIES = 1000  # to open what others may remove at any moment; that they do so every time is no chance


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Keep other processes waiting at `path`, a file made for this, while inside."""
    with path.open("w") as file:
        if _flock(file.fileno(), fcntl.LOCK_EX):
            yield
            return
    lease = Lease(path)
    while lease.hold(shared=False, is_locked=False) is not None:
        time.sleep(0.2 + random.random() / 5)  # not in step with others that see this one
    try:
        yield
    finally:
        lease.give_back()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on a file that may be there."""
    try:
        with path.open("rb") as file:
            _flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return Lease(path).holder() is not None


class Lock:
    """A lock on an open file or folder, and the lease beside it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.descriptor, self.lease = descriptor, Lease(path)

    def take(self, folder: Path, *, shared: bool) -> None:
        """Take the lock, or change the one that there is. `InUseError` if another process holds it."""
        claim = None
        try:
            is_locked = _flock(self.descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = None
            with contextlib.suppress(OSError):  # it is to be named, no more
                holder = self.lease.holder()
            raise _in_use(folder, holder) from None
        try:
            claim = self.lease.hold(shared=shared, is_locked=is_locked)
        except OSError:  # a disk that is full or read-only: this host's processes are kept out all the same
            if not is_locked:
                raise
        if claim is not None:
            raise _in_use(folder, claim.holder, claim.unseen)

    def give_back(self) -> None:
        """The lease first: whoever gets the lock then finds none."""
        with contextlib.suppress(OSError):
            self.lease.give_back()
        os.close(self.descriptor)


def _in_use(folder: Path, holder: Holder | None, unseen: tuple[str, float] | None = None) -> InUseError:
    who = "another fmlm process" if holder is None else f"another fmlm process ({holder})"
    return InUseError(f"{folder} is in use by {who}: wait for it, or choose another --out", unseen)


def _flock(descriptor: int, operation: int) -> bool:
    """Lock an open file; False where its file system has no locks. Raises `BlockingIOError`."""
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path, folder: Path, *, shared: bool, tell: Tell | None = None) -> Iterator[Lock]:
    """Hold the lock on a file or folder. `folder`: what refusals call it.

    A file is made, with its folder, where it is not there. Raises `InUseError` if another process holds it.
    `tell`: says that one whom nobody here can see is waited for, until it gives a sign of life, which is that
    error, or its lease lapses; without it nobody is waited for.
    """
    with clear_disk_errors(folder):
        lock, signs, tries = None, dict[str, float](), 0
        while lock is None:
            tries += 1
            if tries > _MOST_TRIES:  # as in /proc, where there is never a folder to be made
                raise UserError(f"cannot make {folder}: the disk takes no such name; choose another --out")
            try:
                lock = _opened_and_locked(path, folder, shared=shared)
            except InUseError as error:
                if tell is None or not _may_have_ended(error, signs, tell):
                    raise
                time.sleep(_LOOK_EVERY)
    try:
        yield lock
    finally:
        lock.give_back()


def _may_have_ended(error: InUseError, signs: dict[str, float], tell: Tell) -> bool:
    """Whether one that is in the way has not been seen to live. `signs`: of life that were seen, by claim."""
    if error.unseen is None:
        return False
    if not signs:
        tell(f"waiting up to {LAPSES_AFTER:.0f} s for a sign of life: {error}")
    claim, touched = error.unseen
    return signs.setdefault(claim, touched) == touched


def _opened_and_locked(path: Path, folder: Path, *, shared: bool) -> Lock | None:
    """The lock on a file or folder, or None where another process has just removed that."""
    try:
        if not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        lock = Lock(path, os.open(path, flags, 0o666))
    except (FileExistsError, FileNotFoundError):
        if os.path.lexists(path.parent) and not path.parent.is_dir():
            raise
        return None
    try:
        lock.take(folder, shared=shared)
        if os.path.samestat(os.fstat(lock.descriptor), path.stat()):
            return lock
    except FileNotFoundError:
        pass
    except BaseException:
        lock.give_back()
        raise
    lock.give_back()  # a lock of nothing
    return None

"""Locks on files and folders: the operating system's, and a lease for those whom that does not reach."""

import contextlib
import fcntl
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from fmlm_cli.errors import InUseError
from fmlm_cli.storage.files import clear_disk_errors
from fmlm_cli.storage.leases import Holder, Lease


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
        holder = None
        try:
            is_locked = _flock(self.descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            with contextlib.suppress(OSError):  # it is to be named, no more
                holder = self.lease.holder()
            raise _in_use(folder, holder) from None
        try:
            holder = self.lease.hold(shared=shared, is_locked=is_locked)
        except OSError:  # a disk that is full or read-only: this host's processes are kept out all the same
            if not is_locked:
                raise
        if holder is not None:
            raise _in_use(folder, holder)

    def give_back(self) -> None:
        """The lease first: whoever gets the lock then finds none."""
        with contextlib.suppress(OSError):
            self.lease.give_back()
        os.close(self.descriptor)


def _in_use(folder: Path, holder: Holder | None) -> InUseError:
    who = "another fmlm process" if holder is None else f"another fmlm process ({holder})"
    return InUseError(f"{folder} is in use by {who}: wait for it, or choose another --out")


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
def locked(path: Path, folder: Path, *, shared: bool) -> Iterator[Lock]:
    """Hold the lock on a file or folder. `folder`: what refusals call it.

    A file is made, with its folder, where it is not there. Raises `InUseError` if another process holds it.
    """
    with clear_disk_errors(folder):
        lock = None
        while lock is None:
            lock = _opened_and_locked(path, folder, shared=shared)
    try:
        yield lock
    finally:
        lock.give_back()


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

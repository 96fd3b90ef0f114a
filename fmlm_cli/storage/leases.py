"""Who holds a lock, written beside it, where locks of the operating system do not reach.

A lock of the operating system is given back however its process ends, but some file systems have none, and
on others it is known to one host alone. A lease is a file that says who holds the lock. A process of this
host is asked after by its number and its start. Another host's nobody here can see: its lease lapses once
its file has not been touched for a minute, and holders touch theirs four times a minute.
"""

import contextlib
import hashlib
import itertools
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

LAPSES_AFTER = 60.0  # seconds without being touched
_TOUCHED_EVERY = 15.0

# With what a process that is killed in the middle may leave.
_NAME = re.compile(r"\..+\.\d+-\d+-[0-9a-f]{8}\.(lease|new|clock)")
_numbers = itertools.count()
_held: set[Path] = set()
_toucher: threading.Thread | None = None


def is_lease(name: str) -> bool:
    """Whether a file is, by its name, a lease."""
    return _NAME.fullmatch(name) is not None


def host() -> str:
    """What processes can see each other by: the host's name, its boot, and the namespace of their numbers."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # Linux has these
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def started(pid: int) -> str | None:
    """When a process of this host began, in the system's own terms; None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return stat.rpartition(")")[2].split()[19]  # in ticks since the boot
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, alone or together with others that share it too."""

    host: str
    pid: int
    started: str
    shared: bool

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition(' ')[0]}"


@dataclass(frozen=True)
class Claim:
    """A lease that is in the way. `unseen`: see `InUseError`."""

    holder: Holder
    unseen: tuple[str, float] | None


class Lease:
    """This process's claim on a lock, told to others by a file beside it once it is held."""

    def __init__(self, lock: Path) -> None:
        folder = lock if lock.is_dir() else lock.parent
        self._prefix = f".{lock.name.lstrip('.')}."
        self._host = host()
        unique = f"{os.getpid()}-{next(_numbers)}-{hashlib.sha256(self._host.encode()).hexdigest()[:8]}"
        self._path = folder / f"{self._prefix}{unique}.lease"

    def hold(self, *, shared: bool, is_locked: bool) -> Claim | None:
        """Hold the lock, unless somebody is in the way, whose claim is given back.

        `is_locked`: this host's processes are kept out by the operating system already.
        """
        own = Holder(self._host, os.getpid(), started(os.getpid()) or "", shared)
        # First say it, then look: of two that come together, at least one sees the other.
        temporary = self._path.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(vars(own)), encoding="utf-8")
            temporary.replace(self._path)
        finally:
            temporary.unlink(missing_ok=True)
        for path, other in self._others():
            touched = self._touched(path, other, self._now)
            if touched is None:
                path.unlink(missing_ok=True)
            elif not (shared and other.shared) and not (is_locked and other.host == self._host):
                self.give_back()
                return Claim(other, None if other.host == self._host else (path.name, touched))
        _keep(self._path)
        return None

    def holder(self, *, leaving_no_trace: bool = False) -> Holder | None:
        """Another that holds the lock, whether it is to be shared or not.

        `leaving_no_trace`: by this host's clock, for whoever may not write there.
        """
        now = time.time if leaving_no_trace else self._now
        live = (other for path, other in self._others() if self._touched(path, other, now) is not None)
        return next(live, None)

    def moved_to(self, folder: Path) -> None:
        """The folder in which the lock is has another name now."""
        _held.discard(self._path)
        self._path = folder / self._path.name
        _keep(self._path)

    def give_back(self) -> None:
        """Hold it no more."""
        _held.discard(self._path)
        self._path.unlink(missing_ok=True)

    def _others(self) -> Iterator[tuple[Path, Holder]]:
        for path in sorted(self._path.parent.glob(f"{self._prefix}*.lease")):
            if path != self._path and is_lease(path.name):
                try:
                    yield path, Holder(**json.loads(path.read_text(encoding="utf-8")))
                except FileNotFoundError:
                    continue
                except (OSError, ValueError, TypeError):  # cut short by a crash: only its age says something
                    yield path, Holder("unknown", 0, "", False)

    def _touched(self, path: Path, other: Holder, now: Callable[[], float]) -> float | None:
        """When a lease was last touched; None for one that holds no longer."""
        try:
            touched = path.stat().st_mtime
        except FileNotFoundError:
            return None
        if other.host == self._host:
            return touched if started(other.pid) == other.started else None
        return touched if now() - touched < LAPSES_AFTER else None

    def _now(self) -> float:
        """By the clock that the files' times are by, which may be another host's."""
        probe = self._path.with_suffix(".clock")
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def _keep(path: Path) -> None:
    """Touch a lease from time to time until it is given back."""
    global _toucher  # noqa: PLW0603 - one for all of the process's
    _held.add(path)
    if _toucher is None or not _toucher.is_alive():
        _toucher = threading.Thread(target=_touch, name="leases", daemon=True)
        _toucher.start()


def _touch() -> None:
    pause = threading.Event()
    while not pause.wait(_TOUCHED_EVERY):
        for path in list(_held):
            with contextlib.suppress(OSError):
                os.utime(path)

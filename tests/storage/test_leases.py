"""Who holds a lock, where the operating system's locks do not reach: other hosts, file systems without them."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli import storage
from fmlm_cli.errors import InUseError
from fmlm_cli.storage import leases
from fmlm_cli.storage import locks as locks_of_storage

KIND = storage.Kind("cake", "bake", ("recipe.txt",))
OLD = leases.LAPSES_AFTER + 5


@pytest.fixture(params=[True, False], ids=["with locks", "without locks"])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:

        def refuse(*_: Any) -> None:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr("fcntl.flock", refuse)
    return bool(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with storage.owned_folder(tmp_path / "a", KIND):
        (tmp_path / "a" / "recipe.txt").write_text("flour")
    yield tmp_path / "a"
    assert {path.name for path in (tmp_path / "a").iterdir()} <= {storage.MARKER, "recipe.txt"}


def left_by(
    folder: Path, *, host: str, pid: int, started: str = "1", age: float = 0.0, shared: bool = False
) -> Path:
    """A lease on the folder's marker of somebody else's."""
    path = folder / f".fmlm.json.{pid}-0-0123abcd.lease"
    path.write_text(json.dumps({"host": host, "pid": pid, "started": started, "shared": shared}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def enter(folder: Path, **asked: Any) -> None:
    with storage.owned_folder(folder, KIND, resume=True, **asked):
        pass


@pytest.mark.usefixtures("locks")
def test_another_hosts_lease_lapses_after_a_minute(folder: Path) -> None:
    lease = left_by(folder, host="elsewhere boot ns", pid=7)
    with pytest.raises(InUseError, match=r"in use by another fmlm process \(process 7 on elsewhere\): wait"):
        enter(folder)
    assert lease.exists() and len([*folder.glob(".*.lease")]) == 1  # it has not left one of its own
    os.utime(lease, (time.time() - leases.LAPSES_AFTER + 5,) * 2)
    with pytest.raises(InUseError):
        enter(folder)
    os.utime(lease, (time.time() - OLD,) * 2)
    enter(folder)
    assert not lease.exists()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A lease that lapses in no time, and what is told of the wait."""
    monkeypatch.setattr(locks_of_storage, "_LOOK_EVERY", 0.02)
    monkeypatch.setattr(leases, "LAPSES_AFTER", 1.0)
    return []


@pytest.mark.usefixtures("locks")
def test_whom_nobody_here_can_see_is_waited_for(folder: Path, patience: list[str]) -> None:
    """As a process of a container that was killed: until its lease lapses, and no longer."""
    lease = left_by(folder, host="elsewhere boot ns", pid=7)
    began = time.monotonic()
    enter(folder, tell=patience.append)
    assert 0.5 < time.monotonic() - began < 10 and not lease.exists()
    [said] = patience
    assert said.startswith("waiting up to 60 s for a sign of life: ") and "(process 7 on elsewhere)" in said


@pytest.mark.usefixtures("locks")
def test_who_gives_a_sign_of_life_is_not(folder: Path, patience: list[str]) -> None:
    lease = left_by(folder, host="elsewhere boot ns", pid=7)

    def touch(said: str) -> None:
        patience.append(said)
        os.utime(lease, (time.time() + 1,) * 2)

    with pytest.raises(InUseError, match=r"process 7 on elsewhere"):
        enter(folder, tell=touch)
    assert len(patience) == 1 and lease.exists()
    lease.unlink()


def test_nor_is_a_living_process_of_this_host(folder: Path, patience: list[str], locks: bool) -> None:
    with (
        storage.owned_folder(folder, KIND, resume=True),
        pytest.raises(InUseError),
    ):
        enter(folder, tell=patience.append)
    assert not patience


def test_a_dead_process_of_this_host_frees_it_at_once(folder: Path, locks: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        ended.wait()
    lease = left_by(folder, host=leases.host(), pid=ended.pid)
    enter(folder)
    assert not lease.exists()
    reused = left_by(folder, host=leases.host(), pid=os.getppid())  # which did not begin then
    enter(folder)
    assert not reused.exists()


def test_a_living_process_of_this_host_holds_it(folder: Path, locks: bool) -> None:
    """By its number and start; where there are locks they are asked, and it holds none."""
    pid = os.getppid()
    lease = left_by(folder, host=leases.host(), pid=pid, started=leases.started(pid) or "", age=OLD)
    if not locks:
        with pytest.raises(InUseError, match=rf"\(process {pid} on "):
            enter(folder)
    lease.unlink()
    enter(folder)


@pytest.mark.usefixtures("locks")
def test_a_lease_that_cannot_be_read_lapses_too(folder: Path) -> None:
    lease = left_by(folder, host="elsewhere", pid=7)
    lease.write_bytes(b"{")
    with pytest.raises(InUseError, match="process 0 on unknown"):
        enter(folder)
    os.utime(lease, (time.time() - OLD,) * 2)
    enter(folder)


@pytest.mark.usefixtures("locks")
def test_those_that_share_it_go_together(folder: Path) -> None:
    left_by(folder, host="elsewhere", pid=7, shared=True)
    with pytest.raises(InUseError):
        enter(folder)
    enter(folder, shared=True)
    (folder / ".fmlm.json.7-0-0123abcd.lease").unlink()
    with storage.owned_folder(folder, KIND, resume=True) as owned:
        with pytest.raises(InUseError):
            enter(folder, shared=True)
        owned.share()
        enter(folder, shared=True)
        with pytest.raises(InUseError):
            enter(folder)


@pytest.mark.usefixtures("locks")
def test_the_clock_is_the_file_systems(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose own clock is an hour ahead takes nobody's lease."""
    left_by(folder, host="elsewhere", pid=7).touch()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    with pytest.raises(InUseError):
        enter(folder)
    monkeypatch.undo()
    (folder / ".fmlm.json.7-0-0123abcd.lease").unlink()


@pytest.mark.usefixtures("locks")
def test_a_holder_touches_its_lease(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_TOUCHED_EVERY", 0.02)
    monkeypatch.setattr(leases, "_toucher", None)
    with storage.owned_folder(folder, KIND, resume=True):
        [lease] = folder.glob(".*.lease")
        os.utime(lease, (0, 0))
        until = time.monotonic() + 10
        while lease.stat().st_mtime < 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert time.time() - lease.stat().st_mtime < 10


@pytest.mark.usefixtures("locks")
def test_a_part_and_a_folder_that_is_replaced(tmp_path: Path) -> None:
    with storage.replaced_folder(tmp_path / "b", KIND) as building:
        (building / "recipe.txt").write_text("flour")
    assert {path.name for path in (tmp_path / "b").iterdir()} == {storage.MARKER, "recipe.txt"}
    with storage.sole_owner(tmp_path / "b" / "part"):
        assert storage.in_use(tmp_path / "b" / "part")
        with pytest.raises(InUseError), storage.sole_owner(tmp_path / "b" / "part"):
            pass
    assert not storage.in_use(tmp_path / "b" / "part") and not [*(tmp_path / "b" / "part").iterdir()]
    with storage.one_at_a_time(tmp_path / "turn"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"b", "turn"}


def test_a_disk_that_is_full_is_no_reason_where_there_are_locks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    enter(folder)

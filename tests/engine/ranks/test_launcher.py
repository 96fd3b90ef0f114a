"""The launcher alone, with processes that play: how they are started, how they end, and which of them is told of."""

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fmlm_cli.engine.ranks import launcher
from fmlm_cli.engine.ranks.launch import Launch
from fmlm_cli.engine.ranks.launcher import tidy_up_after_launcher
from fmlm_cli.errors import AnotherEndedError

# Each says who it is in a file, and then does as it is told.
CHILD = """
import os, signal, sys, time
folder, how, rank = sys.argv[1], sys.argv[2], int(os.environ["RANK"])
heard = []
def end(number, frame):
    heard.append(number)
    if len(heard) > 1:
        open(f"{folder}/twice", "w").close()
    print(f"stopped by {number}", file=sys.stderr, flush=True)
    time.sleep(0.4)
    sys.exit(0 if how == "finishes" else 128 + number)
signal.signal(signal.SIGTERM, end)
print("told", flush=True)
facts = os.getpid(), os.getsid(0), os.fstat(0).st_mode, os.environ["WORLD_SIZE"], os.environ["OMP_NUM_THREADS"]
with open(f"{folder}/new-{rank}", "w") as file:
    print(*facts, *sys.argv[3:], file=file)
os.rename(f"{folder}/new-{rank}", f"{folder}/begun-{rank}")
if how == "fine":
    sys.exit(0)
if how in ("fails", "killed"):
    while len([name for name in os.listdir(folder) if name.startswith("begun-")]) < 3:
        time.sleep(0.02)
    if rank == 1 and how == "fails":
        print("error: the disk is full", file=sys.stderr)
        sys.exit(2)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
    if rank == 0 and how == "fails":
        time.sleep(100)
    print("error: another one has gone", file=sys.stderr)
    sys.exit(0 if how == "fails" else 3)
time.sleep(100)
"""

Play = Callable[[str], None]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """`play(how)`: three of them, until all have ended."""
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.delenv("OMP_NUM_THREADS")

    def run(how: str) -> None:
        child = [sys.executable, str(tmp_path / "child.py"), str(tmp_path), how]
        monkeypatch.setattr(launcher, "fmlm_command", lambda: child)
        launcher.run_ranks(3, ["pretrain", "--steps", "3"])

    return run


def begun(folder: Path) -> list[list[str]]:
    """What each of the three says of itself, once all have begun."""
    until = time.monotonic() + 60
    while len(found := sorted(folder.glob("begun-*"))) < 3:
        assert time.monotonic() < until
        time.sleep(0.02)
    return [path.read_text().split() for path in found]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_all_succeed(play: Play, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    play("fine")
    for pid, session, stdin, world, threads, *words in begun(tmp_path):
        assert session == pid != str(os.getsid(0))  # Ctrl-C reaches the launcher alone
        assert stat.S_ISFIFO(int(stdin)) and words == ["--until-stdin-closes", "pretrain", "--steps", "3"]
        assert world == "3" and int(threads) == max(1, launcher.usable_cores() // 3)
    assert capfd.readouterr().out == "told\n"  # by the first alone


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [("fails", 2, "error: the disk is full"), ("killed", 137, "rank 1 of 3 was ended by SIGKILL")],
)
def test_the_first_that_fails_decides(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, code: int, said: str
) -> None:
    """Also where the others fail of it; and one that does not end by itself is ended."""
    monkeypatch.setattr(launcher, "_TO_END", 1.0)
    began = time.monotonic()
    with pytest.raises(AnotherEndedError, match=said) as caught:
        play(how)
    assert caught.value.exit_code == code
    assert time.monotonic() - began < 50 and not any(is_alive(int(pid)) for pid, *_ in begun(tmp_path))


@pytest.mark.parametrize(
    ("codes", "said", "wanted"),
    [
        ((2, -9, 3), {0, 2}, 1),  # one that was killed is why the others fail
        ((2, 0, 3), {2}, 2),
        ((0, 4, 3), set(), 1),
        ((None, 0, 0), {1}, None),
    ],
)
def test_who_is_told_of_where_several_have_failed(
    tmp_path: Path, codes: tuple[int | None, ...], said: set[int], wanted: int | None
) -> None:
    ranks = launcher._Ranks(tmp_path, len(codes))
    ranks.processes = [SimpleNamespace(poll=lambda code=code: code, returncode=code) for code in codes]  # type: ignore[misc]
    for rank in range(len(codes)):
        (tmp_path / f"rank-{rank}").write_text("error: why" if rank in said else "")
    assert ranks._failed() == wanted
    os.close(ranks.until_closed)
    os.close(ranks.held_open)


def ask(folder: Path) -> threading.Thread:
    """Have this process asked to stop, twice."""

    def act() -> None:
        begun(folder)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.15)

    asking = threading.Thread(target=act)
    asking.start()
    return asking


def test_a_signal_is_passed_on_to_all_once(play: Play, tmp_path: Path) -> None:
    asking = ask(tmp_path)
    with pytest.raises(AnotherEndedError, match="stopped by 15") as caught:
        play("waits")
    asking.join()
    assert caught.value.exit_code == 143 and not (tmp_path / "twice").exists()


def test_what_comes_of_a_signal_is_what_all_did(play: Play, tmp_path: Path) -> None:
    """They were at their end, and have succeeded."""
    asking = ask(tmp_path)
    play("finishes")
    asking.join()


def test_whatever_ends_the_launcher_ends_all(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        begun(tmp_path)
        raise ZeroDivisionError

    monkeypatch.setattr(launcher._Ranks, "wait", fail)
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        play("waits")
    assert time.monotonic() - began < 50  # they would wait for longer
    assert not any(is_alive(int(pid)) for pid, *_ in begun(tmp_path))


@pytest.mark.parametrize(
    ("by", "rank", "killed", "stays"),
    [
        ("fmlm", 0, True, False),
        ("fmlm", 1, True, True),
        ("fmlm", 0, False, True),
        ("torchrun", 0, True, True),
    ],
)
def test_the_first_tidies_up_after_a_launcher_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, rank: int, killed: bool, stays: bool
) -> None:
    place = tmp_path / "fmlm-ranks-1"
    place.mkdir()
    (place / "store").touch()
    monkeypatch.setattr(launcher, "parent_has_ended", lambda: killed)
    tidy_up_after_launcher(Launch(rank, 2, rank, 2, f"file://{place / 'store'}", by))  # type: ignore[arg-type]
    assert place.exists() is stays

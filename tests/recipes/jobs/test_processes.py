"""Processes that share work: how they are started, and how they end with the one that started them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmlm_cli import storage
from fmlm_cli.engine import signals
from fmlm_cli.errors import Interrupted, InUseError
from fmlm_cli.events import Event, Note, ignore
from fmlm_cli.recipes.jobs import processes, work
from fmlm_cli.recipes.jobs.board import Board, Outcome
from fmlm_cli.recipes.jobs.work import Sharing, work_through
from tests.environment import python_path
from tests.recipes.jobs.in_memory import Disk, job, ledger_of

# What the processes run in place of `fmlm`: work of a minute that saves what it has when asked to stop.
CHILD = """
import os, sys, time
from pathlib import Path
from fmlm_cli.engine import signals
folder = Path(sys.argv[1])
with signals.stoppable() as stop:
    stop.patient = True
    signals.stop_when_stdin_closes()
    (folder / f"begun-{os.getpid()}").touch()
    until = time.monotonic() + 60
    while not stop.asked and time.monotonic() < until:
        time.sleep(0.01)
    (folder / f"saved-{os.getpid()}-{stop.exit_code}").touch()
"""
PARENT = """
import os, signal, sys
from pathlib import Path
from fmlm_cli.recipes.jobs import processes
folder = Path(sys.argv[1])
processes.fmlm_command = lambda: [sys.executable, str(folder / "child.py"), str(folder)]
def look():
    if len(list(folder.glob("begun-*"))) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
processes.spread([], 2, folder / "logs", look)
"""


def test_processes_save_and_end_with_one_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    # The children hold its standard output too, so that this returns once all have ended.
    environment = {**os.environ, "PYTHONPATH": python_path()}
    died = subprocess.run([sys.executable, "-c", PARENT, tmp_path], check=False, env=environment)
    assert died.returncode == -9
    begun = {path.name.split("-")[1] for path in tmp_path.glob("begun-*")}
    wait_for_files(tmp_path, {f"saved-{pid}-143" for pid in begun})


def wait_for_files(folder: Path, names: set[str]) -> None:
    until = time.monotonic() + 60
    while not names <= {path.name for path in folder.iterdir()}:
        assert time.monotonic() < until, sorted(folder.iterdir())
        time.sleep(0.05)


@pytest.mark.parametrize("where", ["", "cwd", "elsewhere"])
def test_modules_of_the_working_folder_are_left_out_where_they_are_here(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    own = [path for path in sys.path if path not in ("", str(Path.cwd()))]
    monkeypatch.setattr(sys, "path", [{"cwd": str(Path.cwd())}.get(where, where), *own])
    assert ("-P" in processes.fmlm_command()) == (where == "elsewhere")


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 61])
@pytest.mark.parametrize("jobs", [1, 2, 3, 8])
def test_processes_have_equal_shares_of_the_threads(
    monkeypatch: pytest.MonkeyPatch, threads: int, jobs: int
) -> None:
    """OMP_NUM_THREADS=1, of which a share is 1, is the way to results that do not depend on --jobs."""
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    (share,) = {int(processes._share(number, jobs)["OMP_NUM_THREADS"]) for number in range(jobs)}
    assert share * jobs <= max(threads, jobs)  # never more than there are, where each can have one
    assert (share + 1) * jobs > threads  # and none is idle that would be enough for one more each


@pytest.mark.parametrize("patience", [60, 0])
def test_a_job_that_another_process_is_about_to_leave_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    monkeypatch.setattr(work, "_ENDING_SECONDS", patience)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    calls, told = [], list[Event]()

    def do(each: object) -> str:
        calls.append(each)
        if len(calls) < 4:
            raise InUseError("out/a is in use: wait for it")
        return "found"

    ledger = ledger_of(disk := Disk(), [[job("a")]])
    board = Board("", ledger, lambda _, found: Outcome(found, found, 1.0), told.append)
    if patience:
        work_through(ledger, do, board, Sharing(), [], Path("nowhere"))
        assert disk.done == ["a"] and len(calls) == 4
        assert [e.text for e in told if isinstance(e, Note)] == [
            "waiting up to 60 s: out/a is in use: wait for it"
        ]
    else:
        with pytest.raises(InUseError):
            work_through(ledger, do, board, Sharing(), [], Path("nowhere"))


@pytest.mark.parametrize("flags", [{"resume": True}, {"overwrite": True}])
def test_a_second_call_is_refused_at_once_while_the_first_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, bool]
) -> None:
    kind = storage.Kind("jobs", "work", ("done",))
    calls = {"overwrite": False, "resume": False, "emit": ignore}
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))
    for sharing in (Sharing(), Sharing(processes=2)):
        with work.owned_by(sharing, tmp_path / "a", kind, **calls) as folder:  # type: ignore[arg-type]
            folder.share()
            with (
                pytest.raises(InUseError),
                work.owned_by(Sharing(), tmp_path / "a", kind, **{**calls, **flags}),  # type: ignore[arg-type]
            ):
                pass


def test_a_call_that_goes_on_waits_for_the_processes_of_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, told = storage.Kind("jobs", "work", ("done",)), list[Event]()
    orphan = storage.owned_folder(tmp_path / "a", kind, shared=True)
    orphan.__enter__()
    (tmp_path / "a" / "done").touch()
    monkeypatch.setattr(time, "sleep", lambda _: orphan.__exit__(None, None, None))
    with work.owned_by(
        Sharing(), tmp_path / "a", kind, overwrite=False, resume=True, emit=told.append
    ) as folder:
        assert not folder.is_empty
    assert isinstance(told[0], Note) and "waiting up to" in told[0].text


OUT_OF_TIME = """
import sys
print(*sys.argv[1:])
sys.exit(75)
"""


@pytest.mark.parametrize("code", [None, 99])
def test_time_is_up_for_processes_and_for_who_began_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    (tmp_path / "child.py").write_text(OUT_OF_TIME)
    monkeypatch.setattr(processes, "fmlm_command", lambda: [sys.executable, str(tmp_path / "child.py")])
    monkeypatch.setattr(signals, "_BEGAN", time.monotonic() - 120)
    with signals.stoppable():
        signals.limit_process(10, code)
        with pytest.raises(Interrupted, match="stopped by --max-minutes 10; all processes have") as caught:
            processes.spread(["pretrain"], 2, tmp_path / "logs", lambda: None)
    assert caught.value.exit_code == (code or 75)
    *_, flag, minutes, cell, share = (tmp_path / "logs" / "job-2.log").read_text().split()
    assert (flag, cell, share) == ("--max-minutes", "--cell", "2/2") and 7.5 < float(minutes) < 8.01

"""How runs by several processes end when a user, a scheduler or the kernel ends a part of them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from fmlm_cli.engine.checkpoint import complete_checkpoints
from tests.environment import python_path
from tests.launching import fake_srun

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are looked up in /proc"),
]

LIMIT = 30.0  # seconds for all to end
SMALL = "--model bert-tiny --set sequence_length=32 --set batch.size=8 --set batch.micro_size=2"
OFTEN = "--set checkpoint.every_steps=10 --set evaluation.max_rows=4 --steps 400"
TORCHRUN = (
    "-m torch.distributed.run --standalone --shutdown-timeout 120 --signals-to-handle SIGTERM,SIGINT,SIGUSR1"
)
# A process that says when it comes to a function, and takes so many seconds more for it.
TELLING = """
import importlib, sys, time
from pathlib import Path
from fmlm_cli.__main__ import main
begun, seconds, module, name = (sys.argv.pop() for _ in range(4))
owner = importlib.import_module(module)
plain = getattr(owner, name)
def act(*arguments, **named):
    Path(begun).touch()
    time.sleep(float(seconds))
    return plain(*arguments, **named)
setattr(owner, name, act)
main()
"""
_RUN, _SPEED = "fmlm_cli.recipes.pretraining.run", "fmlm_cli.recipes.shared.speed"
STAGES = {
    "planning": ("plan_run", _RUN, "100"),  # as where there is text to tokenize
    "compiling": ("compile_layers", _SPEED, "0"),
    "exporting": ("finish_run", _RUN, "100"),
}


class Started:
    """A command, the processes that it has started, and what they say."""

    def __init__(self, command: list[str], said: Path, **environment: str) -> None:
        self.said = said
        common = {"PYTHONPATH": python_path(), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        with said.open("wb") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, env={**os.environ, **common, **environment}
            )
        self.ranks: list[int] = []

    def wait_for(self, path: Path, number: int) -> None:
        """Until a file is there, and with it the processes."""
        until = time.monotonic() + 200
        while not path.exists():
            assert self.process.poll() is None and time.monotonic() < until, self.said.read_text()
            time.sleep(0.1)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.ranks = [
            int(child) for child in children if b"fmlm" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        assert len(self.ranks) == number

    def end(self, *but: int) -> str:
        """Wait until all but these have ended, which is soon; what was said."""
        until = time.monotonic() + LIMIT
        for rank in set(self.ranks) - set(but):
            while _is_alive(rank):
                assert time.monotonic() < until, self.said.read_text()
                time.sleep(0.1)
        return self.said.read_text()

    def kill(self) -> None:
        for process in (self.process.pid, *self.ranks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()


def _is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "XZ"


def pretrain_words(store: Path, folder: Path) -> list[str]:
    """Of a small run with many checkpoints."""
    return ["pretrain", "--data", str(store), *SMALL.split(), *OFTEN.split(), "--out", str(folder / "run")]


@pytest.fixture
def start(tiny_store: Path, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def begin(by: str, *more: str) -> Started:
        words = pretrain_words(tiny_store, tmp_path)
        fmlm = [sys.executable, "-m", "fmlm_cli", *words, *more]
        commands = {
            "nproc": [*fmlm, "--nproc", "2"],
            "torchrun": [sys.executable, *TORCHRUN.split(), "--nproc-per-node", "2", *fmlm[1:]],
            "srun": [sys.executable, fake_srun.__file__, *fmlm],
        }
        for stage, where in STAGES.items():
            telling = [sys.executable, fake_srun.__file__, sys.executable, "-c", TELLING]
            commands[stage] = [*telling, *words, *more, *where, str(tmp_path / stage)]
        started.append(
            Started(commands[by], tmp_path / "said", TMPDIR=str(tmp_path / "tmp"), **{fake_srun.TASKS: "2"})
        )
        return started[-1]

    (tmp_path / "tmp").mkdir()
    yield begin
    for command in started:
        command.kill()


def check_that_it_goes_on(tmp_path: Path, tiny_store: Path, *more: str) -> None:
    """By one process, from the newest checkpoint; nothing is left of those that ended."""
    newest = complete_checkpoints(tmp_path / "run" / "checkpoints")[-1][0]
    words = [*pretrain_words(tiny_store, tmp_path), *more, "--resume"]
    done = subprocess.run(
        [sys.executable, "-m", "fmlm_cli", *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path()},
    )
    assert done.returncode == 0, done.stderr
    assert f"resuming after step {newest:,} of" in done.stdout
    assert {path.name for path in (tmp_path / "run").rglob(".*")} == {".fmlm.json"}


Start = Callable[..., Started]


def test_of_one_that_is_killed_the_launcher_tells(start: Start, tmp_path: Path, tiny_store: Path) -> None:
    run = start("nproc")
    run.wait_for(tmp_path / "run" / "checkpoints" / "step-10", 2)
    os.kill(run.ranks[1], signal.SIGKILL)
    run.end()
    assert run.process.wait(LIMIT) == 128 + signal.SIGKILL
    said = run.said.read_text().strip().splitlines()
    time_of, _, line = said[-1].partition(" rank ")  # both streams are one log, whose lines have their time
    assert datetime.fromisoformat(time_of) and line == "1 of 2 was ended by SIGKILL: --resume goes on"
    assert " step " in said[-2]
    check_that_it_goes_on(tmp_path, tiny_store)


@pytest.mark.parametrize("by", ["torchrun", "nproc"])
def test_without_its_launcher_a_run_saves_and_ends(
    start: Start, tmp_path: Path, tiny_store: Path, by: str
) -> None:
    run = start(by)
    run.wait_for(tmp_path / "run" / "checkpoints" / "step-10", 2)
    os.kill(run.process.pid, signal.SIGKILL)
    said = run.end()
    assert said.count("stopped by SIGTERM at step ") == 1 and "saved in" in said
    assert not list((tmp_path / "tmp").glob("fmlm-ranks-*"))
    check_that_it_goes_on(tmp_path, tiny_store)


SHORT = ("--set", "budget.steps=4")


@pytest.mark.parametrize("to", [(1,), (0, 1)], ids=["the other one", "both"])
@pytest.mark.parametrize(
    ("stage", "more"),
    [("planning", ()), ("compiling", ("--set", "speed.compile=true")), ("exporting", SHORT)],
)
def test_a_signal_while_one_is_at_work_alone_or_a_compiler_is(
    start: Start, tmp_path: Path, tiny_store: Path, stage: str, more: tuple[str, ...], to: tuple[int, ...]
) -> None:
    """The other one is in a library's call then, and does not hear it."""
    run = start(stage, *more)
    run.wait_for(tmp_path / stage, 2)
    time.sleep(0.5)  # into what it is at
    for rank in to:
        os.kill(run.ranks[rank], signal.SIGTERM)
    said = run.end().strip().splitlines()
    assert [line for line in said if "stopped by" in line] == said[-1:]
    assert run.process.wait(LIMIT) == 128 + signal.SIGTERM
    assert not (tmp_path / "run" / "final").exists()
    if stage == "exporting":
        check_that_it_goes_on(tmp_path, tiny_store, *more)


def test_a_stopped_process_ends_the_others(start: Start, tmp_path: Path) -> None:
    run = start("srun")
    run.wait_for(tmp_path / "run" / "checkpoints" / "step-10", 2)
    os.kill(run.ranks[1], signal.SIGSTOP)
    said = run.end(run.ranks[1]).strip().splitlines()
    assert said[-1].startswith("rank 1 of 2 (") and "no sign of life" in said[-1]
    os.kill(run.ranks[1], signal.SIGCONT)
    run.end()
    assert run.process.wait(LIMIT) == 2


def test_time_is_kept_by_one_and_the_code_is_what_was_asked_for(start: Start, tmp_path: Path) -> None:
    endless = ("--steps", "100000")  # by no machine done in time
    run = start("srun", "--max-minutes", "0.5", "--requeue-exit-code", "99", *endless)
    assert run.process.wait(120) == 99
    assert run.said.read_text().count("stopped by --max-minutes 0.5") == 1


def test_ctrl_c_twice_ends_at_once(start: Start, tmp_path: Path) -> None:
    run = start("nproc")
    run.wait_for(tmp_path / "run" / "checkpoints" / "step-10", 2)
    run.process.send_signal(signal.SIGINT)
    time.sleep(0.3)  # two that come together are one
    run.process.send_signal(signal.SIGINT)
    assert (
        run.process.wait(4 * LIMIT) == 128 + signal.SIGINT
    )  # a busy disk is waited for by whoever is killed
    run.end()
    assert "stopped at once by Ctrl-C" in run.said.read_text()

"""A command that says nothing for long is seen to be at work: in a terminal, in a log, and in no pipe."""

import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from fmlm_cli import events
from fmlm_cli.cli.console import Console
from fmlm_cli.cli.silence import SilenceWatch

# Works for three seconds, and tells what, if it is given; then says that it is done.
SCRIPT = """
import sys, time
from fmlm_cli import events
from fmlm_cli.cli.console import Console
with Console(needs_reader=sys.argv[1] == "reader", for_programs=sys.argv[1] == "programs") as console:
    if sys.argv[2]:
        console.emit(events.Doing(sys.argv[2]))
    time.sleep(3)
    console.emit(events.Note("done"))
"""


def line(kind: str, doing: str) -> list[str]:
    return [sys.executable, "-c", SCRIPT, kind, doing]


def in_terminal(*words: str) -> str:
    """All that is written to a terminal."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(line(*words), stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        content = b""
        while process.poll() is None or select.select([leader], [], [], 0)[0]:
            if select.select([leader], [], [], 0.1)[0]:
                try:
                    content += os.read(leader, 4096)
                except OSError:  # its other end is closed
                    break
    os.close(leader)
    return content.decode()


def test_a_terminal_shows_that_it_is_at_work_until_it_says_something() -> None:
    shown = in_terminal("file", "loading [bert]")
    assert "loading [bert] ..." in shown
    assert shown.rstrip().endswith("done")
    assert "\x1b[2K" in shown  # the line is taken away again
    assert "working ..." in in_terminal("reader", "")


@pytest.mark.parametrize(
    ("kind", "doing", "lines"),
    [
        ("file", "loading", ["loading ...", "done"]),
        ("file", "", ["done"]),
        ("reader", "loading", ["done"]),
        ("programs", "loading", []),
    ],
)
def test_a_log_has_one_line_and_a_pipe_none(kind: str, doing: str, lines: list[str]) -> None:
    done = subprocess.run(line(kind, doing), capture_output=True, text=True, check=True)
    told = [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in done.stdout.splitlines()]
    assert [line for line in told if not line.startswith("=====")] == lines and not done.stderr


def test_once_for_each_silence() -> None:
    spoken: list[float] = []
    watch = SilenceWatch(lambda: spoken.append(time.monotonic()), after=0.2)
    watch.start()
    for _ in range(4):
        time.sleep(0.05)
        watch.told()
    time.sleep(1)
    assert len(spoken) == 1
    watch.told()
    time.sleep(1)
    watch.stop()
    assert len(spoken) == 2
    time.sleep(0.6)
    assert len(spoken) == 2


def test_what_is_done_quickly_is_not_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(needs_reader=True) as console:
        console.emit(events.Doing("loading"))
        console.emit(events.Note("done"))
    assert capsys.readouterr().out == "done\n"

"""Mistakes as a shell sees them: which stream, which code, and what surrounds the process may lack."""

import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli.test_system import without_privileges
from tests.environment import python_path

FMLM = [sys.executable, "-m", "fmlm_cli"]
NOWHERE = "error: nowhere: no such folder; name runs, or folders that hold some\n"


def environment(**changes: str | None) -> dict[str, str]:
    given = {**os.environ, "PYTHONPATH": python_path(), **changes}
    return {name: value for name, value in given.items() if value is not None}


def shell(
    script: str, *words: str, cwd: Path, changes: Mapping[str, str | None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a bash script in which "$@" is `fmlm` with these words."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *FMLM, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment(**(changes or {})),
    )


@pytest.mark.parametrize(
    ("script", "words", "stdout", "stderr"),
    [
        ('"$@"', ("runs", "nowhere", "--json"), "", NOWHERE),
        ('"$@"', ("config", "show", "nowhere.yaml"), "", "error: no such configuration file: nowhere.yaml\n"),
        ('"$@" | head -n 1; exit ${PIPESTATUS[0]}', ("runs", "nowhere"), "", NOWHERE),
        ('"$@" >&-', ("runs", "nowhere"), "", NOWHERE),  # the standard output is closed
        ('"$@" 2>&-', ("runs", "nowhere"), "", ""),
        ('"$@" 2>/dev/full', ("pretrain", "--stps", "3"), "", ""),
        ('"$@" >&- 2>&- <&-', ("pretrain", "--stps", "3"), "", ""),
        (
            '"$@" > /dev/full',
            ("config", "schema"),
            "",
            "error: nothing can be written to the standard output: no space left on device\n",
        ),
    ],
)
def test_streams(script: str, words: tuple[str, ...], stdout: str, stderr: str, tmp_path: Path) -> None:
    done = shell(script, *words, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, stdout, stderr)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "changes",
    [
        {"TERM": None, "LANG": "C", "LC_ALL": "C"},
        {
            "HOME": "/nowhere",
            "TMPDIR": "/nowhere",
            "XDG_CACHE_HOME": "/nowhere",
            "USER": None,
            "LOGNAME": None,
        },
        {"COLUMNS": "20", "TERM": "dumb"},
    ],
)
def test_what_the_environment_lacks(changes: dict[str, str | None], tmp_path: Path) -> None:
    done = shell('"$@"', "runs", "nowhere", cwd=tmp_path, changes=changes)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", NOWHERE)
    done = shell('"$@"', "runs", "--json", ".", cwd=tmp_path, changes=changes)
    assert done.returncode == 0 and json.loads(done.stdout)["runs"] == []


def test_the_working_folder_is_gone(tmp_path: Path) -> None:
    words = ("tokenize", "text.txt", "--tokenizer", "x", "--out", "new")
    done = shell('mkdir gone && cd gone && rmdir ../gone && "$@"', *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: the working folder is gone: change to one that is there (cd)\n"


@pytest.mark.skipif(sys.platform != "linux", reason="drops capabilities as Linux does")
def test_a_working_folder_that_may_not_be_written(wordpiece_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the water and the river\n" * 40)
    (tmp_path / "here").mkdir(mode=0o555)
    words = ["tokenize", "../text.txt", "--tokenizer", str(wordpiece_folder), "--out", "new"]
    done = subprocess.run(
        [*FMLM, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path / "here",
        env=environment(),
        preexec_fn=without_privileges,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: cannot write ") and line.endswith(
        "permission denied; choose another --out"
    )
    assert not [*(tmp_path / "here").iterdir()]


def test_in_a_narrow_terminal_lines_break_between_words(tmp_path: Path) -> None:
    primary, secondary = pty.openpty()
    words = ["runs", "--sort", "luck"]
    process = subprocess.Popen(
        [*FMLM, *words],
        stdout=secondary,
        stderr=secondary,
        cwd=tmp_path,
        env=environment(COLUMNS="40", TERM="xterm"),
    )
    os.close(secondary)
    shown = b""
    while select.select([primary], [], [], 60)[0]:
        try:
            shown += os.read(primary, 4096)
        except OSError:  # the other end is closed
            break
    os.close(primary)
    assert process.wait() == 2
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).splitlines()
    assert " ".join(lines).startswith("error: setting 'sort' (from --sort): it can be 'name', ")
    assert len(lines) > 3 and all(len(line) <= 40 for line in lines)

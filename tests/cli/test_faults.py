"""A fault of the program's own: a few lines that say whose it is and what to send, and a log to be sent."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fmlm_cli import __version__
from fmlm_cli.cli.app import app
from tests.environment import python_path

MERGE = ["merge", "shard", "--out", "new"]


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, where a command that ends by a fault leaves its log."""

    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("half\na message")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fmlm_cli.recipes.tokenize.merging.check_together", fail)
    monkeypatch.setattr("fmlm_cli.recipes.tokenize.merging._opened", str)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def merge(*more: str) -> Result:
    return CliRunner().invoke(app, [*MERGE, *more])


def test_it_says_whose_it_is_and_what_to_send(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(sys, "argv", ["fmlm", *MERGE])
    result = merge()
    assert result.exit_code == 1 and not result.stdout
    what, whose, look = result.stderr.splitlines()
    assert re.fullmatch(
        r"unexpected KeyError: .*half.* \(in fmlm_cli/recipes/tokenize/merging\.py:\d+\)", what
    )
    [log] = broken.iterdir()
    assert whose == f"this is a fault of fmlm's, not yours: please report it with {log}"
    assert "look it over" in look
    assert log.stat().st_mode & 0o777 == 0o600
    text = log.read_text()
    for part in (
        "command: fmlm merge shard --out new",
        f"fmlm {__version__}",
        "torch ",
        "Traceback",
        "merging.py",
    ):
        assert part in text
    assert "hf_secret" not in text
    assert not Path("new").exists()


def test_the_log_may_not_be_to_be_written(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(broken / "nowhere"))
    result = merge()
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1:] == [
        "this is a fault of fmlm's, not yours: please report it with what the same command prints with --debug"
    ]


@pytest.mark.parametrize("more", [[], ["--debug"]])
def test_a_device_that_cannot_be_asked_hides_no_fault(
    broken: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    """As after a fault of the GPU itself, when every call of CUDA fails."""

    def lost() -> str:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr("fmlm_cli.about._device", lost)
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch", object()))
    result = merge(*more)
    told = result.stderr if more else next(broken.iterdir()).read_text()
    assert f"fmlm {__version__}\n" in told and "not known: CUDA error" in told
    assert more or result.stderr.startswith("unexpected KeyError")
    assert isinstance(result.exception, KeyError if more else SystemExit)


def test_debug_shows_versions_and_the_traceback(broken: Path) -> None:
    result = merge("--debug")
    assert isinstance(result.exception, KeyError)  # which Python prints
    assert result.stderr.startswith(f"fmlm {__version__}\nPython ")
    assert not [*broken.iterdir()]


BEFORE = """
import sys
import fmlm_cli.cli.streams
def fail(*_): raise {error}
fmlm_cli.cli.streams.occupy_closed_descriptors = fail
from fmlm_cli.__main__ import main
sys.argv[:] = ["fmlm", *sys.argv[1:]]
main()
"""


def before_a_command(error: str, *words: str, where: Path) -> subprocess.CompletedProcess[str]:
    """`fmlm` as a process of its own in which an exception is raised before any command begins."""
    line = [sys.executable, "-c", BEFORE.format(error=error), *words]
    place = os.environ | {"PYTHONPATH": python_path(), "TMPDIR": str(where)}
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=where, env=place)


def test_before_a_command_begins(tmp_path: Path) -> None:
    done = before_a_command("RuntimeError('odd')", "runs", where=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    [log] = tmp_path.iterdir()
    what, whose, _ = done.stderr.splitlines()
    assert what.startswith("unexpected RuntimeError: odd (in fmlm_cli/")
    assert whose.endswith(str(log)) and "RuntimeError: odd" in log.read_text()
    done = before_a_command("RuntimeError('odd')", "runs", "--debug", where=tmp_path)
    assert done.returncode == 1 and "Traceback" in done.stderr and [*tmp_path.iterdir()] == [log]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (
            ImportError("libx.so: cannot open shared object file", name="torch._C"),
            "the package torch does not load",
        ),
    ],
)
def test_what_is_no_fault_of_the_program(
    broken: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("fmlm_cli.recipes.tokenize.merging.check_together", fail)
    result = merge()
    assert result.exit_code == 2
    assert (
        result.stderr.startswith("error: ") and said in result.stderr and len(result.stderr.splitlines()) == 1
    )
    assert not [*broken.iterdir()]

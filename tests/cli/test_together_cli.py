"""A run by several processes as a user starts it: by --nproc, by torchrun, and how it ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.engine.ranks import launcher
from fmlm_cli.errors import AnotherEndedError
from tests.environment import python_path

WORDS = ("--model", "bert-tiny", "--set", "sequence_length=32", "--set", "data.max_rows=24")
SMALL = (*WORDS, "--set", "batch.size=8", "--set", "batch.micro_size=2", "--set", "evaluation.max_rows=4")


def run(*command: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of its own."""
    return subprocess.run(
        [*map(str, command)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": python_path(), "COLUMNS": "200", **environment},
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final" / "model.safetensors")


@pytest.mark.slow
def test_torchrun_and_nproc_and_one_process_train_the_same_model(tiny_store: Path, tmp_path: Path) -> None:
    def words(out: str) -> list[Any]:
        return ["pretrain", "--data", tiny_store, *SMALL, "--steps", 6, "--out", tmp_path / out]

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    fmlm = [sys.executable, "-m", "fmlm_cli"]
    for command in (
        [*torchrun, "-m", "fmlm_cli", *words("torchrun")],
        [*fmlm, *words("nproc"), "--nproc", 2],
        [*fmlm, *words("alone")],
    ):
        done = run(*command)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\ndone\n") == 1  # one process tells
    wanted = weights(tmp_path / "alone")
    for name in ("torchrun", "nproc"):
        for key, value in weights(tmp_path / name).items():
            torch.testing.assert_close(value, wanted[key], rtol=1e-4, atol=1e-6)


def test_torchrun_is_told_once_what_is_refused(tmp_path: Path) -> None:
    """Before anything of the run is loaded: all end with the code of what was refused."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    done = run(*torchrun, "-m", "fmlm_cli", "masks", tmp_path / "store")
    assert done.returncode != 0
    assert done.stderr.count("error: this command is work for one process, and torchrun has started 2") == 1
    assert "exitcode  : 2" in done.stderr


TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pretrain", "--data", "store", "--steps", "1", "--out", "run", "--nproc", "2"], "leave it out"),
        (
            ["finetune", "--from", "x", "--task", "mrpc", "--out", "y", "--jobs", "2"],
            "--jobs 2: torchrun has",
        ),
        (
            ["finetune", "--from", "x", "--task", "mrpc", "--out", "y", "--cell", "1/2"],
            "--cell 1/2: torchrun",
        ),
        (["tokenize", "text.txt", "--out", "store"], "work for one process"),
        (["evaluate", "--from", "run", "--data", "store"], "work for one process"),
        (["predict", "--from", "run", "a [MASK]"], "work for one process"),
    ],
)
def test_what_does_not_go_together_with_torchrun(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and said in result.stderr and len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_wrong_word_is_told_by_one_process_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    for rank in ("0", "1"):
        for name, value in {**TORCHRUN, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(app, ["pretrain", "--data", "s", "--out", "r", "--set", "seeds=1"])
        assert result.exit_code == 2
        said.append(result.stderr)
    assert "seeds" in said[0] and said[1] == ""


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", ""), ("RANK", "x")])
def test_an_environment_that_is_half_set(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, given in {**TORCHRUN, name: value}.items():
        monkeypatch.setenv(key, given)
    result = CliRunner().invoke(app, ["pretrain", "--data", "s", "--steps", "1", "--out", "r"])
    assert result.exit_code == 2 and name in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_number_of_processes_that_cannot_be() -> None:
    result = CliRunner().invoke(
        app, ["pretrain", "--data", "s", "--steps", "1", "--out", "r", "--nproc", "0"]
    )
    assert result.exit_code == 2 and "--nproc 0: give 1 or more" in result.stderr


# ---------------------------------------------------------------- the launcher alone, with processes that play

CHILD = """
import os, signal, sys, time
rank, how = int(os.environ["RANK"]), sys.argv[2]
assert os.environ["WORLD_SIZE"] == "3" and os.environ["OMP_NUM_THREADS"]
def end(number, frame):
    print(f"stopped by {number}", file=sys.stderr)
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, end)
open(f"{sys.argv[1]}/begun-{rank}", "w").close()
if how == "fine":
    sys.exit(0)
if rank == 1 and how == "fails":
    print("error: the disk is full", file=sys.stderr)
    sys.exit(2)
if rank == 1 and how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if how in ("fails", "killed"):
    time.sleep(0.2)
    sys.exit(2)
time.sleep(60)
"""


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.delenv("OMP_NUM_THREADS")

    def play(how: str) -> None:
        child = [sys.executable, str(tmp_path / "child.py"), str(tmp_path), how]
        monkeypatch.setattr(launcher, "fmlm_command", lambda: child)
        launcher.run_ranks(3, [])

    return play


def test_all_succeed(played: Any) -> None:
    played("fine")


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [("fails", 2, "error: the disk is full"), ("killed", 137, "was ended by SIGKILL")],
)
def test_the_first_that_fails_decides(played: Any, how: str, code: int, said: str) -> None:
    with pytest.raises(AnotherEndedError, match=said) as caught:
        played(how)
    assert caught.value.exit_code == code


def test_a_signal_is_passed_on_to_all(played: Any, tmp_path: Path) -> None:
    def ask() -> None:
        while len(list(tmp_path.glob("begun-*"))) < 3:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(AnotherEndedError, match="stopped by 15") as caught:
        played("waits")
    asking.join()
    assert caught.value.exit_code == 143

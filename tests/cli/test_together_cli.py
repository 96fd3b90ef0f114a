"""A run by several processes as a user starts it: by --nproc, by torchrun, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
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


# Several would time each other.
DRY_RUNS = [
    ["pretrain", "--data", "store", "--steps", "1", "--out", "run", "--dry-run"],
    ["continue", "--from", "x", "--data", "store", "--steps", "1", "--out", "run", "--dry-run"],
    ["finetune", "--from", "x", "--task", "mrpc", "--out", "y", "--dry-run"],
    ["compare-masks", "--data", "store", "--budget", "10-steps", "--out", "y", "--dry-run"],
]


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
        *((words, "work for one process") for words in DRY_RUNS),
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
    """The others wait before they end, by which torchrun would end the one that tells."""
    said, waits = [], list[float]()
    monkeypatch.setattr("fmlm_cli.cli.options.time.sleep", waits.append)
    for rank in ("0", "1"):
        for name, value in {**TORCHRUN, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(app, ["pretrain", "--data", "s", "--out", "r", "--set", "seeds=1"])
        assert result.exit_code == 2
        said.append(result.stderr)
        assert bool(waits) == (rank == "1")
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

"""A run of bert-mini by two processes, as a user starts it, that is killed again and again."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fmlm_cli import storage
from tests.environment import python_path

STEPS, KILLS = 60, 6
TO_END = 30  # seconds for all to end when one is killed
SETTINGS = {
    "sequence_length": 32,
    "batch.size": 8,
    "batch.micro_size": 2,
    "model.dropout": 0.1,
    "logging.every_steps": 1,
    "evaluation.every_steps": 7,
    "evaluation.max_rows": 4,
    "checkpoint.every_steps": 4,
}


def started(store: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
    words = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    budget = ("--model", "bert-mini", "--steps", str(STEPS))
    return subprocess.Popen(
        [sys.executable, "-m", "fmlm_cli", "pretrain", "--data", store, *budget, "--out", out, *words, *more],
        env={**os.environ, "PYTHONPATH": python_path()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def steps_recorded(run: storage.RunDirectory) -> int:
    """The step of the latest training record; 0 before there is one."""
    text = run.metrics.read_text() if run.metrics.is_file() else ""
    return max(map(int, re.findall(r'"step": (\d+), "loss"', text)), default=0)


def processes_of(launcher: int) -> list[int]:
    """The launcher, and the processes that it has started."""
    return [launcher, *map(int, Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split())]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(met: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < until
        time.sleep(0.01)


def kill(store: Path, out: Path, at_step: int, draw: random.Random) -> str:
    """Kill the launcher or one of the two, a moment after a step; all end. What it was, for who reads of it."""
    run = storage.RunDirectory(out)
    with started(store, out, "--nproc", "2", "--resume") as launcher:
        wait_for(lambda: steps_recorded(run) >= at_step and len(processes_of(launcher.pid)) == 3, 240)
        time.sleep(delay := draw.uniform(0, 0.3))
        running = dict(zip(("launcher", "process 0", "process 1"), processes_of(launcher.pid), strict=True))
        victim = draw.choice(list(running))
        os.kill(running[victim], signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: not any(map(is_running, running.values())), TO_END)
        taken = time.monotonic() - killed
        launcher.communicate(timeout=30)
    assert not run.is_finished
    return f"{victim} after step {at_step} and {delay:.3f} s; all had ended {taken:.1f} s later"


@pytest.mark.slow
def test_bert_mini_on_two_processes_killed_six_times_ends_where_it_would_have(
    tiny_store: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The first kill comes at start-up; each of the others some steps further."""
    seed = os.environ.get("PYTEST_KILLS", str(time.time_ns()))
    draw = random.Random(seed)
    kills = [kill(tiny_store, tmp_path / "killed", 8 * number, draw) for number in range(KILLS)]
    print(f"PYTEST_KILLS={seed}:", *kills, sep="\n")
    record_property("kills", kills)
    for out, more in (("killed", ("--nproc", "2", "--resume")), ("whole", ("--nproc", "2"))):
        with started(tiny_store, tmp_path / out, *more) as process:
            said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
    killed, whole = (storage.RunDirectory(tmp_path / out) for out in ("killed", "whole"))
    mine, theirs = (load_file(run.final / "model.safetensors") for run in (killed, whole))
    apart = max(float((mine[name] - theirs[name]).abs().max()) for name in theirs)
    print(f"weights differ by {apart:.1e} at most from the uninterrupted run's")
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-4, atol=1e-6)
    losses, wanted = (
        [
            record["loss"]
            for line in run.metrics.read_text().splitlines()
            if "loss" in (record := json.loads(line))
        ]
        for run in (killed, whole)
    )
    assert len(losses) == STEPS and losses == pytest.approx(wanted, rel=1e-4)

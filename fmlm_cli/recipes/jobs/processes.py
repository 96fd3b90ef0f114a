"""Jobs spread over processes of this machine."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from fmlm_cli.engine import signals
from fmlm_cli.engine.ranks.launcher import fmlm_command
from fmlm_cli.errors import UserError

_LOOK_EVERY = 0.5  # seconds


def spread(words: Sequence[str], jobs: int, logs: Path, look: Callable[[], None]) -> None:
    """Run `fmlm` with these words and `--cell i/jobs` in `jobs` processes, until all have ended.

    Each has its share of the processor's threads, and of the GPUs if there are several; what they say goes to
    `logs`/job-i.log. `look` is called from time to time. If one fails the others are stopped, and its last
    line is raised as a `UserError`; whatever ends this process early, be it SIGKILL, stops them all, and they
    save what they have. They have the time that is left to this process: raises `Interrupted` where it is up.
    """
    minutes = signals.minutes_left()
    limit = [] if minutes is None else ["--max-minutes", f"{minutes:.3f}"]
    logs.mkdir(parents=True, exist_ok=True)
    running: dict[int, subprocess.Popen[bytes]] = {}
    # Nothing is ever written: whatever ends this process closes the pipe, and by that the others end.
    until_closed, held_open = os.pipe()
    try:
        for number in range(jobs):
            with (logs / f"job-{number + 1}.log").open("wb") as log:
                running[number] = subprocess.Popen(
                    [
                        *fmlm_command(),
                        "--until-stdin-closes",
                        *words,
                        *limit,
                        "--cell",
                        f"{number + 1}/{jobs}",
                    ],
                    stdin=until_closed,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **_share(number, jobs)},
                    start_new_session=True,  # Ctrl-C and a closing terminal reach this process alone
                )
        while running:
            time.sleep(_LOOK_EVERY)
            look()
            for number, process in list(running.items()):
                if process.poll() is not None:
                    del running[number]
                    _check(process, logs / f"job-{number + 1}.log")
    finally:
        os.close(until_closed)
        os.close(held_open)
        for process in running.values():
            process.wait()


def _share(number: int, jobs: int) -> dict[str, str]:
    """A process's part of the machine, as variables of the environment."""
    threads = max(1, torch.get_num_threads() // jobs)
    part = {"OMP_NUM_THREADS": str(threads)}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    if len(devices) > 1:
        part["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return part


def _check(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.returncode == 0:
        return
    if process.returncode == signals.TEMPFAIL:
        raise signals.out_of_time("; all processes have saved what they have")
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise UserError(f"a process was ended by {name} ({log}): the same command with --resume goes on")
    lines = log.read_text(encoding="utf-8", errors="replace").strip().split("\n")
    raise UserError(f"{lines[-1].removeprefix('error: ')} (from {log})")

"""A stand-in for Slurm's `srun` on this machine, for tests: tasks with its variables, signals, and exit code.

As `srun` does, it gives every task its rank and the number of tasks, hands on the signals that Slurm sends to
a job's steps, writes what tasks print as they print it, and ends with the highest of their exit codes.
"""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

TASKS = "FAKE_SRUN_TASKS"  # how many, where #SBATCH lines would say so
_HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT)


def install(folder: Path) -> None:
    """Put an `srun` into a folder that is to be on the PATH, and an `scontrol` that notes what it is asked."""
    _script(folder / "srun", f'exec "{sys.executable}" -S "{Path(__file__).resolve()}" "$@"')
    _script(folder / "scontrol", f'echo "$@" >> "{folder}/scontrol.log"')


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def main(words: list[str]) -> int:
    """Run the command in as many tasks as there are to be; the highest exit code."""
    while words and words[0].startswith("-"):
        words.pop(0)
    number = int(os.environ.get(TASKS, "1"))
    common = {
        **os.environ,
        "SLURM_JOB_ID": os.environ.get("SLURM_JOB_ID", str(os.getpid())),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(number),
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": str(number),
        "SLURM_NTASKS": str(number),
        "SLURM_NODEID": "0",
    }
    tasks = [
        subprocess.Popen(words, env={**common, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)})
        for rank in range(number)
    ]
    for handed_on in _HANDED_ON:
        signal.signal(handed_on, lambda number, _: [task.send_signal(number) for task in tasks])
    codes = [task.wait() for task in tasks]
    return max(code if code >= 0 else 128 - code for code in codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

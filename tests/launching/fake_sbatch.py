"""A stand-in for Slurm's `sbatch`: the job is run at once, to its end, pre-empted as often as it is told to be.

As Slurm does, it writes what the job prints to the file that `#SBATCH --output` names, sends a signal to the
job's steps, and runs the script again once the job has asked for that (`scontrol requeue`) or was pre-empted.
`srun` and `scontrol` are the stand-ins of `fake_srun`.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.launching import fake_srun

PREEMPTED = "FAKE_SBATCH_PREEMPTED"  # names of signals, one for each start that is not to come to its end
JOB = 4711
_AT_WORK = re.compile(r"\bstep [\d,]+/")
_PATIENCE = 240  # seconds


def install(folder: Path) -> None:
    """Put `sbatch` beside `srun` and `scontrol`."""
    fake_srun.install(folder)
    script = f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$@"\n'
    (folder / "sbatch").write_text(script)
    (folder / "sbatch").chmod(0o755)


def main(words: list[str]) -> int:
    """Submit and run a script; 0 as soon as it was taken, whatever becomes of the job."""
    script = Path(next(word for word in words if not word.startswith("-")))
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", script.read_text(), flags=re.MULTILINE))
    log = Path(options["output"].replace("%x", options.get("job-name", script.stem)).replace("%j", str(JOB)))
    print(f"Submitted batch job {JOB}")
    requests = script.absolute().parent / "bin" / "scontrol.log"
    for name in [*os.environ.get(PREEMPTED, "").split(), ""]:
        before = requests.read_text() if requests.exists() else ""
        code = _start(script, log, name)
        asked = requests.exists() and requests.read_text() != before
        if code == 0 or not (asked or name == "SIGTERM"):
            break
    return 0


def _start(script: Path, log: Path, name: str) -> int:
    """One start of the job, which a signal ends once it is training, if one has a name; the exit code."""
    begun = log.stat().st_size if log.exists() else 0
    with log.open("a") as output:
        job = subprocess.Popen(
            ["bash", str(script)], stdout=output, stderr=output, env={**os.environ, "SLURM_JOB_ID": str(JOB)}
        )
    until = time.monotonic() + _PATIENCE
    while name and job.poll() is None and time.monotonic() < until:
        if _AT_WORK.search(log.read_text()[begun:]):
            [srun] = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
            os.kill(int(srun), signal.Signals[name])
            break
        time.sleep(0.02)
    return job.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Whether a command's work is done by this process, or by several, and which part of it is this one's."""

import os
import sys

import torch

from fmlm_cli.engine.ranks.launch import read_launch
from fmlm_cli.engine.ranks.launcher import run_ranks
from fmlm_cli.engine.ranks.processes import take_own_gpu
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Note, ignore


def hand_over(processes: int | None, device: str, emit: Emit) -> bool:
    """Have this command done by `processes` that train together, if there are to be several; whether it was.

    None: one for each GPU. Raises `UserError` for a number where torchrun or Slurm have started some already.
    """
    launch = read_launch(os.environ)
    if launch is not None:
        if processes is not None and launch.by != "fmlm":
            raise UserError(
                f"--nproc {processes}: {launch.by} has started {launch.world} processes; leave it out"
            )
        return False
    number = _one_for_each_gpu(device, "--nproc", emit) if processes is None else processes
    if number < 1:
        raise UserError(f"--nproc {number}: give 1 or more")
    if number > 1:
        run_ranks(number, sys.argv[1:])
    return number > 1


def share_out(
    cell: str | None, jobs: int | None, device: str | None, emit: Emit
) -> tuple[str | None, int, Emit]:
    """This process's share "i/n" of a command's jobs, the processes that it is to start, and where it tells.

    Processes that torchrun or Slurm have started together do a share each, on a GPU of their own, and the
    first of them tells. One that is alone does what it is asked to; None for `jobs`: one for each GPU, where
    the jobs are for a `device`.
    """
    launch = read_launch(os.environ)
    if launch is not None:
        if cell is not None or jobs is not None:
            given = f"--cell {cell}" if cell is not None else f"--jobs {jobs}"
            raise UserError(
                f"{given}: {launch.by} has started {launch.world} processes, each of which does a share: "
                "leave it out"
            )
        take_own_gpu(launch)
        return f"{launch.rank + 1}/{launch.world}", 1, ignore if launch.rank else emit
    if jobs is None:
        jobs = 1 if cell is not None or device is None else _one_for_each_gpu(device, "--jobs", emit)
    return cell, jobs, emit


def _one_for_each_gpu(device: str, option: str, emit: Emit) -> int:
    """As many processes as the machine has GPUs, which is said; 1 where there is none, or one is named."""
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 1
    if gpus > 1:
        emit(Note(f"{gpus} processes, one for each GPU; {option} 1 works on one alone"))
    return max(gpus, 1)

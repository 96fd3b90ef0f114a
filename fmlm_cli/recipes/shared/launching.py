"""Whether a run is trained by this process, or by processes of its own."""

import os
import sys

import torch

from fmlm_cli.engine.ranks.launch import read_launch
from fmlm_cli.engine.ranks.launcher import run_ranks
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Note


def hand_over(processes: int | None, device: str, emit: Emit) -> bool:
    """Have this command done by `processes` that train together, if there are to be several; whether it was.

    None: one for each GPU of this machine where there are several and none is named, else this one alone.
    Raises `UserError` for a number where torchrun or Slurm have started some already.
    """
    launch = read_launch(os.environ)
    if launch is not None:
        if processes is not None and launch.by != "fmlm":
            raise UserError(
                f"--nproc {processes}: {launch.by} has started {launch.world} processes; leave it out"
            )
        return False
    number = _one_for_each_gpu(device, emit) if processes is None else processes
    if number < 1:
        raise UserError(f"--nproc {number}: give 1 or more")
    if number > 1:
        run_ranks(number, sys.argv[1:])
    return number > 1


def _one_for_each_gpu(device: str, emit: Emit) -> int:
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 1
    if gpus > 1:
        emit(Note(f"{gpus} processes, one for each GPU; --nproc 1 trains on one alone"))
    return max(gpus, 1)

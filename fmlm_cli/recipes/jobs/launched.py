"""Jobs among processes that torchrun or Slurm has started: each does whole ones, on a GPU of its own."""

import os

import torch

from fmlm_cli.engine.ranks.launch import read_launch
from fmlm_cli.engine.ranks.processes import take_own_gpu
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Note, ignore


def shared_out(
    cell: str | None, jobs: int | None, device: str | None, emit: Emit
) -> tuple[str | None, int, Emit]:
    """This process's share "i/n" of the jobs, the processes that it is to start, and where it tells.

    Processes that were started together do a share each, and the first of them tells. One that is alone does
    what it is asked to; None for `jobs`: as many processes as the machine has GPUs, unless the jobs
    are for another `device`, or for none.
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
    if jobs is None and cell is None and device in ("auto", "cuda") and torch.cuda.device_count() > 1:
        jobs = torch.cuda.device_count()
        emit(Note(f"{jobs} processes, one for each GPU; --jobs 1 works on one alone"))
    return cell, 1 if jobs is None else jobs, emit

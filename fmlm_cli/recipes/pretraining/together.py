"""One run on several processes, and who starts them."""

import os
import sys

import torch

from fmlm_cli.config import PretrainSettings
from fmlm_cli.engine.ranks.launch import read_launch
from fmlm_cli.engine.ranks.launcher import run_ranks
from fmlm_cli.engine.ranks.processes import joined
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Note, ignore
from fmlm_cli.recipes.pretraining.run import pretrain


def pretrain_together(
    settings: PretrainSettings,
    *,
    processes: int | None,
    overwrite: bool,
    resume: bool,
    allow_changes: bool,
    emit: Emit,
) -> None:
    """Train a masked LM by the processes that this one was started with, or by `processes` of its own.

    None: one for each GPU of this machine where there are several and none is named, else this one alone.
    """
    launch = read_launch(os.environ)
    if launch is None:
        number = _one_for_each_gpu(settings.device, emit) if processes is None else processes
        if number < 1:
            raise UserError(f"--nproc {number}: give 1 or more")
        if number > 1:
            run_ranks(number, sys.argv[1:])
            return
    elif processes is not None and launch.by != "fmlm":
        raise UserError(
            f"--nproc {processes}: {launch.by} has started {launch.world} processes; leave it out"
        )
    with joined(launch) as ranks:
        tell = emit if ranks.is_writer else ignore
        pretrain(
            settings,
            overwrite=overwrite,
            resume=resume,
            allow_changes=allow_changes,
            emit=tell,
            ranks=ranks,
        )


def _one_for_each_gpu(device: str, emit: Emit) -> int:
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 1
    if gpus > 1:
        emit(Note(f"{gpus} processes, one for each GPU; --nproc 1 trains on one alone"))
    return max(gpus, 1)

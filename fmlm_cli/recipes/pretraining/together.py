"""One run by all processes that were started together."""

import os

from fmlm_cli.config import PretrainSettings
from fmlm_cli.engine.ranks.launch import read_launch
from fmlm_cli.engine.ranks.processes import joined
from fmlm_cli.events import Emit, ignore
from fmlm_cli.recipes.pretraining.run import pretrain


def pretrain_together(settings: PretrainSettings, *, overwrite: bool, resume: bool, emit: Emit) -> None:
    """Train a masked LM by the processes that this one was started with, one of which tells; or alone."""
    with joined(read_launch(os.environ)) as ranks:
        tell = emit if ranks.is_writer else ignore
        pretrain(settings, overwrite=overwrite, resume=resume, emit=tell, ranks=ranks)

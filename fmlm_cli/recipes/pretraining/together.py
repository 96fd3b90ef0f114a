"""One run by all processes that were started together."""

import os

from fmlm_cli.config import PretrainSettings
from fmlm_cli.engine.ranks.launch import read_launch
from fmlm_cli.engine.ranks.processes import joined
from fmlm_cli.engine.saving.background import is_saving
from fmlm_cli.events import Emit, Note, ignore
from fmlm_cli.recipes.pretraining.run import pretrain


def pretrain_together(
    settings: PretrainSettings, *, overwrite: bool, resume: bool, allow_changes: bool, emit: Emit
) -> None:
    """Train a masked LM by the processes that this one was started with, one of which tells; or alone."""
    with joined(read_launch(os.environ), is_saving, lambda text: emit(Note(text))) as ranks:
        pretrain(
            settings,
            overwrite=overwrite,
            resume=resume,
            allow_changes=allow_changes,
            emit=emit if ranks.is_writer else ignore,
            ranks=ranks,
        )

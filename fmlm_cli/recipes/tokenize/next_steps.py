"""What a store that was made is for, as commands."""

import shlex
from pathlib import Path

from fmlm_cli.events import Emit, NextStep


def tell_what_next(out: Path, emit: Emit, checkpoint: str | None = None) -> None:
    """Name what to look at, and what to plan: a run, or going on with the `checkpoint` of its tokenizer."""
    emit(NextStep("see what it holds", shlex.join(["fmlm", "inspect", str(out)])))
    begin = ["continue", "--from", checkpoint] if checkpoint else ["pretrain"]
    words = [*begin, "--data", str(out), "--masking", "fully-explored"]
    words += ["--budget", "7-epochs", "--out", "run", "--dry-run"]
    emit(NextStep("see how long it would take to train on it", shlex.join(["fmlm", *words])))

"""Collocations of a complete store."""

import shlex
from pathlib import Path

import numpy as np

from fmlm_cli import storage
from fmlm_cli.config import TokenizeSettings
from fmlm_cli.corpus.store.collocations import MIN_COUNT, Mined, mine
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.store.writing import add_collocations
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Facts, NextStep, Note


def with_collocations(root: Path, settings: TokenizeSettings, emit: Emit, *, again: bool = False) -> Path:
    """Mine a complete store's training split, and put the result beside it; `again`: also if it has one."""
    store = TokenStore.open(root, verify=("train",))
    mined_before = store.manifest.get("collocations")
    if mined_before and mined_before["asked"] == settings.pmi_size and not again:
        emit(Note(f"{root} has its collocations: nothing to do"))
        return root
    split = store.split("train")
    if not split.has_word_starts:
        raise UserError(
            f"{root} does not say where words begin: tokenize the text again with `fmlm tokenize`"
        )
    with storage.work_in(root):
        mined = mine(split, store.tokenizer, store.special.never_masked, size=settings.pmi_size, emit=emit)
        if not len(mined.hashes):
            raise UserError(
                f"no collocations in {root}: no two words occur together {MIN_COUNT} times and more often "
                f"than by chance; the text is too short for --pmi, and the store is complete without"
            )
        add_collocations(store, mined, asked=settings.pmi_size)
    _say_what_was_mined(root, mined, emit)
    return root


def _say_what_was_mined(out: Path, mined: Mined, emit: Emit) -> None:
    rows = {}
    for length in np.unique(mined.words).tolist():
        of_length = np.flatnonzero(mined.words == length)
        examples = [
            mined.texts[i]
            for i in of_length[np.linspace(0, len(of_length) - 1, min(5, len(of_length))).astype(int)]
        ]
        rows[f"{length} words"] = f"{len(of_length):,}, from the best to the last: {' | '.join(examples)}"
    rows["cover"] = f"{mined.covered:.0%} of the words"
    if mined.undercount:
        rows["counts"] = f"may be low by {mined.undercount:,} at most"
    emit(Facts(f"{len(mined.hashes):,} collocations", rows))
    words = ["fmlm", "masks", str(out), "--masking", "fully-explored-pmi"]
    emit(NextStep("see what is masked as a whole", shlex.join(words)))

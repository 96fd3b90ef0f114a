"""A few predictions, so that a reader sees what a model knows."""

import re

import numpy as np
import torch

from fmlm_cli.corpus.rows import Rows
from fmlm_cli.corpus.tokenizers import special_tokens
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.evaluation import HeldOut
from fmlm_cli.recipes.resolve import Plan

_AROUND = 9  # tokens of context shown on either side
_WORD = re.compile(r"[A-Za-z]{3,}")


@torch.no_grad()
def sample_predictions(
    model: MaskedLM, plan: Plan, held_out: HeldOut, examples: int = 5, top: int = 3
) -> dict[str, str]:
    """Whole words masked one at a time in held-out rows: their context, and the likeliest `top` tokens.

    The words are not picked by how well they are predicted: one a row, the first whole word from the row's
    middle on, in the first rows that have one.
    """
    tokenizer = plan.store.tokenizer
    mask = special_tokens(tokenizer).mask
    device = next(model.parameters()).device
    model.eval()
    shown: dict[str, str] = {}
    for number in range(len(held_out.reader)):
        rows = held_out.reader.read(np.array([number]))
        at = _whole_word(rows, tokenizer)
        if at is None:
            continue
        ids = torch.from_numpy(rows.input_ids.copy())
        ids[0, at] = mask
        inputs = (torch.from_numpy(rows.position_ids), torch.from_numpy(rows.segments), torch.tensor([at]))
        logits = model(
            ids.to(device), *(part.to(device) for part in inputs), alone=bool(rows.segments.max() <= 1)
        )
        best = logits[0].float().softmax(-1).topk(top)
        guesses = [
            f"{tokenizer.decode([token]).strip()} {p:.0%}"
            for token, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        shown[_context(rows, at, tokenizer)] = ", ".join(guesses)
        if len(shown) == examples:
            break
    return shown


def _whole_word(rows: Rows, tokenizer: object) -> int | None:
    """Column of the first single-token word from the middle of the row on."""
    ids, starts, maskable = rows.input_ids[0], rows.word_starts[0], rows.maskable[0]
    for at in range(len(ids) // 2, len(ids) - 1):
        ends = starts[at + 1] or not maskable[at + 1]
        if maskable[at] and starts[at] and ends and _WORD.fullmatch(tokenizer.decode([int(ids[at])]).strip()):  # type: ignore[attr-defined]
            return at
    return None


def _context(rows: Rows, at: int, tokenizer: object) -> str:
    """The text around a column, within its document, the word itself in brackets."""
    decode = tokenizer.decode  # type: ignore[attr-defined]
    segment = rows.segments[0]
    near = [
        c
        for c in range(max(0, at - _AROUND), min(len(segment), at + _AROUND + 1))
        if segment[c] == segment[at] and rows.maskable[0, c]
    ]
    before = decode([int(rows.input_ids[0, c]) for c in near if c < at]).strip()
    after = decode([int(rows.input_ids[0, c]) for c in near if c > at]).strip()
    return f"... {before} [{decode([int(rows.input_ids[0, at])]).strip()}] {after} ..."

"""A few predictions, so that a reader sees what a model knows."""

import re
from collections.abc import Iterator

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from fmlm_cli.corpus.rows.reading import Rows
from fmlm_cli.events import Prediction
from fmlm_cli.model.layouts import LAYOUTS, on_device
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.shared.held_out import HeldOut

_AROUND = 9  # tokens of context shown on either side
_WORD = re.compile(r"[^\W\d_]{3,}")


@torch.no_grad()
def sample_predictions(
    model: MaskedLM, tokenizer: PreTrainedTokenizerFast, held_out: HeldOut, examples: int = 5, top: int = 3
) -> Iterator[Prediction]:
    """Whole words masked one at a time in held-out rows, with the likeliest `top` tokens.

    The words are not picked by how well they are predicted: one a row, the first whole word from the row's
    middle on, in rows spread evenly over the held-out text.
    """
    mask = held_out.objective.mask_id
    device, lay_out = next(model.parameters()).device, LAYOUTS[model.attention.layout]
    model.eval()
    shown = 0
    for number in _spread(len(held_out.reader), examples):
        rows = held_out.reader.read(np.array([number]))
        at = _whole_word(rows, tokenizer)
        if at is None or shown == examples:
            continue
        shown += 1
        ids = rows.input_ids.copy()
        ids[0, at] = mask
        inputs = lay_out(ids, rows.position_ids, rows.segments, np.array([at]))
        logits = model(**on_device(inputs, device)).logits()
        best = logits[0].float().softmax(-1).topk(top)
        guesses = [
            (_shown(tokenizer, token), probability)
            for token, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        before, word, after = _around(rows, at, tokenizer)
        yield Prediction(before, word, after, guesses)


def _shown(tokenizer: PreTrainedTokenizerFast, token: int) -> str:
    """A token's text, without the blank before it unless that is all of it."""
    text = tokenizer.decode([token])
    return text.strip() or text


def _spread(rows: int, examples: int) -> Iterator[int]:
    """Row numbers: some spread evenly, then all the others, for when those have no whole word."""
    spread = [number * rows // examples for number in range(min(examples, rows))]
    yield from spread
    yield from (number for number in range(rows) if number not in spread)


def _whole_word(rows: Rows, tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Column of the first single-token word from the middle of the row on."""
    ids, maskable = rows.input_ids[0], rows.maskable[0]
    starts = maskable if rows.word_starts is None else rows.word_starts[0]
    for at in range(len(ids) // 2, len(ids) - 1):
        ends = starts[at + 1] or not maskable[at + 1]
        if maskable[at] and starts[at] and ends and _WORD.fullmatch(tokenizer.decode([int(ids[at])]).strip()):
            return at
    return None


def _around(rows: Rows, at: int, tokenizer: PreTrainedTokenizerFast) -> tuple[str, str, str]:
    """The text before a column within its document, the token there, and the text after it: whole words."""
    starts = rows.maskable[0] if rows.word_starts is None else rows.word_starts[0]
    ids, segment = rows.input_ids[0], rows.segments[0]
    near = [
        c for c in range(max(0, at - _AROUND), min(len(ids), at + _AROUND + 1)) if segment[c] == segment[at]
    ]
    text = [c for c in near if rows.maskable[0, c]]
    first = next((c for c in text if starts[c]), at)
    end = text[-1] + 1
    if end < len(ids) and segment[end] == segment[at] and rows.maskable[0, end] and not starts[end]:
        end = max(c for c in text if starts[c])  # a word that goes on beyond
    parts = ([c for c in text if first <= c < at], [at], [c for c in text if at < c < end])
    before, word, after = (tokenizer.decode(ids[part].tolist()).strip() for part in parts)
    return before, word, after

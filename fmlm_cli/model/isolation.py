"""Whether a model keeps packed documents apart, and by which attention backend: tried, not assumed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fmlm_cli.hub import quiet
from fmlm_cli.model.attention import BACKENDS, AttentionBackend
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.model.probes import NOT_TAKEN, Int64s, agree, check_finite, copy_to_try, logits_of, probe_tokens


def choose_backend(
    model: MaskedLM,
    device: torch.device,
    length: int,
    backends: Sequence[type[AttentionBackend]] = BACKENDS,
) -> type[AttentionBackend] | None:
    """The first backend that keeps documents apart in this very model, there; None where none does.

    In rows of `length`, at least 4: some families attend otherwise in longer ones. The model stays as it is.
    """
    supported = (backend for backend in backends if backend.supports(model.pretrained, device))
    tried = (b for b in supported if isolates_documents(model, length, backend=b, device=device))
    return next(tried, None)


@torch.no_grad()
def isolates_documents(
    model: MaskedLM,
    length: int,
    *,
    backend: type[AttentionBackend] | None = None,
    device: torch.device | None = None,
) -> bool:
    """Whether this very model keeps packed documents apart: tried, not assumed.

    A document's logits beside another one must be those of the stock forward on it alone. `length`:
    positions of a row, at least 4; the second document is the longer, so that a sliding window is exercised
    too. `backend`, `device`: try another than the model's own.
    """
    trial = copy_to_try(model).to(device)
    stock = trial if backend in (None, type(model.attention)) else copy_to_try(model).to(device)
    total = min(length, 512)
    first = max(1, total // 4)
    tokens = probe_tokens(trial.pretrained.config, total)
    changed = np.concatenate([tokens[:, :first][:, ::-1], tokens[:, first:]], axis=1)
    second = torch.from_numpy(tokens[:, first:]).to(trial.pretrained.device)
    try:
        with torch.random.fork_rng(devices=[]), quiet():
            if backend is not None:
                trial.attend_by(backend)
            packed = _second_of_two(trial, tokens, first)  # before BigBird sees a shorter row
            alone = stock.pretrained(input_ids=second, attention_mask=torch.ones_like(second)).logits[0]
            beside_another = _second_of_two(trial, changed, first)
    except NOT_TAKEN:
        return False  # the family does not take a mask of this form
    check_finite(alone, trial.pretrained.config)
    return agree(packed, alone) and agree(beside_another, alone)


def _second_of_two(model: MaskedLM, tokens: Int64s, first: int) -> Tensor:
    """Logits [length - first, vocabulary] of a second document in tokens [1, length]."""
    length = tokens.shape[1]
    segments = (np.arange(length) >= first).astype(np.int64)[None] + 1
    positions = np.concatenate([np.arange(first), np.arange(length - first)])[None]
    return logits_of(model, tokens, positions, segments, np.arange(first, length))

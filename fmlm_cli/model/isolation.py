"""Whether a model keeps packed documents apart, and by which attention backend: tried, not assumed."""

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from fmlm_cli.hub import quiet
from fmlm_cli.model.attention import BACKENDS, AttentionBackend, DocumentByDocument
from fmlm_cli.model.build import longest_sequence
from fmlm_cli.model.layouts import SHAPES
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.model.probes import NOT_TAKEN, Int64s, agree, check_finite, copy_to_try, logits_of, probe_tokens

_COARSE = 0.05  # of the logits' spread: what attention in 16 bits may change
_SHORTEST = 4  # positions in which there are two documents, the second of more than two
_LONGEST_TRIAL = 2048  # positions of a flat row: no table of learned positions that is in use is longer


class Attending(Protocol):
    """A Hugging Face model, and by which backend it attends."""

    pretrained: PreTrainedModel
    attention: AttentionBackend

    def attend_by(self, backend: type[AttentionBackend]) -> None:
        """Attend by another one from now on."""
        ...


A = TypeVar("A", bound=Attending)
A_contra = TypeVar("A_contra", bound=Attending, contravariant=True)


class KeepsApart(Protocol[A_contra]):
    """Whether a model keeps what shares a batch apart by a backend, tried on a copy of it.

    `length`: positions of a row, or of the longest sequence.
    """

    def __call__(
        self,
        model: A_contra,
        length: int,
        *,
        backend: type[AttentionBackend],
        device: torch.device | None = None,
    ) -> bool:
        """The model stays as it is."""
        ...


def choose_backend(
    model: MaskedLM,
    device: torch.device,
    length: int,
    backends: Sequence[type[AttentionBackend]] = BACKENDS,
    precision: torch.dtype = torch.float32,
) -> type[AttentionBackend] | None:
    """The first backend that keeps documents apart in this very model, there; None where none does.

    In rows of `length`, or of 4: some families attend otherwise in longer ones. The model stays as it is.
    """
    tried = try_backends(model, device, length, backends, precision, isolates_documents)
    return next((backend for backend, fault in tried if fault is None), None)


def try_backends(
    model: A,
    device: torch.device,
    length: int,
    backends: Sequence[type[AttentionBackend]],
    precision: torch.dtype,
    keeps_apart: KeepsApart[A],
) -> Iterator[tuple[type[AttentionBackend], str | None]]:
    """Each backend in turn, tried when it is asked for, with what is wrong with it; None where nothing is.

    `precision`: of the matrix products of the run that it is for; it is tried in float32 all the same.
    """
    for backend in backends:
        fault = backend.obstacle(model.pretrained, device, precision)
        yield backend, fault or _fault(model, length, backend, device, keeps_apart)


def _fault(
    model: A, length: int, backend: type[AttentionBackend], device: torch.device, keeps_apart: KeepsApart[A]
) -> str | None:
    # Sixteen bits hide what is wrong with positions; the reference goes the same road in 32.
    exact = (DocumentByDocument,) if backend.sixteen_bit else ()
    for tried in (*exact, backend):
        if not keeps_apart(model, length, backend=tried, device=device):
            return f"it does not keep documents apart in this '{model.pretrained.config.model_type}'"
    return None


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
    positions of a row, of 4 where there are fewer; the second document is the longer, so that a sliding
    window is exercised too. `backend`, `device`: try another than the model's own.

    By a backend in 16 bits they must be those beside yet another document, and near the stock forward's.
    """
    trial = copy_to_try(model).to(device)
    stock = trial if backend in (None, type(model.attention)) else copy_to_try(model).to(device)
    total = min(max(length, _SHORTEST), 512)
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
    return as_exactly_as_it_can(type(trial.attention), packed, beside_another, alone)


def as_exactly_as_it_can(
    backend: type[AttentionBackend], beside_one: Tensor, beside_another: Tensor, alone: Tensor
) -> bool:
    """Whether logits are those of the stock forward, `alone`, whatever stands beside, as far as bits go."""
    if backend.sixteen_bit:
        return agree(beside_one, alone, _COARSE) and agree(beside_another, beside_one)
    return agree(beside_one, alone) and agree(beside_another, alone)


def _second_of_two(model: MaskedLM, tokens: Int64s, first: int) -> Tensor:
    """Logits [length - first, vocabulary] of a second document in tokens [1, length].

    A flat row is longer than any table of the model, as it is in a run.
    """
    length = tokens.shape[1]
    segments = (np.arange(length) >= first).astype(np.int64)[None] + 1
    positions = np.concatenate([np.arange(first), np.arange(length - first)])[None]
    beyond = min(longest_sequence(model.pretrained) or 0, _LONGEST_TRIAL) + 1
    return logits_of(model, tokens, positions, segments, np.arange(first, length), SHAPES * beyond)

"""What a model of any family can do is tried on a copy of it, on a short row of tokens, and not assumed."""

import copy
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from fmlm_cli.errors import UserError
from fmlm_cli.hub import quiet
from fmlm_cli.model.attention import AttentionBackend
from fmlm_cli.model.build import USE_ENCODER, longest_sequence
from fmlm_cli.model.layers import layer_lists
from fmlm_cli.model.layouts import LAYOUTS, on_device

Int64s = npt.NDArray[np.int64]

PROBE_TOLERANCE = 5e-5  # of the logits' spread: rounding stays below 1e-5, a leak in a fresh model above 1e-4
PROBE_LENGTH = 8

# What families raise of inputs in a form, or of a head in parts, that they do not take.
NOT_TAKEN = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)


class Head(NamedTuple):
    """What a model's head was seen to do.

    `whole`: it needs all positions, not the masked ones alone. `decoder`: the name of the module that makes
    its logits, where it does so last of all, and the head runs without it; else None. `narrowed_before`: the
    name of a module of the last layer from which on that layer too runs on the masked positions alone; None
    where there is none.
    """

    whole: bool
    decoder: str | None
    narrowed_before: str | None = None


class Probed(nn.Module):
    """What `MaskedLM` is, as far as the probes go that it is made by; called, it gives a `HeadOutput`."""

    pretrained: PreTrainedModel
    attention: AttentionBackend
    head: Head

    def narrow_before(self, name: str) -> None:
        """Have a module of the last layer, and all that runs after it, see the masked positions alone."""
        raise NotImplementedError


T = TypeVar("T", bound=nn.Module)


@contextmanager
def decoder_set_aside(pretrained: PreTrainedModel, head: Head) -> Iterator[nn.Module]:
    """Meanwhile an identity, which is given, stands in the decoder's place, if it is known."""
    stand_in = nn.Identity()
    if head.decoder is None:
        yield stand_in
        return
    parent_name, _, attribute = head.decoder.rpartition(".")
    parent = pretrained.get_submodule(parent_name)
    decoder = getattr(parent, attribute)
    setattr(parent, attribute, stand_in)
    try:
        yield stand_in
    finally:
        setattr(parent, attribute, decoder)


@torch.no_grad()
def probe_head(model: Probed) -> Head:
    """What a model's head does. Its `head` is still Head(whole=False, decoder=None).

    Raises `UserError` where the stock forward already is not that of a masked LM on rows of tokens.
    """
    _refuse_by_configuration(model.pretrained.config)
    trial = copy_to_try(model)
    with torch.random.fork_rng(devices=[]), quiet():
        tokens, stock = _stock_logits(trial.pretrained)
        trial.eval()
        whole = not _gives_stock_logits(trial, tokens, stock)
        trial.head = Head(whole, _name_of_output_embeddings(trial.pretrained))
        if not (_decodes_last(trial, tokens) and _gives_stock_logits(trial, tokens, stock)):
            trial.head = Head(whole, decoder=None)
        head = trial.head
        name = None if whole else _name_after_attention(trial.pretrained)
        if name is not None:
            trial.narrow_before(name)
            narrowed = _gives_stock_logits(trial, tokens, stock)
            head = trial.head if narrowed else head
    return head


def logits_of(
    model: Probed,
    tokens: Int64s,
    positions: Int64s,
    segments: Int64s,
    masked: Int64s,
    room: int | None = None,
) -> Tensor:
    """Logits [masked, vocabulary] of tokens [rows, length], given in the layout of the model's backend.

    `room`: as layouts take it.
    """
    inputs = LAYOUTS[model.attention.layout](tokens, positions, segments, masked, room)
    logits: Tensor = model(**on_device(inputs, model.pretrained.device)).logits()
    return logits


@torch.no_grad()
def copy_to_try(model: T) -> T:
    """A copy to try things with: BigBird changes its attention for good when it sees a short row.

    Where attention begins as no change at all, with output matrices of 0, it could do anything unnoticed:
    those of the copy are not 0.
    """
    model = copy.deepcopy(model).float().eval()
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            parameter.copy_(torch.arange(parameter.numel()).sin().view_as(parameter) / 10)
    return model


def probe_tokens(config: PreTrainedConfig, length: int) -> Int64s:
    """Various tokens, int64[1, length]; none is padding, which RoBERTa does not count as a position."""
    tokens: Int64s = (np.arange(length)[None] * 37 + 5) % (config.vocab_size - 1)
    pad = getattr(config, "pad_token_id", None)
    return tokens if pad is None else tokens + (tokens >= pad)


def check_finite(logits: Tensor, config: PreTrainedConfig) -> None:
    """Refuse a model whose stock forward gives such logits: nothing equals NaN, so nothing could be tried."""
    if not logits.isfinite().all():
        raise UserError(
            f"this '{config.model_type}' gives outputs that are not finite (NaN or infinity): its weights "
            "are damaged or far too large; give another checkpoint"
        )


def agree(logits: Tensor, reference: Tensor, tolerance: float = PROBE_TOLERANCE) -> bool:
    """Whether logits [positions, vocabulary] are the same but for rounding; the reference is finite.

    Measured against what varies from position to position: the head's bias, the same everywhere, may dwarf
    it.
    """
    if logits.shape != reference.shape:
        return False
    spread = (reference - reference.mean(0)).abs().max()
    return bool((logits - reference).abs().max() < tolerance * spread)


def _refuse_by_configuration(config: PreTrainedConfig) -> None:
    family = config.model_type
    if config.is_encoder_decoder:
        raise UserError(
            f"'{family}' is an encoder with a decoder, which masked LM does not train: {USE_ENCODER}"
        )
    text = config.get_text_config()
    if text is not config:
        raise UserError(
            f"'{family}' reads more than text: use its text model on its own, a '{text.model_type}'"
        )


def _stock_logits(pretrained: PreTrainedModel) -> tuple[Int64s, Tensor]:
    """Tokens int64[2, length] and the logits [2 * length, vocabulary] that the stock forward gives of them.

    Raises `UserError` where these are not a masked LM's. Leaves the model in training mode.
    """
    family = pretrained.config.model_type
    length = min(PROBE_LENGTH, longest_sequence(pretrained) or PROBE_LENGTH)
    tokens, half = probe_tokens(pretrained.config, length), length // 2
    changed = np.concatenate([tokens[:, :half], tokens[:, half:][:, ::-1]], axis=1)
    row, other_row = (torch.from_numpy(ids).to(pretrained.device) for ids in (tokens, changed))
    try:
        stock = pretrained(input_ids=row).logits
        other = pretrained(input_ids=other_row).logits
        pretrained.train()(input_ids=row)  # Reformer takes rows of one length only, in training
    except Exception as error:  # whatever a family makes of inputs that it is not meant for
        reason = textwrap.shorten(str(error), 120) or type(error).__name__
        raise UserError(
            f"'{family}' does not train on rows of {length} tokens ({reason}): {USE_ENCODER}"
        ) from error
    if stock.shape != (*row.shape, pretrained.config.vocab_size):
        raise UserError(
            f"'{family}' makes logits {[*stock.shape]} of {length} tokens, not one row a token: {USE_ENCODER}"
        )
    check_finite(stock[0], pretrained.config)
    check_finite(other[0], pretrained.config)
    # Causal; or MRA, whose attention gives zeros where it has no GPU.
    if torch.equal(stock[:, :half], other[:, :half]):
        raise UserError(f"'{family}' does not see the tokens after the one it predicts: {USE_ENCODER}")
    return np.concatenate([tokens, changed]), torch.cat([stock[0], other[0]])


def _gives_stock_logits(model: Probed, tokens: Int64s, stock: Tensor) -> bool:
    """Whether the model, run as its `head` says, gives the stock logits at every third position."""
    rows, length = tokens.shape
    masked = np.arange(0, tokens.size, 3)
    positions = np.tile(np.arange(length), (rows, 1))
    try:
        logits = logits_of(model, tokens, positions, np.ones_like(tokens), masked)
    except NOT_TAKEN:
        return False
    return agree(logits, stock[torch.from_numpy(masked)])


def _name_after_attention(pretrained: PreTrainedModel) -> str | None:
    """The name of what runs in the last layer once its attention is done, in layers of BERT's build."""
    layers = next(iter(layer_lists(pretrained)), None)
    after = getattr(getattr(layers[-1], "attention", None), "output", None) if layers else None
    return next((name for name, module in pretrained.named_modules() if module is after), None)


def _name_of_output_embeddings(pretrained: PreTrainedModel) -> str | None:
    """The name of the module that transformers calls so; some heads have none."""
    try:
        decoder = pretrained.get_output_embeddings()
    except NOT_TAKEN:
        return None
    return next((name for name, module in pretrained.named_modules() if module is decoder), None)


def _decodes_last(model: Probed, tokens: Int64s) -> bool:
    """Whether the head calls its decoder once, and gives what comes out of it, untouched.

    ESM adds a bias to it, which in a fresh model is 0: that the numbers agree would not do.
    """
    received: list[Any] = []
    try:
        with decoder_set_aside(model.pretrained, model.head) as in_its_place:
            handle = in_its_place.register_forward_pre_hook(lambda _, args: received.append(args[0]))
            try:
                output = model.pretrained(
                    input_ids=torch.from_numpy(tokens).to(model.pretrained.device)
                ).logits
            finally:
                handle.remove()
    except NOT_TAKEN:
        return False
    return len(received) == 1 and output is received[0]

"""A Hugging Face masked LM, run so that documents stay apart and the head sees masked positions only."""

import copy
import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fmlm_cli.errors import UserError
from fmlm_cli.hub import quiet
from fmlm_cli.model.build import USE_ENCODER, longest_sequence, position_offset

PROBE_TOLERANCE = 5e-5  # of the logits' spread: rounding stays below 1e-5, a leak in a fresh model above 1e-4
PROBE_LENGTH = 8


class MaskedLM(nn.Module):
    """Wraps a Hugging Face masked LM of any family. It adds no parameters and changes none.

    The head of such a model is whatever runs after its base model. Here the base model's output is reduced to
    the masked positions by a forward hook before the head sees it; so the head runs on a seventh of the
    positions and gives the same logits there as the stock forward.

    `whole_head`: the head does not take that, which is tried when wrapping; then it runs on all positions and the
    masked ones are taken from its logits. At the usual rate that is seven times the work and the memory of the
    largest matrix of a small model. Raises `UserError` for a model that cannot be trained on rows of tokens.
    """

    def __init__(self, pretrained: PreTrainedModel) -> None:
        super().__init__()
        self.pretrained = pretrained
        self._offset = position_offset(pretrained)
        self._accepted = set(inspect.signature(pretrained.forward).parameters)
        self._masked_index: Tensor | None = None
        self._bool_mask = pretrained.config._attn_implementation != "eager"
        pretrained.base_model.register_forward_hook(self._select_masked)
        embeddings = getattr(pretrained.base_model, "embeddings", None)
        if embeddings is not None and "mask" in inspect.signature(embeddings.forward).parameters:
            # DeBERTa multiplies its embeddings by the mask, and its own attention takes a bool one.
            self._bool_mask = True
            embeddings.register_forward_pre_hook(_without_pairwise_mask, with_kwargs=True)
        self.whole_head = False
        self.whole_head = not _head_takes_masked(self)

    def _select_masked(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Hook: hidden states [rows, length, hidden] -> [1, masked, hidden]; some heads want three dimensions."""
        if self._masked_index is not None and not self.whole_head:
            hidden = output.last_hidden_state
            output.last_hidden_state = hidden.flatten(0, 1).index_select(0, self._masked_index)[None]
        return output

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        segments: Tensor | None,
        masked_index: Tensor,
        alone: bool,
    ) -> Tensor:
        """Logits [masked, vocabulary] at `masked_index`, positions counted through the flattened rows.

        `input_ids`, `position_ids`, `segments`: int64[rows, length]; `segments` is 0 for padding, else the
        number of the document within its row. `alone`: no row holds more than one document; then padding is
        all that has to be kept out of attention, and where there is none either, `segments` may be None.
        """
        if segments is None:
            inputs: Mapping[str, Any] = {}
        else:
            inputs = self._plain(segments) if alone else self._isolated(position_ids, segments)
        self._masked_index = masked_index
        try:
            logits: Tensor = self.pretrained(input_ids=input_ids, **inputs).logits
        finally:
            self._masked_index = None
        return logits.flatten(0, 1)[masked_index] if self.whole_head else logits.squeeze(0)

    def _plain(self, segments: Tensor) -> Mapping[str, Any]:
        return {"attention_mask": (segments > 0).long()}

    def _isolated(self, position_ids: Tensor, segments: Tensor) -> Mapping[str, Any]:
        """Attention only within a document, positions restarting in each. Padding attends to padding: no NaN."""
        same = segments[:, None, :, None] == segments[:, None, None, :]
        config = self.pretrained.config
        mask: Any = self._as_expected(same)
        if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
            place = torch.arange(segments.shape[1], device=segments.device)
            near = (place[:, None] - place[None, :]).abs() <= int(config.sliding_window)
            mask = {"full_attention": mask, "sliding_attention": self._as_expected(same & near)}
        inputs = {"attention_mask": mask}
        if "position_ids" in self._accepted:
            inputs["position_ids"] = position_ids + self._offset
        return inputs

    def _as_expected(self, allowed: Tensor) -> Tensor:
        """SDPA takes a bool mask; eager attention adds the mask to its scores."""
        if self._bool_mask:
            return allowed
        dtype = self.pretrained.dtype
        return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


def _without_pairwise_mask(
    module: nn.Module, args: Any, kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Pre-hook of embeddings: keep from them a mask [rows, 1, length, length], which is the attention's.

    Padding's embeddings then are not 0 as in the stock forward; nothing but padding attends to them.
    """
    mask = kwargs.get("mask")
    return args, {**kwargs, "mask": None} if mask is not None and mask.dim() > 2 else kwargs


@torch.no_grad()
def _for_probing(model: MaskedLM) -> MaskedLM:
    """A copy to try things with: BigBird changes its attention for good when it sees a short row.

    Where attention begins as no change at all, with output matrices of 0, it could do anything unnoticed: those of the
    copy are not 0.
    """
    model = copy.deepcopy(model).float().eval()
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            parameter.copy_(torch.arange(parameter.numel()).sin().view_as(parameter) / 10)
    return model


def _probe_tokens(model: MaskedLM, length: int) -> Tensor:
    """A row of various tokens, int64[1, length], none of them padding, which RoBERTa does not count as a position."""
    config = model.pretrained.config
    tokens = (torch.arange(length, device=model.pretrained.device)[None] * 37 + 5) % (config.vocab_size - 1)
    pad = getattr(config, "pad_token_id", None)
    return tokens if pad is None else tokens + (tokens >= pad)


def _agree(got: Tensor, wanted: Tensor) -> bool:
    """Whether logits [positions, vocabulary] are the same but for rounding.

    Measured against what varies from position to position: the head's bias, the same everywhere, may dwarf it.
    """
    spread = (wanted - wanted.mean(0)).abs().max()
    return got.shape == wanted.shape and bool((got - wanted).abs().max() < PROBE_TOLERANCE * spread)


@torch.no_grad()
def _head_takes_masked(model: MaskedLM) -> bool:
    """Whether the head gives the stock logits from the masked positions alone: tried, not assumed.

    Raises `UserError` where the stock forward already is not that of a masked LM on rows of tokens.
    """
    config = model.pretrained.config
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
    model = _for_probing(model)
    length = min(PROBE_LENGTH, longest_sequence(model.pretrained) or PROBE_LENGTH)
    tokens, half = _probe_tokens(model, length), length // 2
    changed = torch.cat([tokens[:, :half], tokens[:, half:].flip(1)], dim=1)
    with torch.random.fork_rng(devices=[]), quiet():
        try:
            stock = model.pretrained(input_ids=tokens).logits
            other = model.pretrained(input_ids=changed).logits
            model.pretrained.train()(input_ids=tokens)  # Reformer takes rows of one length only, in training
        except Exception as error:  # whatever a family makes of inputs that it is not meant for
            reason = textwrap.shorten(str(error), 120) or type(error).__name__
            raise UserError(
                f"'{family}' does not train on rows of {length} tokens ({reason}): {USE_ENCODER}"
            ) from error
        if stock.shape != (*tokens.shape, config.vocab_size):
            raise UserError(
                f"'{family}' makes logits {[*stock.shape]} of {length} tokens, not one row a token: {USE_ENCODER}"
            )
        # Causal; or MRA, whose attention gives zeros where it has no GPU.
        if torch.equal(stock[:, :half], other[:, :half]):
            raise UserError(f"'{family}' does not see the tokens after the one it predicts: {USE_ENCODER}")
        index = torch.arange(half, device=tokens.device) * 2
        try:
            got = model.eval()(tokens, tokens, None, index, alone=True)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError):
            return False
    return _agree(got, stock[0, index])


@torch.no_grad()
def isolates_documents(model: MaskedLM, length: int) -> bool:
    """Whether this very model keeps packed documents apart: tried, not assumed.

    A document's logits beside another one must be those of the stock forward on it alone. `length`: positions
    of a row, at least 4; the second document is the longer, so that a sliding window is exercised too.
    """
    model = _for_probing(model)
    total = min(length, 512)
    first = max(1, total // 4)
    tokens = _probe_tokens(model, total)
    device = tokens.device
    segments = (torch.arange(total, device=device) >= first).long()[None] + 1
    positions = torch.cat([torch.arange(first), torch.arange(total - first)])[None].to(device)
    index = torch.arange(first, total, device=device)
    changed = torch.cat([tokens[:, :first].flip(1), tokens[:, first:]], dim=1)
    try:
        with torch.random.fork_rng(devices=[]), quiet():
            packed = model(tokens, positions, segments, index, alone=False)
            alone = model.pretrained(
                input_ids=tokens[:, first:], attention_mask=torch.ones_like(tokens[:, first:])
            ).logits[0]
            beside_another = model(changed, positions, segments, index, alone=False)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError):
        return False  # the family does not take a mask of this form
    return _agree(packed, alone) and _agree(beside_another, alone)

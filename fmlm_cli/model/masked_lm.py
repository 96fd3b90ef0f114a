"""A Hugging Face masked LM, run so that documents stay apart and the head sees masked positions only."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fmlm_cli.model.build import position_offset

PROBE_TOLERANCE = 5e-5  # of the logits' spread: rounding stays below 1e-5, a leak in a fresh model above 1e-4


class MaskedLM(nn.Module):
    """Wraps a Hugging Face masked LM of any family. It adds no parameters and changes none.

    The head of such a model is whatever runs after its base model. Here the base model's output is reduced to
    the masked positions by a forward hook before the head sees it; so the head runs on a seventh of the
    positions and gives the same logits there as the stock forward.
    """

    def __init__(self, pretrained: PreTrainedModel) -> None:
        super().__init__()
        self.pretrained = pretrained
        self._offset = position_offset(pretrained)
        self._accepted = set(inspect.signature(pretrained.forward).parameters)
        self._masked_index: Tensor | None = None
        pretrained.base_model.register_forward_hook(self._select_masked)

    def _select_masked(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Hook: hidden states [rows, length, hidden] -> [masked, hidden]."""
        if self._masked_index is not None:
            hidden = output.last_hidden_state
            output.last_hidden_state = hidden.flatten(0, 1).index_select(0, self._masked_index)
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
            return self.pretrained(input_ids=input_ids, **inputs).logits
        finally:
            self._masked_index = None

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
        if self.pretrained.config._attn_implementation != "eager":
            return allowed
        dtype = self.pretrained.dtype
        return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


@torch.no_grad()
def isolates_documents(model: MaskedLM, length: int) -> bool:
    """Whether this very model keeps packed documents apart: tried, not assumed.

    A document's logits beside another one must be those of the stock forward on it alone. `length`: positions
    of a row, at least 4; the second document is the longer, so that a sliding window is exercised too.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    total = min(length, 512)
    first = max(1, total // 4)
    tokens = (
        torch.arange(total, device=device)[None] * 37 % max(2, model.pretrained.config.vocab_size - 8) + 5
    )
    tokens %= model.pretrained.config.vocab_size
    tokens[tokens == model.pretrained.config.pad_token_id] -= (
        1  # RoBERTa does not count padding in its positions
    )
    segments = (tokens.new_tensor(range(total)) >= first).long()[None] + 1
    positions = torch.cat([torch.arange(first), torch.arange(total - first)])[None].to(device)
    index = torch.arange(first, total, device=device)
    try:
        packed = model(tokens, positions, segments, index, alone=False)
        alone = model.pretrained(
            input_ids=tokens[:, first:], attention_mask=torch.ones_like(tokens[:, first:])
        )
        changed = tokens.clone()
        changed[:, :first] = changed[:, :first].flip(1)
        beside_another = model(changed, positions, segments, index, alone=False)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return False  # the family does not take a mask of this form
    finally:
        model.train(training)
    # Measured against what varies from position to position: the head's bias, the same everywhere, may dwarf it.
    spread = (alone.logits[0] - alone.logits[0].mean(0)).abs().max()
    difference = torch.maximum((packed - alone.logits[0]).abs().max(), (packed - beside_another).abs().max())
    return bool(difference < PROBE_TOLERANCE * spread)

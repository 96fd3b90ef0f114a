"""Attention with dropout on a CPU: transformers' own draws a number for each of length^2 weights."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from fmlm_cli.model.adapting.dropout import scaled_keep
from fmlm_cli.model.attention.backend import attention_dropout

_REPLACED, _NAME = "sdpa", "fmlm_dropping_by_bits"


def dropping_implementation(pretrained: PreTrainedModel) -> str | None:
    """What transformers calls a function that drops by bits, for a model in training that can use it."""
    drops = pretrained.training and pretrained.device.type == "cpu" and attention_dropout(pretrained.config)
    if not drops or pretrained.config._attn_implementation != _REPLACED:
        return None
    return _NAME


def attend_dropping_by_bits(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, of [rows, heads, length, width] each.

    The result is [rows, length, heads, width].

    `attention_mask`: bool, True where a position is seen, or what is added to the scores.
    """
    plain = options.get("position_bias") is None and not options.get("is_causal", False)
    if not dropout or not plain or query.shape[1] != key.shape[1]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query * scale) @ key.transpose(-2, -1)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1)
    return ((weights * scaled_keep(weights, dropout)) @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, attend_dropping_by_bits)
AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS[_REPLACED])

"""The last layer on the first token alone, for heads that look at nothing else of what it gives."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from fmlm_cli.hub import quiet
from fmlm_cli.model.build import longest_sequence
from fmlm_cli.model.probes import check_finite


def shorten_last_layer(model: PreTrainedModel) -> bool:
    """Let a classifier of BERT's build compute only the first token in its last layer; whether it can.

    Keys and values are those of all tokens, so outputs and gradients stay what they were: this is tried, not
    assumed, and a model that comes to other outputs is left as it is. Saves almost a layer.
    """
    layers = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList) or len(layers) < 2:
        return False
    last = layers[-1]
    before = _probe(model)
    last.forward = _first_token_forward(last)
    try:
        after = _probe(model)
    except (AttributeError, RuntimeError, TypeError, ValueError, LookupError):
        after = None  # a layer that is built otherwise
    if after is not None and all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True)):
        return True
    del last.forward
    return False


def check_outputs(model: PreTrainedModel) -> None:
    """Refuse a classifier that cannot be trained, as its outputs are not finite; some rows are tried."""
    for logits in _probe(model):
        check_finite(logits, model.config)


def _first_token_forward(layer: Any) -> Callable[..., Tensor]:
    """`layer`'s forward [rows, tokens, width] -> [rows, 1, width]."""
    attention = layer.attention

    def forward(
        hidden_states: Tensor, attention_mask: Tensor | None = None, *unused: Any, **named: Any
    ) -> Tensor:
        projections, first = attention.self, hidden_states[:, :1]

        def heads(states: Tensor) -> Tensor:
            return states.unflatten(-1, (-1, projections.attention_head_size)).transpose(1, 2)

        context = F.scaled_dot_product_attention(
            heads(projections.query(first)),
            heads(projections.key(hidden_states)),
            heads(projections.value(hidden_states)),
            attn_mask=None if attention_mask is None else attention_mask[:, :, :1],
            dropout_p=projections.dropout.p if layer.training else 0.0,
        )
        attended = attention.output(context.transpose(1, 2).flatten(-2), first)
        state: Tensor = layer.output(layer.intermediate(attended), attended)
        return state

    return forward


@torch.no_grad()
def _probe(model: PreTrainedModel) -> list[Tensor]:
    """Logits of some rows, without and with padding."""
    config, length = model.config, min(9, longest_sequence(model) or 9)
    skip = max(getattr(config, "pad_token_id", None) or 0, 0) + 1  # no padding among the tokens
    tokens = (skip + torch.arange(3 * length) * 7 % max(1, config.vocab_size - skip)).view(3, length)
    present = torch.ones_like(tokens)
    present[1:, length // 2 :] = 0
    training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[]), quiet():
        logits = [model(input_ids=tokens).logits, model(input_ids=tokens, attention_mask=present).logits]
    model.train(training)
    return logits

"""Layers whose activations are not kept, but computed again in the backward (Chen et al. 2016)."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig

from fmlm_cli.errors import UserError
from fmlm_cli.model.attention import attending_by
from fmlm_cli.model.layers import layer_lists
from fmlm_cli.model.layerwise.calls import Call, wrap_call
from fmlm_cli.model.masked_lm import MaskedLM


def layers_to_recompute(model: MaskedLM) -> list[nn.Module]:
    """The encoder's layers, but for one that ends on masked positions.

    That one keeps little, and by the backward no longer knows which positions they are. Raises `UserError`
    where there are none.
    """
    layers = [layer for alike in layer_lists(model.pretrained) for layer in alike]
    if not layers:
        family = model.pretrained.config.model_type
        raise UserError(f"speed.recompute: the layers of '{family}' cannot be told apart; set it to false")
    layers = [layer for layer in layers if layer is not model.narrowed_layer]
    if not layers:
        raise UserError("speed.recompute: the model has one layer, which is not kept anyway; set it to false")
    return layers


def recompute_layers(model: MaskedLM) -> None:
    """Have these layers keep no more than what they are given, and compute the rest again in the backward.

    Dropout draws the same again. Layers that are to be compiled have to be so before. Names of parameters
    stay, and copies and saved models know nothing of it. (transformers' own gradient checkpointing would
    attend, the second time, by what the configuration names by then, and is inside of what is compiled.)
    """
    for layer in layers_to_recompute(model):
        wrap_call(layer, lambda call: _recomputing(call, model.pretrained.config))


def _recomputing(call: Call, config: PreTrainedConfig) -> Call:
    """A layer's call of which only the inputs are kept."""

    def recomputing(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return call(*inputs, **named)
        implementation = config._attn_implementation  # of this forward

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), attending_by(config, implementation)

        return checkpoint(call, *inputs, use_reentrant=False, context_fn=contexts, **named)

    return recomputing

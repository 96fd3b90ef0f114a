"""More positions for a trained model, so that it can go on with longer rows."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from fmlm_cli.errors import UserError
from fmlm_cli.model.build import empty_model, longest_sequence

_TABLE = "position_embeddings.weight"


def extend_positions(model: PreTrainedModel, positions: int) -> tuple[PreTrainedModel, str]:
    """A model of the same weights with `positions` positions, and a sentence that says what was done to them.

    A table of learned positions is stretched by linear interpolation. ModernBERT's rotary base grows in its
    global layers with (new / old)^(4/3) and stays in its local ones: training at 1,024 with 10,000 and at
    8,192 with 160,000 (Warner et al. 2024, arXiv:2412.13663, "Training Settings") lie on that curve. Raises
    `UserError` for fewer positions than there are, and for families that have neither.
    """
    old = longest_sequence(model)
    family = model.config.model_type
    if old == positions:
        return model, f"{old:,} positions, as before"
    if old is not None and positions < old:
        raise UserError(
            f"max_positions {positions} is below the model's {old}: a sequence_length of {positions} needs "
            "no other model"
        )
    if old is None or not (_tables(model) or family == "modernbert"):
        raise UserError(
            f"max_positions {positions}: '{family}' has no learned positions to stretch; its config.json "
            "says how long it may be"
        )
    config = copy.deepcopy(model.config)
    if family == "modernbert":
        done = _raise_global_base(config, positions / old)
        config.max_position_embeddings = positions
    else:
        done = "the learned positions stretched by linear interpolation"
        config.max_position_embeddings += positions - old
    return _rebuilt(model, config, old, positions), f"{old:,} to {positions:,} positions: {done}"


def _tables(model: PreTrainedModel) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.rpartition(_TABLE)[0].endswith(".")}


def _raise_global_base(config: PreTrainedConfig, factor: float) -> str:
    rope = config.rope_parameters["full_attention"]
    old = float(rope["rope_theta"])
    rope["rope_theta"] = old * factor ** (4 / 3)
    return f"rotary base of the global layers {old:,.0f} to {rope['rope_theta']:,.0f}"


def _rebuilt(model: PreTrainedModel, config: PreTrainedConfig, old: int, positions: int) -> PreTrainedModel:
    """A model built anew from its configuration, so that all its buffers fit, with the weights of `model`."""
    extended = empty_model(model, config)
    weights, fresh = model.state_dict(), extended.state_dict()
    for name in _tables(model):
        weights[name] = stretched(weights[name], len(weights[name]) - old, positions)
    for name, parameter in extended.named_parameters():
        if weights[name].shape != parameter.shape:
            raise UserError(
                f"max_positions {positions}: '{config.model_type}' has other weights that depend on it "
                f"({name})"
            )
    extended.load_state_dict({name: _fitting(weights[name], value) for name, value in fresh.items()})
    return extended.train(model.training)


def _fitting(old: Tensor, new: Tensor) -> Tensor:
    return old if old.shape == new.shape else new  # a buffer of the new length


def stretched(table: Tensor, kept: int, positions: int) -> Tensor:
    """A table of positions [kept + old, width] -> [kept + positions, width]; its two ends stay themselves.

    The first `kept` rows belong to no position: RoBERTa begins to count after its padding id.
    """
    line = table[kept:].T[None].double()  # [1, width, old]
    line = F.interpolate(line, size=positions, mode="linear", align_corners=True)
    return torch.cat([table[:kept], line[0].T.to(table.dtype)])

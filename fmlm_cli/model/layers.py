"""Which parameter lies how deep, and freezing by depth."""

import re
from collections.abc import Iterator, Sequence

from torch import nn
from transformers import PreTrainedModel

from fmlm_cli.errors import UserError, unknown_name

_EMBEDDINGS, _HEAD = "embeddings", "head"


def depths(model: PreTrainedModel) -> dict[str, int]:
    """Depth of every parameter by name: embeddings 0, layer i (from 0) i + 1, the head above all layers.

    What else the base model has, such as a last norm, goes with the last layer; so do all layers of a model
    that shares them (ALBERT).
    """
    base = model.base_model
    lists, number = layer_lists(model), int(model.config.num_hidden_layers)
    depth = {id(p): number for p in base.parameters()} | {id(p): 0 for p in _before_layers(base, lists)}
    for layers in reversed(lists):  # the outermost last: it decides
        depth |= {id(p): i + 1 for i, layer in enumerate(layers) for p in layer.parameters()}
    return {name: depth.get(id(p), number + 1) for name, p in model.named_parameters()}


def layer_lists(model: PreTrainedModel) -> list[nn.ModuleList]:
    """The encoder's layers, outermost first: one list as a rule, several side by side in XLM; none in ALBERT.

    A list inside a layer may happen to be as long.
    """
    number = int(model.config.num_hidden_layers)
    if getattr(model.config, "num_hidden_groups", number) != number:
        return []
    return [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == number]


def _before_layers(base: nn.Module, lists: Sequence[nn.ModuleList]) -> Iterator[nn.Parameter]:
    """Parameters of the embeddings and all else that stands before the layers, such as a projection."""
    ends: set[nn.Module] = set(lists) or set(list(base.children())[1:])
    for child in base.children():
        if not ends.isdisjoint(child.modules()):
            return
        yield from child.parameters()


def head_parameters(model: PreTrainedModel) -> list[str]:
    """Names of the parameters outside the base model; what is tied to the embeddings is not among them."""
    inside = {id(parameter) for parameter in model.base_model.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in inside]


def frozen_parameters(model: PreTrainedModel, parts: Sequence[str]) -> list[str]:
    """Names of the parameters of `parts`: embeddings, head, layers such as 5 or 0-3 (from 0).

    A decoder that is tied to the embeddings is one with them. Raises `UserError` for parts that there are
    not, and where nothing else would be left.
    """
    depth = depths(model) if parts else {}
    to_freeze = {at for part in parts for at in _depths_of(part.strip(), model)}
    frozen = [name for name, at in depth.items() if at in to_freeze]
    if frozen and len(frozen) == len(depth):
        raise UserError(f"model.freeze {', '.join(parts)}: nothing would be left to train")
    return frozen


def freeze(model: PreTrainedModel, parts: Sequence[str]) -> list[str]:
    """Keep `parts` from being trained; the parameters' names. `UserError` as of `frozen_parameters`."""
    frozen, parameters = frozen_parameters(model, parts), dict(model.named_parameters())
    for name in frozen:
        parameters[name].requires_grad_(False)
    return frozen


def _depths_of(part: str, model: PreTrainedModel) -> range:
    number = int(model.config.num_hidden_layers)
    if part == _EMBEDDINGS:
        return range(1)
    if part == _HEAD:
        return range(number + 1, number + 2)
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
    if match is None:
        raise unknown_name("part of a model", part, [_EMBEDDINGS, _HEAD, "layers such as 5 or 0-3"])
    if not layer_lists(model):
        raise UserError(
            f"model.freeze {part}: the layers of '{model.config.model_type}' share their weights, or cannot "
            "be told apart"
        )
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise UserError(f"model.freeze {part}: the range runs backwards; write {last}-{first}")
    if last >= number:
        raise UserError(f"model.freeze {part}: the model has layers 0 to {number - 1}")
    return range(first + 1, last + 2)


def rate_scales(model: nn.Module, pretrained: PreTrainedModel, decay: float) -> dict[str, float]:
    """Factors of the learning rate: `decay` to the power of how far a parameter lies below the head.

    By the names that the parameters have in `model`, which is trained and holds `pretrained`.
    """
    if decay == 1:
        return {}
    parameters, depth = dict(pretrained.named_parameters()), depths(pretrained)
    top = max(depth.values())
    scales = {id(parameters[name]): decay ** (top - at) for name, at in depth.items()}
    return {name: scales[id(p)] for name, p in model.named_parameters()}

"""A plain model made of the parts that several processes hold."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

from fmlm_cli.engine.ranks.sharding import whole

Model = TypeVar("Model", bound=nn.Module)


class WholeCopy(Generic[Model]):
    """What a model was before it was sharded, but for the values of its parameters.

    `model` is not sharded yet.
    """

    def __init__(self, model: Model) -> None:
        # What deepcopy finds in its memo it takes: so this has all of the model but the parameters' memory.
        without_memory = {
            id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
            for p in model.parameters()
        }
        self._structure: Model = copy.deepcopy(model, dict[int, object](without_memory))

    @torch.no_grad()
    def take(self, model: nn.Module, *, keeps: bool) -> Model | None:
        """The model with the values of now, on the CPU; None for who does not keep it.

        Called by all processes, each of which holds one parameter after the other.
        """
        pairs = zip(self._structure.parameters(), model.parameters(), strict=True)
        memo: dict[int, object] = {}
        for room, part in pairs:
            values = whole(part)
            if keeps:
                memo[id(room)] = nn.Parameter(values.to("cpu", copy=True), part.requires_grad)
        if not keeps:
            return None
        for old, buffer in zip(self._structure.buffers(), model.buffers(), strict=True):
            memo[id(old)] = buffer.to("cpu", copy=True)
        return copy.deepcopy(self._structure, memo)

"""What travels between an objective and the engine."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """A part of a step that is forwarded at once.

    `inputs`: what the objective's loss needs, tensors and plain values. `count`: targets predicted. `tokens`:
    positions forwarded, padding not counted. `rows`: which rows these are, for messages.
    """

    inputs: Mapping[str, Any]
    count: int
    tokens: int
    rows: tuple[int, ...]

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        if device.type == "cpu":
            return self

        def move(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return (
                value.pin_memory().to(device, non_blocking=True)
                if device.type == "cuda"
                else value.to(device)
            )

        return replace(self, inputs={name: move(value) for name, value in self.inputs.items()})


class Objective(Protocol):
    """What the engine asks of an objective. Both are sums over the batch's targets, never means."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The summed loss: a scalar with a gradient."""
        ...

    def score(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Summed measures by name, for evaluation."""
        ...

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
        """The same batch with its tensors on `device`; those that are there stay where they are."""
        if device.type == "cpu":
            return self

        pinned = device.type == "cuda"  # from pinned memory it is copied while the CPU goes on

        def move(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.device.type != "cpu":
                return value
            return (value.pin_memory() if pinned else value).to(device, non_blocking=pinned)

        return replace(self, inputs={name: move(value) for name, value in self.inputs.items()})


class Objective(Protocol):
    """What training asks of an objective."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The summed loss over the batch's targets, never a mean: a scalar with a gradient."""
        ...


class ScoringObjective(Protocol):
    """What an evaluation asks of an objective whose measures are sums."""

    def score(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Measures by name, summed over the batch's targets."""
        ...


class PredictingObjective(Protocol):
    """What an evaluation asks of an objective whose measures need all outputs at once."""

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """float32[rows, ...], one entry for each of the batch's rows."""
        ...

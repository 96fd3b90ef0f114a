"""Weights in 16 bits, for computing, beside the float32 ones that are optimized."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class WorkingCopy(Generic[Model]):
    """A copy of a model in bfloat16 that computes in its place: `model`, with the original's weights.

    A step of the optimizer is often smaller than what 16 bits can tell apart. So it is the original's float32
    weights that are optimized, saved and gone on from, and only who computes need know of the copy.
    """

    def __init__(self, original: Model) -> None:
        self._original = original
        self.model: Model = copy.deepcopy(original)
        for parameter in self.model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
        self._pairs = list(zip(self.model.parameters(), original.parameters(), strict=True))

    def catch_up(self) -> Model:
        """Take over the original's weights, what of them is trained, and its mode; the copy's model."""
        with torch.no_grad():
            torch._foreach_copy_([low for low, _ in self._pairs], [weight for _, weight in self._pairs])
        for low, weight in self._pairs:
            low.requires_grad_(weight.requires_grad)
        return self.model.train(self._original.training)

    @torch.no_grad()
    def hand_over_gradients(self) -> None:
        """Add the copy's gradients, in float32, to those of the original."""
        given = [(weight, low.grad) for low, weight in self._pairs if low.grad is not None]
        gradients = [torch.empty_like(weight) for weight, _ in given]
        torch._foreach_copy_(gradients, [low for _, low in given])
        begun = [(w.grad, g) for (w, _), g in zip(given, gradients, strict=True) if w.grad is not None]
        if begun:
            torch._foreach_add_([total for total, _ in begun], [more for _, more in begun])
        for (weight, _), gradient in zip(given, gradients, strict=True):
            if weight.grad is None:
                weight.grad = gradient
        self.model.zero_grad()

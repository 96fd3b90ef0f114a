"""The factor that keeps gradients in the narrow range of float16."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

FIRST, GROWTH, BACKOFF, GROWTH_STEPS = 2.0**16, 2.0, 0.5, 2000  # those of torch.amp.GradScaler
LEAST = 1.0  # a gradient that overflows without being scaled up is not one that a scale can mend


class LossScale:
    """Dynamic loss scaling (Micikevicius et al. 2018, section 3.2), which never waits for the device.

    A step whose scaled gradient overflowed is not taken, and halves the scale; many good ones in a row double
    it. `torch.amp.GradScaler` does the same, but knows of gradients alone: a loss that is not finite itself,
    and one whose gradient overflows at the least scale, are for `optimizer.on_nonfinite`.

    `scale`, `good_steps`: float32 on the device; the good steps are those since the scale was last moved.
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), FIRST, device=device)
        self.good_steps = torch.zeros((), device=device)

    def restore(self, scale: float, good_steps: int) -> None:
        """Go on where another one stood."""
        self.scale.fill_(scale)
        self.good_steps.fill_(good_steps)

    @torch.no_grad()
    def unscale_(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale, in place."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients:
            torch._foreach_mul_(gradients, 1 / self.scale)

    def move(self, loss: Tensor, bad: Tensor) -> Tensor:
        """Take in what came of a step; whether it overflowed, which is the scale's own business: bool.

        `bad`: whether the loss or its gradient's norm is not finite.
        """
        overflowed = bad & loss.isfinite() & (self.scale > LEAST)
        good_steps = torch.where(bad, torch.zeros_like(self.good_steps), self.good_steps + 1)
        grows = good_steps == GROWTH_STEPS
        factor = torch.where(grows, GROWTH, torch.where(overflowed, BACKOFF, 1.0))
        self.scale = torch.clamp(self.scale * factor, min=LEAST)
        self.good_steps = torch.where(grows, torch.zeros_like(good_steps), good_steps)
        return overflowed

    def values(self, overflowed: Tensor) -> Tensor:
        """What the host has to know: float32[3], whether the step overflowed, scale and good steps now."""
        return torch.stack([overflowed.float(), self.scale, self.good_steps])

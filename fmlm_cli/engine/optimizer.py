"""AdamW and the learning rate as a pure function of the step."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `peak`, then a linear or cosine decay to `final_share * peak` at `total_steps`."""

    peak: float
    total_steps: int
    warmup_steps: int
    shape: Literal["linear", "cosine"] = "linear"
    final_share: float = 0.0

    def at(self, step: int) -> float:
        """The learning rate of step number `step`, counted from 1."""
        if step <= self.warmup_steps:
            return self.peak * step / self.warmup_steps
        left = (self.total_steps - step + 1) / (self.total_steps - self.warmup_steps + 1)
        share = left if self.shape == "linear" else 0.5 * (1 - math.cos(math.pi * left))
        return self.peak * (self.final_share + (1 - self.final_share) * share)


def decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: matrices only, so no biases and no norms."""
    return parameter.ndim >= 2 and not name.endswith("bias")


def make_adamw(
    model: nn.Module, *, weight_decay: float, betas: tuple[float, float], epsilon: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019), fused where the device has it."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if decayed(name, p)], "weight_decay": weight_decay},
        {"params": [p for name, p in named if not decayed(name, p)], "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda", "mps") and p.is_floating_point() for _, p in named)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=epsilon, fused=fused)

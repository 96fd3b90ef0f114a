"""AdamW and the learning rate as a pure function of the step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

_HEAD_WARMUP = 0.1  # share of the steps that train a head alone


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `peak`, then a decay to `final_share * peak` at `total_steps`.

    Shapes: linear; cosine; wsd (warm-up, stable, decay; Zhai et al. 2022, Hu et al. 2024), which holds the peak until
    the last `decay_steps` and then decays linearly, so that a run can be gone on with from its stable part.
    Before all that, `head_steps` steps at `head_peak`, with a short warm-up of their own, for a head that is new.
    """

    peak: float
    total_steps: int
    warmup_steps: int
    shape: Literal["linear", "cosine", "wsd"] = "linear"
    final_share: float = 0.0
    decay_steps: int = 0
    head_steps: int = 0
    head_peak: float = 0.0

    def at(self, step: int) -> float:
        """The learning rate of step number `step`, counted from 1."""
        if step <= self.head_steps:
            return self.head_peak * min(1.0, step / max(1, round(self.head_steps * _HEAD_WARMUP)))
        step, total = step - self.head_steps, self.total_steps - self.head_steps
        if step <= self.warmup_steps:
            return self.peak * step / self.warmup_steps
        decay = min(self.decay_steps if self.shape == "wsd" else total, total - self.warmup_steps)
        left = min(1.0, (total - step + 1) / (decay + 1))
        share = 0.5 * (1 - math.cos(math.pi * left)) if self.shape == "cosine" else left
        return self.peak * (self.final_share + (1 - self.final_share) * share)


def decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: matrices only, so no biases and no norms."""
    return parameter.ndim >= 2 and not name.endswith("bias")


def make_adamw(
    model: nn.Module,
    *,
    weight_decay: float,
    betas: tuple[float, float],
    epsilon: float,
    scales: Mapping[str, float] | None = None,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) on what is trained, fused where the device has it.

    `scales`: factors of the learning rate by parameter name, 1 where none is given; a group carries its own as
    `scale`.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        groups.setdefault((decayed(name, parameter), (scales or {}).get(name, 1.0)), []).append(parameter)
    fused = all(p.device.type in ("cpu", "cuda", "mps") and p.is_floating_point() for _, p in named)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": weight_decay if decays else 0.0, "scale": scale}
            for (decays, scale), parameters in groups.items()
        ],
        lr=0.0,
        betas=betas,
        eps=epsilon,
        fused=fused,
    )

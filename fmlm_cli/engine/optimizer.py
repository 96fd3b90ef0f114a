"""The optimizer, its state by parameter name, and the learning rate as a pure function of the step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn

Shape = Literal["linear", "cosine", "wsd"]
_HEAD_WARMUP = 0.1  # share of the steps that train a head alone


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `peak`, then a decay to `final_share * peak` at `total_steps`.

    Shapes: linear; cosine; wsd (warm-up, stable, decay; Zhai et al. 2022, Hu et al. 2024), which holds the
    peak until the last `decay_steps` and then decays linearly, so that a run can be gone on with from its
    stable part. Before all that, `head_steps` steps at `head_peak`, with a short warm-up of their own, for a
    head that is new.
    """

    peak: float
    total_steps: int
    warmup_steps: int
    shape: Shape = "linear"
    final_share: float = 0.0
    decay_steps: int = 0
    head_steps: int = 0
    head_peak: float = 0.0

    @property
    def settled_after(self) -> int:
        """The last step of all warming up."""
        return self.head_steps + self.warmup_steps

    @classmethod
    def of_shares(
        cls,
        total_steps: int,
        *,
        peak: float,
        warmup_share: float,
        shape: Shape,
        final_share: float = 0.0,
        decay_share: float = 0.0,
        head_steps: int = 0,
        head_peak: float = 0.0,
    ) -> "Schedule":
        """The schedule of `total_steps`; shares are of the steps that do not train a head alone."""
        main = total_steps - head_steps
        warmup, decay = round(warmup_share * main), round(decay_share * main)
        return cls(peak, total_steps, warmup, shape, final_share, decay, head_steps, head_peak)

    def at(self, step: int) -> float:
        """The learning rate of step number `step`, counted from 1."""
        if step <= self.head_steps:
            return self.head_peak * min(1.0, step / max(1, round(self.head_steps * _HEAD_WARMUP)))
        step, total = step - self.head_steps, self.total_steps - self.head_steps
        if step <= self.warmup_steps:
            return self.peak * step / self.warmup_steps
        decay = min(self.decay_steps if self.shape == "wsd" else total, total - self.warmup_steps)
        remaining = min(1.0, (total - step + 1) / (decay + 1))
        share = 0.5 * (1 - math.cos(math.pi * remaining)) if self.shape == "cosine" else remaining
        return self.peak * (self.final_share + (1 - self.final_share) * share)


def decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: matrices only, so no biases and no norms."""
    return parameter.ndim >= 2 and not name.endswith("bias")


class OptimizerOptions(Protocol):
    """What of the settings an optimizer is made from."""

    @property
    def weight_decay(self) -> float:
        """Decay of matrices, per step and unit of learning rate."""
        ...

    @property
    def betas(self) -> tuple[float, float]:
        """AdamW's decay rates."""
        ...

    @property
    def epsilon(self) -> float:
        """AdamW's epsilon."""
        ...


def make_optimizer(
    settings: OptimizerOptions, model: nn.Module, scales: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) on what is trained, fused where the device has it.

    `scales`: factors of the learning rate by parameter name, 1 where none is given; a group carries its own
    as `scale`.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert {*(scales or ())} <= {name for name, _ in model.named_parameters()}
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in trained:
        groups.setdefault((decayed(name, parameter), (scales or {}).get(name, 1.0)), []).append(parameter)
    fused = all(p.device.type in ("cpu", "cuda", "mps") and p.is_floating_point() for _, p in trained)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": settings.weight_decay if decays else 0.0, "scale": scale}
            for (decays, scale), parameters in groups.items()
        ],
        lr=0.0,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=fused,
    )


def hold_back(optimizer: torch.optim.Optimizer, bad: torch.Tensor, *, for_good: torch.Tensor) -> bool:
    """Have the optimizer change nothing in its next step if the flag `bad` on its device is set.

    Nor in any after it if `for_good` is. False, and nothing done, where it cannot: then whoever asks has to
    look at the flags.
    """
    # MPS's kernels are given `found_inf` and do not look at it.
    if bad.device.type == "mps" or not all(group.get("fused") for group in optimizer.param_groups):
        return False
    # What is fused leaves weights, moments and counts of steps as they are where this is 1.
    before: torch.Tensor | None = vars(optimizer).get("held_for_good")
    vars(optimizer)["held_for_good"] = held = for_good if before is None else before | for_good
    vars(optimizer)["found_inf"] = (bad | held).float()
    return True


def live_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimizer's state as `<parameter>/<entry>`: its own tensors, which the next step changes."""
    return {
        f"{name}/{entry}": value.detach()
        for name, parameter in model.named_parameters()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimizer's state as `<parameter>/<entry>`, on the CPU."""
    return {name: value.to("cpu").contiguous() for name, value in live_state(model, optimizer).items()}


def load_named_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Give an optimizer the state that `named_state` returned, each entry where the optimizer keeps it."""
    entries: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        name, _, entry = key.rpartition("/")
        entries.setdefault(name, {})[entry] = value
    names = {parameter: name for name, parameter in model.named_parameters()}
    optimized = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        number: entries[names[parameter]]
        for number, parameter in enumerate(optimized)
        if names[parameter] in entries
    }
    # The optimizer's own way of loading knows which entries stay on the CPU, such as AdamW's counts of steps.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

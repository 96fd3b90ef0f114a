"""One optimizer step with the exact loss: the mean over all targets of the whole step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fmlm_cli import keys
from fmlm_cli.engine.batch import Batch, Objective
from fmlm_cli.engine.runtime import autocast
from fmlm_cli.errors import UserError


class DivergedError(UserError):
    """The loss or its gradient is no longer a finite number."""


@dataclass(frozen=True)
class StepResult:
    """Summed loss and number of targets of a step, and its gradient's norm before clipping."""

    loss_sum: float
    count: int
    grad_norm: float


def compute_gradient(
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Batch],
    *,
    device: torch.device,
    precision: torch.dtype,
    reseed: Callable[[int], None] | None = None,
) -> tuple[torch.Tensor, int]:
    """Add the gradient of the step's mean loss to the parameters; the summed loss and the number of targets.

    Each batch adds its summed loss divided by the targets of the *whole* step, so the gradient does not depend
    on how the step was cut into batches. (Averaging the batches' averages, as is usual, weights a target by how
    many others its batch happens to hold.) `reseed(i)` is called before batch i.
    """
    count = sum(batch.count for batch in batches)
    total = torch.zeros((), device=device)
    for number, batch in enumerate(batches):
        if reseed is not None:
            reseed(number)
        with autocast(device, precision):
            loss_sum = objective.loss(model, batch.to(device))
        (loss_sum / max(count, 1)).backward()
        total += loss_sum.detach()
    return total, count


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    batches: Sequence[Batch],
    *,
    step: int,
    seed: int,
    learning_rate: float,
    clip: float | None,
    device: torch.device,
    precision: torch.dtype,
) -> StepResult:
    """Gradient, check, clip, update. Raises `DivergedError` before the update if anything is not finite."""
    optimizer.zero_grad(set_to_none=True)
    total, count = compute_gradient(
        model,
        objective,
        batches,
        device=device,
        precision=precision,
        # Dropout is a function of (seed, step, batch) too: a resumed run needs no generator state.
        reseed=lambda number: _seed_everything(seed, step, number),
    )
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip if clip is not None else float("inf"))
    loss_sum, grad_norm = torch.stack([total, norm.float()]).tolist()
    if not (abs(loss_sum) < float("inf") and grad_norm < float("inf")):
        raise DivergedError(_describe_divergence(step, loss_sum / max(count, 1), grad_norm, batches))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("scale", 1.0)
    optimizer.step()
    return StepResult(loss_sum, count, grad_norm)


def _seed_everything(seed: int, step: int, number: int) -> None:
    torch.manual_seed(int(keys.derive(seed, keys.Stream.DROPOUT, step, number)) >> 1)


def _describe_divergence(step: int, loss: float, grad_norm: float, batches: Sequence[Batch]) -> str:
    rows = [row for batch in batches for row in batch.rows]
    named = ", ".join(map(str, rows[:8])) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
    return (
        f"not finite at step {step}: loss {loss:g}, gradient norm {grad_norm:g}, rows {named}; the step was not taken. "
        f"Lower optimizer.learning_rate or lengthen optimizer.warmup_share"
    )

"""One optimizer step with the exact loss: the mean over all targets of the whole step."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fmlm_cli import keys
from fmlm_cli.engine.batch import Batch, Objective
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.signals import NEVER, StoppedError, StopRequest
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
    runtime: Runtime,
    reseed: Callable[[int], None] | None = None,
    stop: StopRequest = NEVER,
) -> tuple[torch.Tensor, int]:
    """Give parameters without any the gradient of the step's mean loss; its sum and the number of targets.

    `batches` are those of the whole step, of which each process forwards its part. Each batch adds its
    summed loss divided by the targets of the *whole* step, so the gradient does not depend on how the step
    was cut into batches and dealt out. (Averaging the batches' averages, as is usual, weights a target by
    how many others its batch happens to hold.) `reseed(i)` is called before batch i. Raises
    `StoppedError` if a stop is asked for between two batches.
    """
    ranks = runtime.ranks
    own_part = list(ranks.mine(enumerate(batches)))
    count = ranks.sum(sum(batch.count for _, batch in own_part))
    total = torch.zeros((), device=runtime.device)
    for number, batch in own_part:
        if stop.asked:
            break
        if reseed is not None:
            reseed(number)
        with runtime.autocast():
            loss_sum = objective.loss(model, batch.to(runtime.device))
        (loss_sum / max(count, 1)).backward()
        total += loss_sum.detach()
    if ranks.any(stop.asked):
        raise StoppedError
    ranks.sum_gradients(model.parameters())
    return ranks.sum(total), count


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
    runtime: Runtime,
    stop: StopRequest = NEVER,
) -> StepResult:
    """Gradient, check, clip, update.

    Before the update it raises `DivergedError` if anything is not finite, `StoppedError` if a stop is asked
    for.

    `batches`: those of the whole step, whatever part of them is this process's.
    """
    optimizer.zero_grad(set_to_none=True)
    total, count = compute_gradient(
        model,
        objective,
        batches,
        runtime=runtime,
        # Dropout is a function of (seed, step, batch) too: a resumed run needs no generator state.
        reseed=lambda number: _seed_everything(seed, step, number),
        stop=stop,
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
    listed = ", ".join(map(str, rows[:8])) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
    learnt_nothing_yet = step == 1 and not math.isfinite(loss)
    advice = (
        "The weights that it begins with are damaged or far too large"
        if learnt_nothing_yet
        else "Lower optimizer.learning_rate or lengthen optimizer.warmup_share"
    )
    return (
        f"not finite at step {step}: loss {loss:g}, gradient norm {grad_norm:g}, rows {listed}; the step was "
        f"not taken. {advice}"
    )

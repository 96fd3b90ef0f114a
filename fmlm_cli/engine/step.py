"""One optimizer step with the exact loss: the mean over all targets of the whole step."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fmlm_cli import keys
from fmlm_cli.engine.batch import Batch, Objective
from fmlm_cli.engine.device.working_copy import WorkingCopy
from fmlm_cli.engine.optimizer import hold_back
from fmlm_cli.engine.ranks.protocol import Ranks
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


@dataclass(frozen=True)
class StepTaken:
    """A step that the device has been given, and may still be at.

    `values`: float[2] on the device, what `result` takes once it is known. `count`: targets. `tokens`:
    positions forwarded, padding not counted; both of all `ranks`. `rows`: this process's, for messages.
    """

    step: int
    values: Tensor
    count: int
    tokens: int
    rows: tuple[int, ...]
    ranks: Ranks

    def result(self, values: Sequence[float]) -> StepResult:
        """What came of it. Raises `DivergedError` if that is not finite: nothing was changed then."""
        loss_sum, grad_norm = values
        if not (abs(loss_sum) < float("inf") and grad_norm < float("inf")):
            raise DivergedError(_describe_divergence(self, loss_sum / max(self.count, 1), grad_norm))
        return StepResult(loss_sum, self.count, grad_norm)


def compute_gradient(
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Batch],
    *,
    runtime: Runtime,
    reseed: Callable[[int], None] | None = None,
    stop: StopRequest = NEVER,
    working: WorkingCopy[Any] | None = None,
) -> tuple[torch.Tensor, int]:
    """Give parameters without any the gradient of the step's mean loss; its sum and the number of targets.

    `batches` are this process's part of the step's. Each adds its summed loss divided by the targets of the
    *whole* step, so the gradient does not depend on how the step was cut into batches and dealt out.
    (Averaging the batches' averages, as is usual, weights a target by how many others its batch happens to
    hold.) `working`: what computes in the model's place. `reseed(i)` is called before the batch whose place
    in the whole step is i. Raises `StoppedError` if a stop is asked for between two batches.
    """
    ranks, computing = runtime.ranks, working.catch_up() if working else model
    count = ranks.sum(sum(batch.count for batch in batches))
    total = torch.zeros((), device=runtime.device, dtype=runtime.exact)
    for index, batch in enumerate(batches):
        if stop.asked:
            break
        if reseed is not None:
            reseed(ranks.place(index))
        with runtime.autocast():
            loss_sum = objective.loss(computing, batch.to(runtime.device))
        (loss_sum / max(count, 1)).backward()
        if working:
            working.hand_over_gradients()
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
    working: WorkingCopy[Any] | None = None,
) -> StepTaken:
    """Gradient, check, clip, update, none of which waits for the device.

    Where anything is not finite, neither this step nor any after it changes weights or the optimizer's state,
    and `StepTaken.result` says so when the values have arrived. Raises `StoppedError` before the update if a
    stop is asked for; and `DivergedError` where the optimizer cannot be held back by the device alone.

    `batches`: this process's part of the step's.
    """
    optimizer.zero_grad(set_to_none=True)
    total, count = compute_gradient(
        model,
        objective,
        batches,
        runtime=runtime,
        # Dropout is a function of (seed, step, place) too: no generator's state, no number of processes.
        reseed=lambda number: _seed_everything(seed, step, number),
        stop=stop,
        working=working,
    )
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip if clip is not None else float("inf"))
    rows = tuple(row for batch in batches for row in batch.rows)
    values = torch.stack([total, norm.to(total)])
    tokens = runtime.ranks.sum(sum(batch.tokens for batch in batches))
    taken = StepTaken(step, values, count, tokens, rows, runtime.ranks)
    if not hold_back(optimizer, ~values.isfinite().all()):
        taken.result(values.tolist())
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("scale", 1.0)
    optimizer.step()
    return taken


def _seed_everything(seed: int, step: int, number: int) -> None:
    torch.manual_seed(int(keys.derive(seed, keys.Stream.DROPOUT, step, number)) >> 1)


def _describe_divergence(taken: StepTaken, loss: float, grad_norm: float) -> str:
    rows = sorted({row for part in taken.ranks.gather(taken.rows) for row in part})
    listed = ", ".join(map(str, rows[:8])) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
    learnt_nothing_yet = taken.step == 1 and not math.isfinite(loss)
    advice = (
        "The weights that it begins with are damaged or far too large"
        if learnt_nothing_yet
        else "Lower optimizer.learning_rate or lengthen optimizer.warmup_share"
    )
    return (
        f"not finite at step {taken.step}: loss {loss:g}, gradient norm {grad_norm:g}, rows {listed}; the "
        f"step was not taken. {advice}"
    )

"""One optimizer step with the exact loss: the mean over all targets of the whole step."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fmlm_cli import keys
from fmlm_cli.engine.batch import Batch, Objective
from fmlm_cli.engine.device.loss_scale import LossScale
from fmlm_cli.engine.device.working_copy import WorkingCopy
from fmlm_cli.engine.optimizer import hold_back
from fmlm_cli.engine.ranks.protocol import Ranks
from fmlm_cli.engine.ranks.sharding import own_part
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.signals import NEVER, StoppedError, StopRequest
from fmlm_cli.errors import UserError

OnNonfinite = Literal["stop", "skip"]


class DivergedError(UserError):
    """The loss or its gradient is no longer a finite number."""


@dataclass(frozen=True)
class StepResult:
    """Summed loss and number of targets of a step, and its gradient's norm before clipping.

    `outcome`: taken; or not, and nothing changed: skipped, as not finite, or overflowed, as the scaled
    gradient was too large for 16 bits. `scale`, `good_steps`: of the `LossScale` after it; 0 without one.
    """

    loss_sum: float
    count: int
    grad_norm: float
    outcome: Literal["taken", "skipped", "overflowed"] = "taken"
    scale: float = 0.0
    good_steps: int = 0

    @property
    def loss(self) -> float:
        """The mean over the step's targets."""
        return self.loss_sum / max(self.count, 1)


@dataclass(frozen=True)
class StepTaken:
    """A step that the device has been given, and may still be at.

    `values`: float[2] on the device, or [5] with a `LossScale`, what `result` takes once it is known.
    `count`: targets. `tokens`: positions forwarded, padding not counted; both of all `ranks`. `rows`: this
    process's.
    """

    step: int
    values: Tensor
    count: int
    tokens: int
    rows: tuple[int, ...]
    ranks: Ranks
    on_nonfinite: OnNonfinite = "stop"

    def result(self, values: Sequence[float]) -> StepResult:
        """What came of it. Raises `DivergedError` if that is not finite and is to stop the run."""
        loss_sum, grad_norm, *scaling = values
        overflowed, scale, good_steps = scaling or (0.0, 0.0, 0.0)
        result = StepResult(loss_sum, self.count, grad_norm, "taken", scale, int(good_steps))
        if math.isfinite(loss_sum) and math.isfinite(grad_norm):
            return result
        if overflowed:
            return replace(result, outcome="overflowed")
        if self.on_nonfinite == "skip":
            return replace(result, outcome="skipped")
        raise DivergedError(f"{self.describe(result)}; the step was not taken. {self._advice(result)}")

    def describe(self, result: StepResult) -> str:
        """A step that is not finite, in words."""
        return (
            f"not finite at step {self.step}: loss {result.loss:g}, gradient norm {result.grad_norm:g}, "
            f"rows {self.rows_listed}"
        )

    @property
    def all_rows(self) -> list[int]:
        """The rows of all processes, which all of them ask for or none."""
        return sorted({row for part in self.ranks.gather(self.rows) for row in part})

    @property
    def rows_listed(self) -> str:
        """The first of all rows, for messages."""
        rows = self.all_rows
        return ", ".join(map(str, rows[:8])) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")

    def _advice(self, result: StepResult) -> str:
        if self.step == 1 and not math.isfinite(result.loss_sum):
            return "The weights that it begins with are damaged or far too large"
        return "Lower optimizer.learning_rate or lengthen optimizer.warmup_share"


def compute_gradient(
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Batch],
    *,
    runtime: Runtime,
    reseed: Callable[[int], None] | None = None,
    stop: StopRequest = NEVER,
    working: WorkingCopy[Any] | None = None,
    scale: LossScale | None = None,
) -> tuple[torch.Tensor, int, int]:
    """Give parameters without any the gradient of the step's mean loss; its sum, targets and tokens.

    `batches` are this process's part of the step's. Each adds its summed loss divided by the targets of the
    *whole* step, so the gradient does not depend on how the step was cut into batches and dealt out.
    (Averaging the batches' averages, as is usual, weights a target by how many others its batch happens to
    hold.) `working`: what computes in the model's place. With a `scale` the gradient is times as large, until
    it is unscaled. `reseed(i)` is called before the batch whose place in the whole step is i. Raises
    `StoppedError` if a stop is asked for before the first batch, or between two.
    """
    ranks, computing = runtime.ranks, working.catch_up() if working else model
    own = (sum(batch.count for batch in batches), sum(batch.tokens for batch in batches), int(stop.asked))
    count, tokens, asked = ranks.sum(torch.tensor(own)).tolist()  # in one: each is a round trip
    if asked:
        raise StoppedError
    total = torch.zeros((), device=runtime.device, dtype=runtime.exact)
    for index, batch in enumerate(batches):
        if runtime.leaves(stop.asked):
            break
        if reseed is not None:
            reseed(ranks.place(index))
        with runtime.autocast():
            loss_sum = objective.loss(computing, batch.to(runtime.device))
        mean = loss_sum / max(count, 1)
        (mean if scale is None else mean * scale.scale).backward()
        if working:
            working.hand_over_gradients()
        total += loss_sum.detach()
    if ranks.any(stop.asked):
        raise StoppedError
    if not runtime.shard:  # then each backward has summed them
        ranks.sum_gradients(model.parameters())
    return ranks.sum(total), count, tokens


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
    scale: LossScale | None = None,
    on_nonfinite: OnNonfinite = "stop",
) -> StepTaken:
    """Gradient, check, clip, update, none of which waits for the device.

    Where anything is not finite the step changes neither weights nor the optimizer's state, and if that is to
    stop the run none after it does; `StepTaken.result` says so when the values have arrived. Raises
    `StoppedError` before the update if a stop is asked for; and `DivergedError` where the optimizer cannot be
    held back by the device alone.

    `batches`: this process's part of the step's. `scale`: for float16.
    """
    optimizer.zero_grad(set_to_none=True)
    total, count, tokens = compute_gradient(
        model,
        objective,
        batches,
        runtime=runtime,
        # Dropout is a function of (seed, step, place) too: no generator's state, no number of processes.
        reseed=lambda number: _seed_everything(seed, step, number),
        stop=stop,
        working=working,
        scale=scale,
    )
    if scale is not None:
        scale.unscale_(model.parameters())
    norm = _clip(model, clip if clip is not None else math.inf, runtime)
    rows = tuple(row for batch in batches for row in batch.rows)
    values = torch.stack([total, norm.to(total)])
    bad = ~values.isfinite().all()
    fatal = bad if on_nonfinite == "stop" else torch.zeros_like(bad)
    if scale is not None:
        overflowed = scale.move(total, bad)
        values, fatal = torch.cat([values, scale.values(overflowed)]), fatal & ~overflowed
    taken = StepTaken(step, values, count, tokens, rows, runtime.ranks, on_nonfinite)
    held_back = hold_back(optimizer, bad, for_good=fatal)
    if not held_back and taken.result(values.tolist()).outcome != "taken":
        return taken
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("scale", 1.0)
    optimizer.step()
    return taken


def _clip(model: nn.Module, most: float, runtime: Runtime) -> torch.Tensor:
    """Scale the gradient down where its norm is more than `most`; the norm before, of the whole of it."""
    norm = nn.utils.get_total_norm([own_part(p.grad) for p in model.parameters() if p.grad is not None])
    if runtime.shard:
        norm = runtime.ranks.sum(norm.to(runtime.exact).square()).sqrt().to(norm)
    nn.utils.clip_grads_with_norm_(model.parameters(), most, norm)
    return norm


def _seed_everything(seed: int, step: int, number: int) -> None:
    torch.manual_seed(int(keys.derive(seed, keys.Stream.DROPOUT, step, number)) >> 1)

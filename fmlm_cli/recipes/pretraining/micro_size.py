"""How many rows of a step are forwarded at once, where the settings leave that open.

On a CPU it is a function of the settings; on a GPU what fills it, tried on it, as far as its memory allows.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.step import compute_gradient
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Note, ignore
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan

POSITIONS_ON_CPU = 4096  # more do not make it faster, and take more memory
POSITIONS_ON_GPU = 65_536  # as much as even the largest GPU needs to be busy
_USABLE = 0.9  # share of a GPU's memory: other shapes and fragments want some
_BYTES_OF_PARAMETER = 16  # itself, its gradient, and AdamW's two moments
_COPIES = 1.5  # of what linear layers take and give: norms, activations and residuals are kept too


def with_micro_size(plan: RunPlan, runtime: Runtime, emit: Emit) -> RunPlan:
    """The plan with its `batch.micro_size` decided, the same on all processes, each of which has some to do.

    Raises `UserError` if not even one row fits.
    """
    settings, ranks = plan.settings, runtime.ranks
    if settings.batch.micro_size != "auto":
        _tell_of_idle(plan, ranks.world, emit)
        return plan
    size, length = math.ceil((settings.batch.size or 1) / ranks.world), settings.sequence_length or 1
    if runtime.device.type == "cuda":
        micro = _tried_on(plan, runtime.alone, size, length, emit)
    else:
        micro = min(size, max(1, POSITIONS_ON_CPU // length))
    return _decided(plan, min(ranks.gather(micro)))  # a GPU may have less memory than the others


def _tell_of_idle(plan: RunPlan, world: int, emit: Emit) -> None:
    """Say so where a step has fewer micro-batches than there are processes, as after a move to more."""
    size = plan.settings.batch.size or 1
    parts = math.ceil(size / plan.micro_size)
    if parts < world:
        emit(
            Caution(
                f"a step of {size} rows in micro-batches of {plan.micro_size} is work for {parts} of {world} "
                f"processes: set batch.micro_size={math.ceil(size / world)} (by which dropout's draws change)"
            )
        )


def _tried_on(plan: RunPlan, runtime: Runtime, size: int, length: int, emit: Emit) -> int:
    """What fits a GPU, by trying; said where anything did not."""
    too_many: list[int] = []

    def fits(rows: int) -> bool:
        fit = _fits(plan, runtime, rows)
        if not fit:
            too_many.append(rows)
        return fit

    most = min(POSITIONS_ON_GPU, _positions_by_estimate(plan.model, runtime))
    micro = largest_that_fits(size, max(1, most // length), fits)
    if micro is None and plan.settings.speed.shard:
        raise UserError(
            f"batch.micro_size auto is tried by a model that is whole, which does not fit the memory of "
            f"{runtime.device}: set it to a number, as 1 to begin with"
        )
    if micro is None:
        raise UserError(
            f"not even one row of {length} positions fits the memory of {runtime.device}: take a smaller "
            "model or sequence_length"
        )
    if too_many:
        emit(Note(f"micro_size {micro}: {too_many[0]} rows at once did not fit {runtime.device}"))
    return micro


def _decided(plan: RunPlan, micro: int, **more: Any) -> RunPlan:
    chosen = nested({"batch.micro_size": micro, **more})
    return replace(plan, settings=build(PretrainSettings, plan.settings.model_dump(), chosen))


def largest_that_fits(size: int, most: int, fits: Callable[[int], bool]) -> int | None:
    """Rows of each of the fewest equal parts of a step of `size` rows, where a part has at most `most`.

    Where a part does not fit there are twice as many; None if not even a row does.
    """
    parts = math.ceil(size / most)
    while not fits(micro := math.ceil(size / parts)):
        if micro == 1:
            return None
        parts = min(2 * parts, size)
    return micro


def _positions_by_estimate(model: nn.Module, runtime: Runtime) -> int:
    """Positions whose activations the device's memory is likely to hold, from what its linear layers keep.

    Only where to begin: too many are found out by trying, too few cost hardly any speed.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    kept = sum(layer.in_features + layer.out_features for layer in layers)
    each = _COPIES * kept * runtime.precision.itemsize
    free, total = torch.cuda.mem_get_info(runtime.device)
    standing = _BYTES_OF_PARAMETER * sum(p.numel() for p in model.parameters())
    return max(1, int((free - standing - (1 - _USABLE) * total) / max(each, 1)))


def _fits(plan: RunPlan, runtime: Runtime, micro: int) -> bool:
    """Whether a step of so many rows at once fits the memory of a GPU; what it took is given back."""
    fit = _try(plan, runtime, micro)
    plan.model.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    return fit


def _try(plan: RunPlan, runtime: Runtime, micro: int) -> bool:
    """Forward and backward beside what the optimizer will keep."""
    # Not compiled, which takes a minute and is nothing to try: what is compiled needs no more memory.
    tried = _decided(plan, micro, **{"speed.compile": False})
    live = LiveRun(tried, storage.RunDirectory(Path("unused")), runtime, ignore)
    batch = max(live.prepare(1), key=_positions)
    trained = [p for p in live.model.parameters() if p.requires_grad]
    torch.cuda.reset_peak_memory_stats(runtime.device)
    try:
        _moments = [torch.empty_like(p) for p in trained for _ in range(2)]
        compute_gradient(live.model.train(), live.objective, [batch], runtime=runtime, working=live.working)
        torch.cuda.synchronize(runtime.device)
    except torch.OutOfMemoryError:
        return False
    usable = _USABLE * torch.cuda.mem_get_info(runtime.device)[1]
    return torch.cuda.max_memory_allocated(runtime.device) < usable


def _positions(batch: Batch) -> int:
    """Positions that a batch takes, padding counted."""
    positions: int = batch.inputs["input_ids"].numel()
    return positions

"""Evaluation: an objective's measures summed over batches, or its outputs for all rows."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fmlm_cli.engine.batch import Batch, PredictingObjective, ScoringObjective
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.signals import NEVER, StoppedError, StopRequest


@torch.no_grad()
def evaluate(
    model: nn.Module,
    objective: ScoringObjective,
    batches: Iterable[Batch],
    runtime: Runtime,
    stop: StopRequest = NEVER,
) -> tuple[dict[str, Tensor], int]:
    """The objective's measures, each summed in float64 over `batches` (its own shapes), and the targets.

    Sums stay on the device until all is done, so nothing waits for a batch. Raises `StoppedError` if a stop
    is asked for between two batches.
    """
    training = model.training
    model.eval()
    sums: dict[str, Tensor] = {}
    count = 0
    for batch in _until_asked(stop, batches, runtime):
        with runtime.autocast():
            scores = objective.score(model, batch.to(runtime.device))
        _add(sums, {name: value.to(runtime.exact) for name, value in scores.items()})
        count += batch.count
    model.train(training)
    (first, *others) = runtime.ranks.gather({name: value.cpu().double() for name, value in sums.items()})
    for part in others:
        _add(first, part)
    return first, runtime.ranks.sum(count)


def _until_asked(stop: StopRequest, batches: Iterable[Batch], runtime: Runtime) -> Iterator[Batch]:
    """This process's batches. Raises `StoppedError` in all processes if one of them is asked to stop."""
    for batch in runtime.ranks.mine(batches):
        if runtime.leaves(stop.asked):
            break
        yield batch
    if runtime.ranks.any(stop.asked):
        raise StoppedError


def _add(sums: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value


@torch.no_grad()
def outputs_of(
    model: nn.Module,
    objective: PredictingObjective,
    batches: Iterable[Batch],
    runtime: Runtime,
    stop: StopRequest = NEVER,
) -> npt.NDArray[np.float32]:
    """The objective's outputs float32[rows, ...], in the order of the rows' numbers, each occurring once.

    They too stay on the device until all is done. Raises `StoppedError` if a stop is asked for between two
    batches.
    """
    training = model.training
    model.eval()
    outputs: list[Tensor] = []
    rows: list[int] = []
    for batch in _until_asked(stop, batches, runtime):
        with runtime.autocast():
            outputs.append(objective.outputs(model, batch.to(runtime.device)))
        rows += batch.rows
    model.train(training)
    # None: a process may have had nothing to do.
    own_part = (torch.cat(outputs).cpu().numpy(), rows) if rows else None
    parts = [part for part in runtime.ranks.gather(own_part) if part is not None]
    numbers = [row for _, numbers in parts for row in numbers]
    return np.concatenate([values for values, _ in parts])[np.argsort(numbers)]

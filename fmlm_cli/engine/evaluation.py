"""Evaluation: the sums of an objective's measures over batches, divided once."""

from collections.abc import Iterable

import torch
from torch import nn

from fmlm_cli.engine.batch import Batch, Objective
from fmlm_cli.engine.device import autocast


@torch.no_grad()
def evaluate(
    model: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    precision: torch.dtype,
) -> dict[str, float]:
    """Means of the objective's measures over all targets of `batches`. NaN where there is no target."""
    training = model.training
    model.eval()
    sums: dict[str, torch.Tensor] = {}
    count = 0
    for batch in batches:
        with autocast(device, precision):
            scores = objective.score(model, batch.to(device))
        for name, value in scores.items():
            sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + value.cpu().double()
        count += batch.count
    model.train(training)
    return {name: float(value) / count if count else float("nan") for name, value in sums.items()}

"""Evaluation: an objective's measures, summed over batches."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

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
) -> tuple[dict[str, Tensor], int]:
    """The objective's measures, each summed in float64 over `batches` (shapes are the objective's), and the targets."""
    training = model.training
    model.eval()
    sums: dict[str, Tensor] = {}
    count = 0
    for batch in batches:
        with autocast(device, precision):
            scores = objective.score(model, batch.to(device))
        for name, value in scores.items():
            added = value.cpu().double()  # MPS has no float64
            sums[name] = sums[name] + added if name in sums else added
        count += batch.count
    model.train(training)
    return sums, count

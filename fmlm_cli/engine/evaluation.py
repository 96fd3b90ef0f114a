"""Evaluation: an objective's measures summed over batches, or its outputs for all rows."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fmlm_cli.engine.batch import Batch, PredictingObjective, ScoringObjective
from fmlm_cli.engine.runtime import autocast


@torch.no_grad()
def evaluate(
    model: nn.Module,
    objective: ScoringObjective,
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


@torch.no_grad()
def predict(
    model: nn.Module,
    objective: PredictingObjective,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    precision: torch.dtype,
) -> npt.NDArray[np.float32]:
    """The objective's outputs float32[rows, ...], in the order of the rows' numbers, of which each occurs once."""
    training = model.training
    model.eval()
    outputs: list[Tensor] = []
    rows: list[int] = []
    for batch in batches:
        with autocast(device, precision):
            outputs.append(objective.outputs(model, batch.to(device)))
        rows += batch.rows
    model.train(training)
    return torch.cat(outputs).cpu().numpy()[np.argsort(rows)]

"""What a gradient of a single row takes, by some of them."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn

from fmlm_cli.analysis.gradient_noise.measuring import Draw, Gradients, measure
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.masking import Corruption
from fmlm_cli.recipes.comparison.gradients import (
    UNITS,
    UnitName,
    VarianceRequest,
    choose_rows,
    row_gradients,
    sketch_of,
)


def time_gradients(
    model: nn.Module,
    reader: RowReader,
    store: TokenStore,
    *,
    unit: UnitName,
    segments: int,
    corruption: Corruption,
    request: VarianceRequest,
    seed: int,
    device: torch.device,
    seconds: float,
) -> float:
    """Seconds of a gradient of `measure_gradient_variance`, by those that fit in `seconds`, and one more.

    As there, but the mean gradient is one of the first row's.
    """
    rows = choose_rows(reader, segments, request, seed=seed).rows
    typical, taken = rows.take(np.arange(min(1, len(rows.numbers)))), _Taken(seconds)
    with (
        row_gradients(
            model, rows, typical, store, UNITS[unit], segments, corruption, request, seed, device
        ) as gradients,
        suppress(_EnoughError),
    ):
        numbers, plan = rows.numbers.tolist(), request.plan(segments)
        measure(taken.those_of(gradients), numbers, plan, sketch=sketch_of(request, seed))
    return taken.seconds_each


class _EnoughError(Exception):
    """Enough gradients were timed."""


class _Taken:
    """When each gradient had been taken up by whoever asked for it; after so many seconds it is enough."""

    def __init__(self, seconds: float) -> None:
        self._times = [time.perf_counter()]
        self._end = self._times[0] + seconds

    def those_of(self, gradients: Gradients) -> Gradients:
        """The same gradients, watched."""

        def watched(sequence: int, draws: Sequence[Draw]) -> Iterator[Tensor]:
            for gradient in gradients(sequence, draws):
                yield gradient
                self._times.append(time.perf_counter())
                if len(self._times) > 2 and self._times[-1] > self._end:
                    raise _EnoughError

        return watched

    @property
    def seconds_each(self) -> float:
        """On average, but for the first one."""
        first = min(1, len(self._times) - 1)
        return (self._times[-1] - self._times[first]) / max(len(self._times) - 1 - first, 1)

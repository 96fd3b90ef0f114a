"""What steps and forwards of a checkpoint's models take, by some of each size."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls

from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.evaluation import outputs_of
from fmlm_cli.events import Emit
from fmlm_cli.recipes.finetuning.cells import CellRun
from fmlm_cli.recipes.finetuning.estimating.samples import Floats, MakeBatches, shape_of
from fmlm_cli.recipes.shared.estimates.timing import BETWEEN_LOOKS, time_training

SIZES = 8  # of steps that are timed, spread over those that there are


@dataclass(frozen=True)
class Costs:
    """What a checkpoint's models take.

    `step`, `forward`: float64[4], seconds by `shape_of`. `starting`: seconds before the first step of a cell.
    `memory`: bytes at most. `watts`: of a GPU.
    """

    step: Floats
    forward: Floats
    starting: float
    memory: int
    watts: float | None

    def seconds_of_steps(self, shapes: Floats) -> float:
        """A step's on average, over float64[steps, 4]."""
        return float((shapes @ self.step).mean())

    def seconds_of_forwards(self, shapes: Floats) -> float:
        """All of them together, float64[batches, 4]."""
        return float((shapes @ self.forward).sum())


def probe(
    run: CellRun,
    steps: Sequence[MakeBatches],
    forwards: Sequence[MakeBatches],
    making: float,
    emit: Emit,
    *,
    number: int,
    seconds: float,
) -> Costs:
    """Time steps and forwards of a cell's model, the widest ones first, by which memory is known.

    `steps`, `forwards`: those that there are, of all tasks. `making`: seconds that the model took. `number`,
    `seconds`: of what is timed, at most.
    """
    chosen = _spread(steps)
    order = [chosen[-1], *_far_apart(chosen)]  # the first of all warms up, beside the next one
    training = replace(run.training_run("a dry run"), prepare=lambda step: order[(step - 1) % len(order)])
    times = time_training(training, emit, steps=number, seconds=seconds)
    shapes = np.array([shape_of(order[place % len(order)]) for place in range(len(times.seconds))])
    together = BETWEEN_LOOKS if run.runtime.device.type == "cuda" else 1
    step = _fitted(*_in_groups(shapes, np.array(times.seconds), times.first, together))
    first = float(np.array(shape_of(order[0])) @ step)
    return Costs(
        step,
        _time_forwards(run, _spread(forwards), seconds / 4),
        making + max(times.seconds[0] - first, 0.0),
        max(times.memory, run.runtime.peak_memory()),
        times.watts,
    )


def _spread(makers: Sequence[MakeBatches]) -> list[Sequence[Batch]]:
    """Some of these, by their positions: as many of every size as there are, the widest last."""
    # They are made again, so that not all of them are in the memory that is looked at.
    by_size = np.argsort([shape_of(make())[2] for make in makers], kind="stable")
    places = np.unique(((np.arange(SIZES) + 0.5) / SIZES * len(by_size)).astype(int))
    return [makers[number]() for number in (*by_size[places[:-1]], by_size[-1])]


def _far_apart(chosen: Sequence[Sequence[Batch]]) -> list[Sequence[Batch]]:
    """The same in an order of which any beginning has small and large ones: largest, smallest, middle, ..."""
    *rest, largest = chosen
    ordered = [largest]
    for share in (0.0, 0.5, 0.25, 0.75):
        if rest:
            ordered.append(rest.pop(int(share * len(rest))))
    return ordered + rest


def _in_groups(shapes: Floats, seconds: Floats, first: int, together: int) -> tuple[Floats, Floats]:
    """Shapes and seconds of so many steps at a time, from the first that does not warm up.

    It is after so many that a GPU is waited for; when each of them was over is not known.
    """
    begins = range(-(-first // together) * together, len(seconds) - together + 1, together)
    if not begins:
        return shapes[first:].sum(axis=0, keepdims=True), seconds[first:].sum(keepdims=True)
    return (
        np.array([shapes[begin : begin + together].sum(axis=0) for begin in begins]),
        np.array([seconds[begin : begin + together].sum() for begin in begins]),
    )


def _fitted(shapes: Floats, seconds: Floats) -> Floats:
    """Seconds by shape, none of them negative: least squares."""
    sizes = shapes.max(axis=0)
    found, _ = nnls(shapes / sizes, seconds)
    return np.asarray(found / sizes, np.float64)


def _time_forwards(run: CellRun, chosen: Sequence[Sequence[Batch]], seconds: float) -> Floats:
    """Seconds of a forward by its shape."""
    shapes, taken, end = [], [], time.monotonic() + seconds
    outputs_of(run.model, run.objective, chosen[-1], run.runtime)
    for batches in [chosen[-1], *chosen[:-1]]:
        begun = time.perf_counter()
        outputs_of(run.model, run.objective, batches, run.runtime)
        taken.append(time.perf_counter() - begun)
        shapes.append(shape_of(batches))
        if time.monotonic() > end:
            break
    return _fitted(np.array(shapes), np.array(taken))

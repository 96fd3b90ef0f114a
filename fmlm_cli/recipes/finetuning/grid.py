"""The points of a grid of hyperparameters, and the cells (checkpoint, task, point, seed) that it has."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmlm_cli.config import LEAST_STEPS, FinetuneSettings, Hyperparameters, build, yaml_file
from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.events import counted
from fmlm_cli.recipes.jobs.ledger import Job
from fmlm_cli.tasks import Examples, TaskData

# Devlin et al. 2019, appendix A.3; GLUE itself was run there with batches of 32 and 3 epochs.
BERT_GRID: Mapping[str, Sequence[Any]] = {
    "batch_size": [16, 32],
    "learning_rate": [5e-5, 3e-5, 2e-5],
    "epochs": [2, 3, 4],
}
# Liu et al. 2019, table 10.
ROBERTA_GRID: Mapping[str, Sequence[Any]] = {
    "batch_size": [16, 32],
    "learning_rate": [1e-5, 2e-5, 3e-5],
    "epochs": [10],
    "warmup_share": [0.06],
    "weight_decay": [0.1],
    "betas": [(0.9, 0.98)],
    "epsilon": [1e-6],
}
_ROBERTA_KIN = ("roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "xlm-roberta-xl")
GRIDS = ("none", "paper")  # any other is a file
NO_GRID = "default"
FEW_STEPS = 100  # as many as 3 passes over 1,000 examples make, of which Zhang et al. 2021 warn


@dataclass(frozen=True)
class Point:
    """One choice of hyperparameters. `name`: where it differs from other points, fit for a folder's name."""

    name: str
    training: Hyperparameters


@dataclass(frozen=True, kw_only=True)
class Cell(Job):
    """One model to fine-tune. `checkpoint`: the name of what it begins from, "" for the only one."""

    checkpoint: str
    task: str
    point: Point


def find_points(settings: FinetuneSettings, model_type: str, default_rate: float) -> list[Point]:
    """The points of the grid that the settings name, with all that is left open settled.

    `default_rate`: the learning rate where there is none.
    """
    axes = _axes(settings.grid, model_type)
    fixed = {name: values[0] for name, values in axes.items() if len(values) == 1}
    varied = {name: values for name, values in axes.items() if len(values) > 1}
    points: list[Point] = []
    for values in itertools.product(*varied.values()):
        point_values = dict(zip(varied, values, strict=True))
        training = build(Hyperparameters, settings.training.model_dump(), fixed, point_values)
        training = training.settled(default_rate)
        name = ",".join(f"{key}={_short(getattr(training, key))}" for key in point_values) or NO_GRID
        if name in (point.name for point in points):
            raise UserError(f"the grid {settings.grid} has {name} twice: take one out")
        points.append(Point(name, training))
    return points


def _axes(grid: str, model_type: str) -> Mapping[str, Sequence[Any]]:
    if grid == "none":
        return {}
    if grid == "paper":
        return ROBERTA_GRID if model_type in _ROBERTA_KIN else BERT_GRID
    if not grid.endswith((".yaml", ".yml")):
        raise unknown_name("grid", grid, [*GRIDS, "a .yaml file"])
    return _read_grid(grid)


def _read_grid(path: str) -> dict[str, list[Any]]:
    """A YAML file of lists by setting; their values are checked when the points are made."""
    try:
        _, tree = yaml_file(Path(path))
    except FileNotFoundError:
        raise UserError(f"no such grid: {path}; it is none, paper or a YAML file of lists") from None
    if not isinstance(tree, dict) or not tree:
        raise UserError(f"{path}: a grid is written as `learning_rate: [1e-5, 2e-5]`, one setting a line")
    for name, values in tree.items():
        if name not in Hyperparameters.model_fields:
            raise unknown_name(f"hyperparameter in {path}", str(name), Hyperparameters.model_fields)
        if values == []:
            raise UserError(f"{path}: {name} has no values: give some, or leave it out")
        if not isinstance(values, list):
            raise UserError(f"{path}: {name} has to be a list of values, such as [{values}]")
    return tree


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(_short, value))
    if value is None:
        return "null"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def find_cells(
    data: Mapping[str, TaskData], points: Mapping[str, Sequence[Point]], seeds: Sequence[int]
) -> list[Cell]:
    """All cells: task by task, of a task checkpoint by checkpoint, of that point by point.

    `points`: by checkpoint.
    """
    return [
        cell
        for task in data
        for checkpoint, own in points.items()
        for cell in _cells_of(task, checkpoint, data[task].train, own, seeds)
    ]


def _cells_of(
    task: str, checkpoint: str, train: Examples, points: Sequence[Point], seeds: Sequence[int]
) -> Iterator[Cell]:
    characters = sum(len(text) for texts in (train.first, train.second or ()) for text in texts)
    for point, seed in itertools.product(points, seeds):
        label = " ".join(part for part in (task, checkpoint, point.name) if part not in ("", NO_GRID))
        yield Cell(
            name="/".join(part for part in (checkpoint, task, point.name, f"seed-{seed}") if part),
            label=label,
            title=f"{label} seed {seed}",
            seed=seed,
            pace=checkpoint,  # whose model may be larger than another's
            # Characters that it trains on: near enough to be in proportion to its time.
            cost=float(epochs_of(point.training, len(train)) * max(characters, 1)),
            checkpoint=checkpoint,
            task=task,
            point=point,
        )


def epochs_of(training: Hyperparameters, examples: int) -> int:
    """Passes over so many examples, by hyperparameters that are settled."""
    assert training.epochs is not None and training.min_steps is not None
    return max(training.epochs, -(-training.min_steps // batches_of(training, examples)))


def batches_of(training: Hyperparameters, examples: int) -> int:
    """Steps of a pass."""
    return -(-examples // training.batch_size)


def too_few_steps(training: Hyperparameters, examples: int) -> str | None:
    """What there is to say of hyperparameters that make too few steps to learn from; None if they do not."""
    epochs = epochs_of(training, examples)
    steps = epochs * batches_of(training, examples)
    if steps >= FEW_STEPS:
        return None
    return (
        f"{counted(epochs, 'pass', 'passes')} over {examples:,} examples are {counted(steps, 'step')}, too "
        f"few to learn much: leave out epochs, for {LEAST_STEPS} steps, or set training.min_steps"
    )

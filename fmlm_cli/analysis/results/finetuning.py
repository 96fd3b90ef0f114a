"""What `fmlm finetune` finds: the types of its results.json, whose names and order are those of the fields.

Scores and measures are shares, as a rule from 0 to 1, or correlations. A `point` is one choice of
hyperparameters, by name. None: not measured, or training diverged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fmlm_cli.analysis.results.comparison import NextStep, TaskResult

Measures = Mapping[str, float]  # by name; "score" is the one that decides


@dataclass(frozen=True)
class CellResult:
    """What a finished cell found, as kept in its result.json.

    `score`: the task's score on the development split that decides, at the epoch that counts; None where
    training diverged, for the reason in `failed`. `dev`, `test`: measures by split; unlabelled splits are
    left out. `history`: measures after epochs, of many after 50 at most. `padding`: share of the tokens
    forwarded. `identity`: hash of all that decides it. `seconds`: what the call that finished it took,
    evaluation and all.
    """

    task: str
    point: str
    seed: int
    score: float | None
    epoch: int
    epochs: int
    steps: int
    dev: Mapping[str, Measures]
    test: Mapping[str, Measures]
    history: Sequence[Mapping[str, Any]]
    train_seconds: float
    examples_per_second: float
    padding: float
    training: Mapping[str, Any]
    identity: str
    failed: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Statistics:
    """Of `n` seeds; `sd` is the standard deviation of the sample. None where there are too few."""

    n: int
    mean: float | None
    median: float | None
    sd: float | None
    least: float | None
    best: float | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class PointScores(Statistics):
    """Of a point's cells that did not diverge. `scores`: of all. `training`: its hyperparameters."""

    scores: Mapping[int, float | None]
    diverged: int
    training: Mapping[str, Any]


@dataclass(frozen=True)
class ExampleCounts:
    """Labelled examples, of development by split."""

    train: int
    dev: Mapping[str, int]


@dataclass(frozen=True)
class TaskScores:
    """A task: the scores of the point with the best median, and all its measures by split and name.

    `measures`: whose mean is the score. `n` to `diverged`: of the point's scores. `baseline`: measures of
    always naming the most frequent class, None for regression; `not_above_baseline`: seeds that are no
    better. `padding`: share of the tokens forwarded. `cut`: sequences that were too long, by split. `points`:
    all of them.
    """

    point: str
    training: Mapping[str, Any]
    begun_from_mnli: bool
    measures: tuple[str, ...]
    n: int
    mean: float | None
    median: float | None
    sd: float | None
    least: float | None
    best: float | None
    diverged: int
    dev: Mapping[str, Mapping[str, Statistics]]
    test: Mapping[str, Mapping[str, Statistics]]
    baseline: Measures | None
    not_above_baseline: int
    examples: ExampleCounts
    examples_per_second: float | None
    padding: float
    cut: Mapping[str, int]
    points: Mapping[str, PointScores]


@dataclass(frozen=True)
class CheckpointScores:
    """What was found of a checkpoint. `submission`: the zip. `glue_average`: None where tasks are missing.

    `name`: what it is called beside others, "" for one that is alone.
    """

    name: str
    checkpoint: str
    revision: str | None
    model_type: str
    tasks: Mapping[str, TaskScores]
    glue_average: float | None
    submission: str | None
    cells: tuple[CellResult, ...]


@dataclass(frozen=True)
class FinetuneResults:
    """What results.json holds of one checkpoint: its scores."""

    fmlm: str
    checkpoint: str
    revision: str | None
    model_type: str
    settings: Mapping[str, Any]
    tasks: Mapping[str, TaskScores]
    glue_average: float | None
    submission: str | None
    next_step: NextStep
    cells: tuple[CellResult, ...]


@dataclass(frozen=True)
class CheckpointComparison:
    """What results.json holds of several: the scores of each, and how they compare with the `baseline`'s.

    `compared`: by task, and in the mean of the tasks where there are several; arms are checkpoints.
    `sentences`: what came of it, one for each checkpoint but the baseline.
    """

    fmlm: str
    settings: Mapping[str, Any]
    baseline: str
    compared: Mapping[str, TaskResult]
    sentences: tuple[str, ...]
    next_step: NextStep
    checkpoints: tuple[CheckpointScores, ...]

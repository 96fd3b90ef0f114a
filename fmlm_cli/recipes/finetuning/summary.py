"""What the finished cells found, summed up by checkpoint and task, and compared."""

from collections.abc import Mapping, Sequence

import numpy as np

from fmlm_cli.analysis.paired import Contest, compare_on_tasks
from fmlm_cli.analysis.results.comparison import BySeed, TaskResult
from fmlm_cli.analysis.results.finetuning import (
    CellResult,
    CheckpointScores,
    ExampleCounts,
    PointScores,
    Statistics,
    TaskScores,
)
from fmlm_cli.recipes.finetuning.candidates import Candidate
from fmlm_cli.recipes.finetuning.plan import FinetunePlan
from fmlm_cli.tasks import TaskData, compute_metrics, glue_average

SCORE = "score"
Tasks = Mapping[str, TaskScores]


def scores_of(plan: FinetunePlan, candidate: Candidate, submission: str | None) -> CheckpointScores:
    """What the finished cells of a checkpoint found."""
    name = candidate.name
    tasks = {
        task: _summary(plan, candidate, data, plan.results_of(name, task)) for task, data in plan.data.items()
    }
    return CheckpointScores(
        name=name,
        checkpoint=candidate.origin.name,
        revision=candidate.origin.revision,
        model_type=candidate.model_type,
        tasks=tasks,
        glue_average=_average(plan, tasks),
        submission=submission,
        cells=tuple(plan.results_of(name)),
    )


# ---------------------------------------------------------------- one against another


def compare(plan: FinetunePlan, scores: Sequence[CheckpointScores]) -> dict[str, TaskResult]:
    """Checkpoints against the first one, by task and, where there are several, in their mean.

    Of each task the test split counts where it has labels, else the development split that decides.
    """
    by_task, measured = {}, dict[str, tuple[str, str | None]]()
    for task, data in plan.data.items():
        split = "test" if "test" in data.test and data.test["test"].labels is not None else "dev"
        measured[task] = " and ".join(data.task.score).replace("_", "-"), split
        by_task[task] = {own.name: _by_seed(own, task, split) for own in scores}
    if len(by_task) > 1:
        mean = f"mean of {len(by_task)} tasks"
        splits = {split for _, split in measured.values()}
        measured[mean] = "score", splits.pop() if len(splits) == 1 else "dev or test"
        by_task[mean] = {
            own.name: _mean_by_seed([of_task[own.name] for of_task in by_task.values()]) for own in scores
        }
    return compare_on_tasks(Contest(scores[0].name, frozenset()), by_task, measured)


def _by_seed(scores: CheckpointScores, task: str, split: str) -> BySeed:
    """A checkpoint's scores by the chosen point of its own grid; None where training diverged."""
    point = scores.tasks[task].point
    cells = [cell for cell in scores.cells if (cell.task, cell.point) == (task, point)]
    return {
        cell.seed: cell.test["test"][SCORE] if split == "test" and cell.failed is None else cell.score
        for cell in cells
    }


def _mean_by_seed(tasks: Sequence[BySeed]) -> BySeed:
    """The mean of tasks, where each has a score."""
    by_seed = {seed: [scores.get(seed) for scores in tasks] for seed in tasks[0]}
    return {
        seed: None if None in scores else float(np.mean([score for score in scores if score is not None]))
        for seed, scores in by_seed.items()
    }


# ---------------------------------------------------------------- one checkpoint


def _average(plan: FinetunePlan, tasks: Tasks) -> float | None:
    """GLUE's average of the mean scores, where its tasks are complete."""
    scores = {name: task.mean for name, task in tasks.items() if task.mean is not None}
    return glue_average(scores) if plan.is_glue else None


def statistics(values: Sequence[float]) -> Statistics:
    """Mean, median, sample standard deviation, least and greatest of some values."""
    numbers = np.asarray(values, np.float64)
    return Statistics(
        n=len(numbers),
        mean=float(numbers.mean()) if len(numbers) else None,
        median=float(np.median(numbers)) if len(numbers) else None,
        sd=float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
        least=float(numbers.min()) if len(numbers) else None,
        best=float(numbers.max()) if len(numbers) else None,
        values=tuple(numbers.tolist()),
    )


def _summary(
    plan: FinetunePlan, candidate: Candidate, data: TaskData, cells: Sequence[CellResult]
) -> TaskScores:
    """Of every point its scores, and all measures of the point with the best median score."""
    by_point: dict[str, list[CellResult]] = {}
    for cell in cells:
        by_point.setdefault(cell.point, []).append(cell)
    points = {name: _point(of_point) for name, of_point in by_point.items()}
    name = max(points, key=lambda name: _median_of_all(by_point[name]))
    best, finished = points[name], [cell for cell in by_point[name] if cell.failed is None]
    baseline = _baseline(data)
    return TaskScores(
        point=name,
        training=best.training,
        begun_from_mnli=plan.begins_from_mnli(data.task.name),
        measures=tuple(data.task.score),
        n=best.n,
        mean=best.mean,
        median=best.median,
        sd=best.sd,
        least=best.least,
        best=best.best,
        diverged=best.diverged,
        dev=_measures(finished, "dev"),
        test=_measures(finished, "test"),
        baseline=baseline,
        not_above_baseline=sum(
            baseline is not None and (cell.score or 0.0) <= baseline[SCORE] + 1e-12 for cell in finished
        ),
        examples=ExampleCounts(len(data.train), {split: len(dev) for split, dev in data.dev.items()}),
        examples_per_second=statistics([cell.examples_per_second for cell in finished]).median,
        padding=cells[0].padding,
        cut=_cut(plan, candidate, data),
        points=points,
    )


def _point(cells: Sequence[CellResult]) -> PointScores:
    """The scores of one point's cells."""
    return PointScores(
        **vars(statistics([cell.score for cell in cells if cell.score is not None])),
        scores={cell.seed: cell.score for cell in cells},
        diverged=sum(cell.failed is not None for cell in cells),
        training=cells[0].training,
    )


def _median_of_all(cells: Sequence[CellResult]) -> float:
    """The median score, one that diverged being worse than any."""
    return float(np.median([-np.inf if cell.score is None else cell.score for cell in cells]))


def _measures(cells: Sequence[CellResult], kind: str) -> dict[str, dict[str, Statistics]]:
    """For each split and measure its statistics over seeds."""
    splits: Mapping[str, Mapping[str, float]] = getattr(cells[0], kind) if cells else {}
    return {
        split: {name: statistics([getattr(cell, kind)[split][name] for cell in cells]) for name in measures}
        for split, measures in splits.items()
    }


def _baseline(data: TaskData) -> dict[str, float] | None:
    """What always naming the training set's most frequent class would reach."""
    if data.task.regression:
        return None
    dev = data.dev[data.decides]
    assert data.train.labels is not None and dev.labels is not None
    outputs = np.zeros((len(dev), len(data.task.labels)))
    outputs[:, np.bincount(data.train.labels.astype(np.int64)).argmax()] = 1
    return compute_metrics(data.task, dev.labels, outputs)


def _cut(plan: FinetunePlan, candidate: Candidate, data: TaskData) -> dict[str, int]:
    """Sequences that were too long, by split."""
    splits = {"train": data.train, **data.dev, **data.test}
    return {name: plan.split(candidate, examples).sequences.cut for name, examples in splits.items()}

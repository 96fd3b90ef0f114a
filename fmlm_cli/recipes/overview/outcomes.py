"""What fine-tunings and comparisons came to, by their results.json; what is damaged is said, not raised."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from fmlm_cli import storage
from fmlm_cli.analysis.results.comparison import ComparisonResults, NextStep
from fmlm_cli.analysis.results.finetuning import CheckpointComparison, CheckpointScores, FinetuneResults
from fmlm_cli.analysis.results.plain import from_json
from fmlm_cli.errors import UserError

TUNING, COMPARISON = "fine-tuning", "comparison"  # kinds, as their markers have them
RESULTS = "results.json"
OutcomeState = Literal["finished", "running", "unfinished", "damaged"]
Result = TypeVar("Result")


@dataclass(frozen=True)
class TaskScore:
    """A task's score with one checkpoint, a share: mean and sd of the development scores of `seeds`.

    `diverged`: seeds beside those. `learning_rate`: of the best point of the grid.
    """

    task: str
    checkpoint: str
    measure: str
    mean: float | None
    sd: float | None
    seeds: int
    diverged: int
    learning_rate: float | None


@dataclass(frozen=True)
class ArmLoss:
    """An arm's held-out loss, mean over `seeds`, and its difference from the baseline's with its interval.

    `role`: baseline, control, or "" for one to choose.
    """

    masking: str
    role: str
    mean: float | None
    sd: float | None
    seeds: int
    difference: float | None
    low: float | None
    high: float | None
    p_adjusted: float | None
    passes: float | None


@dataclass(frozen=True)
class Outcome:
    """A folder of results. `problem`: what of it cannot be read. `changed`: in seconds since 1970.

    `sentences`: what came of it. `next_step`: None where there are no results.
    """

    path: str
    state: OutcomeState
    problem: str
    changed: float | None
    sentences: Sequence[str]
    next_step: NextStep | None


@dataclass(frozen=True)
class TuningReport(Outcome):
    """A fine-tuning."""

    scores: Sequence[TaskScore]


@dataclass(frozen=True)
class ComparisonReport(Outcome):
    """A comparison of maskings: its arms from the lowest loss on, controls last; none without a race."""

    arms: Sequence[ArmLoss]


def read_tuning(folder: Path) -> TuningReport:
    """What a fine-tuning's folder holds."""
    told, problem = _told(folder, _of_tuning)
    sentences, step, scores = told or ((), None, ())
    return TuningReport(
        str(folder), _state(folder, problem), problem, changed_at(folder), sentences, step, scores
    )


def read_comparison(folder: Path) -> ComparisonReport:
    """What a comparison's folder holds."""
    told, problem = _told(folder, _of_comparison)
    sentences, step, arms = told or ((), None, ())
    return ComparisonReport(
        str(folder), _state(folder, problem), problem, changed_at(folder), sentences, step, arms
    )


def _of_tuning(folder: Path) -> tuple[Sequence[str], NextStep, Sequence[TaskScore]] | None:
    results = tuning_results(folder)
    if results is None:
        return None
    sentences = results.sentences if isinstance(results, CheckpointComparison) else ()
    return sentences, results.next_step, list(_scores(results))


def _of_comparison(folder: Path) -> tuple[Sequence[str], NextStep, Sequence[ArmLoss]] | None:
    results = comparison_results(folder)
    if results is None:
        return None
    return [f"{results.verdict.headline}."], results.verdict.next_step, sorted(_arms(results), key=_rank)


def tuning_results(folder: Path) -> FinetuneResults | CheckpointComparison | None:
    """Its results; None where there are none yet. Raises `UserError` for a damaged file."""
    return _read(folder, FinetuneResults | CheckpointComparison)  # type: ignore[arg-type] # a union is no type


def comparison_results(folder: Path) -> ComparisonResults | None:
    """Its results; None where there are none yet. Raises `UserError` for a damaged file."""
    return _read(folder, ComparisonResults)


def checkpoints_of(results: FinetuneResults | CheckpointComparison) -> Sequence[CheckpointScores]:
    """The scores of each checkpoint; one that is alone goes by its path."""
    if isinstance(results, CheckpointComparison):
        return results.checkpoints
    named = CheckpointScores.__dataclass_fields__.keys() - {"name"}
    return [CheckpointScores(name=results.checkpoint, **{name: getattr(results, name) for name in named})]


def changed_at(folder: Path) -> float | None:
    """When something in a folder was written."""
    with contextlib.suppress(OSError):  # what is at work there removes files
        return max(entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(folder))
    return None


def _read(folder: Path, kind: type[Result]) -> Result | None:
    path = folder / RESULTS
    try:
        return from_json(kind, json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise _damaged(folder) from None


@contextlib.contextmanager
def damage_told(folder: Path) -> Iterator[None]:
    """Tell of results that can be read and do not fit together: of an arm's name one letter is another."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError):
        raise _damaged(folder) from None


def _damaged(folder: Path) -> UserError:
    return UserError(
        f"{folder / RESULTS}: damaged, or of another version of fmlm: --report-only writes it anew"
    )


def _told(folder: Path, read: Callable[[Path], Result]) -> tuple[Result | None, str]:
    """What is read of a folder, and what is wrong with it."""
    try:
        with damage_told(folder):
            return read(folder), ""
    except UserError as error:
        return None, str(error)


def _state(folder: Path, problem: str) -> OutcomeState:
    if storage.worker_in(folder) is not None:
        return "running"
    if problem:
        return "damaged"
    return "finished" if (folder / RESULTS).is_file() else "unfinished"


def _scores(results: FinetuneResults | CheckpointComparison) -> Iterator[TaskScore]:
    for own in checkpoints_of(results):
        for name, task in own.tasks.items():
            yield TaskScore(
                task=name,
                checkpoint=own.name,
                measure=" and ".join(task.measures).replace("_", "-"),
                mean=task.mean,
                sd=task.sd,
                seeds=task.n,
                diverged=task.diverged,
                learning_rate=task.training.get("learning_rate"),
            )


def _arms(results: ComparisonResults) -> Iterator[ArmLoss]:
    race = results.race
    for arm in results.arms if race is not None else ():
        assert race is not None
        final, pair = race.final[arm.name], race.paired.get(arm.name)
        yield ArmLoss(
            masking=arm.label,
            role="baseline" if arm.name == results.baseline else "control" if arm.control else "",
            mean=final.mean,
            sd=final.sd,
            seeds=len(final.values) - len(final.lacking),
            difference=pair.mean if pair else None,
            low=pair.low if pair else None,
            high=pair.high if pair else None,
            p_adjusted=pair.p_adjusted if pair else None,
            passes=arm.passes,
        )


def _rank(arm: ArmLoss) -> tuple[bool, bool, float]:
    return arm.role == "control", arm.mean is None, arm.mean or 0.0

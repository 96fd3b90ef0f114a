"""Measures of predictions, as GLUE and "Don't Stop Pretraining" report them; each a number up to 1."""

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from fmlm_cli.errors import UserError
from fmlm_cli.tasks.task import Task

_Values = npt.NDArray[Any]
_Measure = Callable[[_Values, _Values], float]


def _f1(labels: _Values, predicted: _Values) -> float:
    """F1 of the class with index 1, as in GLUE; 0 where it is neither there nor predicted."""
    return float(f1_score(labels == 1, predicted == 1, average="binary", zero_division=0))


def _averaged_f1(average: str) -> _Measure:
    def measure(labels: _Values, predicted: _Values) -> float:
        return float(f1_score(labels, predicted, average=average, zero_division=0))

    return measure


def _matthews(labels: _Values, predicted: _Values) -> float:
    with warnings.catch_warnings():  # of labels that are all the same, for which 0 is documented
        warnings.simplefilter("ignore")
        return float(matthews_corrcoef(labels, predicted))


def _correlation(function: Callable[[_Values, _Values], Any]) -> _Measure:
    def measure(scores: _Values, predicted: _Values) -> float:
        if len(scores) < 2 or not np.ptp(scores) or not np.ptp(predicted):
            return 0.0
        with warnings.catch_warnings():  # of values that are nearly all the same
            warnings.simplefilter("ignore")
            value = float(function(scores, predicted).statistic)
        return value if np.isfinite(value) else 0.0

    return measure


# (labels, predictions) -> measure, both int64[n] for classes and float64[n] for scores.
METRICS: Mapping[str, _Measure] = MappingProxyType(
    {
        "accuracy": lambda labels, predicted: float(accuracy_score(labels, predicted)),
        "f1": _f1,
        "macro_f1": _averaged_f1("macro"),
        "micro_f1": _averaged_f1("micro"),
        "matthews": _matthews,
        "pearson": _correlation(stats.pearsonr),
        "spearman": _correlation(stats.spearmanr),
    }
)
REGRESSION_METRICS = ("pearson", "spearman")


def compute_metrics(task: Task, labels: _Values, outputs: npt.NDArray[np.floating[Any]]) -> dict[str, float]:
    """Every measure of `task.metrics`, and "score": the mean of those in `task.score`.

    `labels`: int64[n], or float64[n] scores. `outputs`: float[n, labels] logits, the greatest of which
    decides (the first of equal ones), or float[n] scores, which are not clipped.

    `labels` beyond the task's (`Examples.unknown`) are never predicted: wrong, and of macro-F1 classes of 0.

    Macro-F1 is the mean over classes that occur among the labels or the predictions. Micro-F1 over all
    classes equals accuracy where each example has one label. An F1 whose class is neither there nor predicted
    is 0, and so is a Matthews, Pearson or Spearman correlation with predictions or labels that are all the
    same, for which the formulas are 0/0. Raises `UserError` for outputs that are not finite.
    """
    predicted = _decided(task, outputs)
    assert len(labels) == len(predicted) > 0, (len(labels), len(predicted))
    measured = {name: METRICS[name](np.asarray(labels), predicted) for name in task.metrics}
    return {**measured, "score": float(np.mean([measured[name] for name in task.score]))}


def predictions_of(task: Task, outputs: npt.NDArray[np.floating[Any]]) -> list[str] | list[float]:
    """What a model's outputs (shapes as above) say: labels by name, or scores clipped to `task.bounds`."""
    predicted = _decided(task, outputs)
    if not task.regression:
        return [task.labels[index] for index in predicted]
    scores: list[float] = (np.clip(predicted, *task.bounds) if task.bounds else predicted).tolist()
    return scores


def _decided(task: Task, outputs: npt.NDArray[np.floating[Any]]) -> _Values:
    """Class indices int64[n] or scores float64[n]."""
    outputs = np.asarray(outputs)
    assert outputs.shape[1:] == ((len(task.labels),) if task.labels else ()), (task.name, outputs.shape)
    if not np.isfinite(outputs).all():
        raise UserError(
            f"{task.name}: the model's outputs are not finite, so its weights are damaged: train again, with "
            "a lower learning rate if it was fine-tuned here"
        )
    return outputs.astype(np.float64) if task.regression else outputs.argmax(axis=1)

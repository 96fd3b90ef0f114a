"""Measures against their formulas in plain Python."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.errors import UserError
from fmlm_cli.tasks import GLUE, METRICS, Task, compute_metrics, predictions_of

_PAIRS = st.integers(2, 5).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(
            st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40
        ),
    )
)
_NUMBERS = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=1, max_size=40)


def classes(count: int, *metrics: str) -> Task:
    return Task("t", tuple(f"label{n}" for n in range(count)), metrics, metrics[:1], pair=False)


def logits(predicted: list[int], count: int) -> np.ndarray[Any, Any]:
    return np.eye(count, dtype=np.float32)[predicted]


def f1_of(pairs: list[tuple[int, int]], label: int) -> float:
    """2 TP / (2 TP + FP + FN)."""
    hits = sum(pair == (label, label) for pair in pairs)
    wrong = sum((a == label) != (b == label) for a, b in pairs)
    return 2 * hits / (2 * hits + wrong) if hits else 0.0


def matthews_of(pairs: list[tuple[int, int]], count: int) -> float:
    """Gorodkin 2004, equation 8: with c right of n, t_k labels and p_k predictions of class k."""
    n, right = len(pairs), sum(a == b for a, b in pairs)
    true = [sum(a == k for a, _ in pairs) for k in range(count)]
    told = [sum(b == k for _, b in pairs) for k in range(count)]
    top = right * n - sum(t * p for t, p in zip(true, told, strict=True))
    bottom = (n * n - sum(p * p for p in told)) * (n * n - sum(t * t for t in true))
    return top / math.sqrt(bottom) if bottom else 0.0


def pearson_of(x: list[float], y: list[float]) -> float:
    mx, my = math.fsum(x) / len(x), math.fsum(y) / len(y)
    top = math.fsum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    bottom = math.fsum((a - mx) ** 2 for a in x) * math.fsum((b - my) ** 2 for b in y)
    return top / math.sqrt(bottom) if bottom else 0.0


def ranks_of(values: list[float]) -> list[float]:
    """Ranks from 1, the mean of their places for equal values."""
    return [sum(v < value for v in values) + (1 + sum(v == value for v in values)) / 2 for value in values]


@given(_PAIRS)
def test_class_measures(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = case
    labels, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    task = classes(count, "accuracy", "macro_f1", "micro_f1", "matthews")
    found = compute_metrics(task, np.asarray(labels), logits(predicted, count))
    accuracy = sum(a == b for a, b in pairs) / len(pairs)
    there = set(labels) | set(predicted)
    assert found["accuracy"] == found["score"] == pytest.approx(accuracy)
    assert found["micro_f1"] == pytest.approx(accuracy)
    assert found["macro_f1"] == pytest.approx(sum(f1_of(pairs, k) for k in there) / len(there))
    assert found["matthews"] == pytest.approx(matthews_of(pairs, count), abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1))
def test_f1_is_that_of_the_positive_class(pairs: list[tuple[int, int]]) -> None:
    task = GLUE["mrpc"].task
    found = compute_metrics(task, np.asarray([a for a, _ in pairs]), logits([b for _, b in pairs], 2))
    assert found["f1"] == pytest.approx(f1_of(pairs, 1))
    assert found["score"] == pytest.approx((found["accuracy"] + found["f1"]) / 2)


@given(_NUMBERS, st.floats(0.01, 100), st.floats(-100, 100))
def test_correlations(pairs: list[tuple[int, int]], scale: float, shift: float) -> None:
    gold, told = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    found = compute_metrics(GLUE["stsb"].task, np.asarray(gold), np.asarray(told))
    assert found["pearson"] == pytest.approx(pearson_of(gold, told), abs=1e-9)
    assert found["spearman"] == pytest.approx(pearson_of(ranks_of(gold), ranks_of(told)), abs=1e-9)
    assert found["score"] == pytest.approx((found["pearson"] + found["spearman"]) / 2)
    moved = compute_metrics(GLUE["stsb"].task, np.asarray(gold), np.asarray(told) * scale + shift)
    assert moved == pytest.approx(found, abs=1e-6)


def test_constant_predictions_give_zero_without_warnings() -> None:
    task = GLUE["cola"].task
    assert compute_metrics(task, np.array([0, 1, 1]), logits([1, 1, 1], 2))["matthews"] == 0.0
    assert compute_metrics(task, np.array([1, 1]), logits([1, 1], 2)) == {
        "matthews": 0,
        "accuracy": 1,
        "score": 0,
    }
    nearly = 1e8 + np.array([0.0, 1e-7, 0.0])
    for told in (np.zeros(3, np.float32), nearly):
        found = compute_metrics(GLUE["stsb"].task, np.array([1.0, 2.0, 3.0]), told)
        assert all(map(math.isfinite, found.values()))
    assert compute_metrics(GLUE["stsb"].task, np.array([1.0]), np.array([2.0]))["score"] == 0.0
    assert compute_metrics(GLUE["mrpc"].task, np.array([0, 0]), logits([0, 0], 2))["f1"] == 0.0


def test_every_measure_is_a_plain_float() -> None:
    for name in METRICS:
        labels = np.array([0, 1, 1])
        assert type(METRICS[name](labels, np.array([0, 1, 0]))) is float


def test_outputs_that_are_not_finite() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(UserError, match="sst2: the model's outputs are not finite"):
            compute_metrics(GLUE["sst2"].task, np.array([0, 1]), np.array([[0.0, 1.0], [bad, 0.0]]))
        with pytest.raises(UserError, match="not finite"):
            predictions_of(GLUE["stsb"].task, np.array([0.0, bad]))


def test_outputs_of_the_wrong_shape_are_a_programmers_mistake() -> None:
    for task, outputs in [(GLUE["mnli"].task, np.zeros((3, 2))), (GLUE["stsb"].task, np.zeros((3, 1)))]:
        with pytest.raises(AssertionError):
            compute_metrics(task, np.zeros(3), outputs)


def test_predictions() -> None:
    outputs = np.array([[0.1, 0.2, 0.0], [3.0, 3.0, 3.0], [-2.0, -3.0, -1.0]])
    assert predictions_of(GLUE["mnli"].task, outputs) == ["neutral", "entailment", "contradiction"]
    assert predictions_of(GLUE["stsb"].task, np.float32([-0.5, 2.5, 7])) == [0.0, 2.5, 5.0]
    assert predictions_of(Task("t", (), ("pearson",), ("pearson",), pair=False), np.float32([-9])) == [-9.0]

"""Results as JSON and back: nothing is lost, and nothing is in it that JSON does not have."""

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmlm_cli.analysis.results.comparison import ComparisonResults, Measurements, RaceResult, SpreadResult
from fmlm_cli.analysis.results.coverage import CoverageResult
from fmlm_cli.analysis.results.finetuning import CellResult, FinetuneResults
from fmlm_cli.analysis.results.plain import as_json, from_json
from fmlm_cli.analysis.results.variance import IntervalResult, VarianceResult
from tests.analysis.report.comparison import made_json, made_results
from tests.analysis.results.made import made

PARTS = (CoverageResult, VarianceResult, RaceResult, CellResult)
WHOLE = (ComparisonResults, FinetuneResults)
large = settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.parametrize("kind", WHOLE)
@given(data=st.data())
@large
def test_what_is_written_is_read_back(kind: type[Any], data: st.DataObject) -> None:
    result = data.draw(made(kind))
    assert from_json(kind, json.loads(json.dumps(as_json(result)))) == result


@pytest.mark.parametrize("kind", PARTS)
@given(data=st.data())
@large
def test_json_has_no_numbers_that_are_not_finite(kind: type[Any], data: st.DataObject) -> None:
    result = data.draw(made(kind, st.floats()))
    tree = as_json(result)
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree  # keys are text, and tuples lists
    assert list(tree) == [field.name for field in fields(kind)]


def test_a_whole_comparison_is_read_back() -> None:
    assert from_json(ComparisonResults, made_json()) == made_results()


def test_seeds_are_numbers_again() -> None:
    spread = SpreadResult({0: 1.0, 10: None}, 1.0, None)
    assert as_json(spread) == {"values": {"0": 1.0, "10": None}, "mean": 1.0, "sd": None}
    assert from_json(SpreadResult, as_json(spread)) == spread


def test_what_a_type_does_not_have_is_passed_over() -> None:
    tree = made_json()
    assert as_json(from_json(Measurements, tree)) == {k: v for k, v in tree.items() if k != "verdict"}


def test_what_is_missing_or_of_another_kind_is_refused_by_its_place() -> None:
    with pytest.raises(ValueError, match=r"high\n.*required"):
        from_json(IntervalResult, {"value": 1.0, "low": None})
    tree = made_json()
    tree["race"]["final"]["random"]["values"]["0"] = "low"
    with pytest.raises(ValueError, match=r"race\.final\.random\.values\.0"):
        from_json(ComparisonResults, tree)

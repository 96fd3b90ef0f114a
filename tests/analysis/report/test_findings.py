"""Findings in words: they follow from the intervals, whichever way these fall."""

import copy
import re
from typing import Any

import pytest

from fmlm_cli.analysis.report.findings.whole import verdict
from fmlm_cli.analysis.results.comparison import Measurements
from fmlm_cli.analysis.results.plain import as_json, from_json
from tests.analysis.report.comparison import ARMS, interval, made_json

ALL = made_json()


def found(**changed: Any) -> dict[str, Any]:
    return dict(as_json(verdict(from_json(Measurements, copy.deepcopy(ALL) | changed))))


def test_what_can_be_seen_is_of_the_tests_made() -> None:
    own = {name: pair["detectable"] for name, pair in ALL["race"]["paired"].items() if name != "fresh"}
    text = next(text for text in found()["sentences"] if text.startswith("By held-out loss"))
    low, high = re.findall(r"is ([\d.]+) to ([\d.]+) nats, by arm", text)[0]
    assert min(own.values()) <= float(low) < 1.11 * min(own.values())
    assert max(own.values()) <= float(high) < 1.11 * max(own.values())
    assert "3 seeds" in text


@pytest.mark.parametrize(
    ("value", "words"), [(1.2, "does not pay"), (0.8, "pays too"), (1.0, "not told from as much")]
)
def test_equal_compute_is_said_whichever_way_it_falls(value: float, words: str) -> None:
    entry = copy.deepcopy(ALL["variance"][-1])
    entry["equal_compute"]["segments"] = interval(value, 0.05)
    (text,) = [text for text in found(variance=[entry])["sentences"] if "Within one step" in text]
    said = "Over whole passes, with the weights held fixed, the 7 segments of each row make 0.457"
    assert words in text and said in text


@pytest.mark.parametrize(("rows", "trusted"), [(59, False), (60, True)])
def test_few_rows_are_not_trusted(rows: int, trusted: bool) -> None:
    texts = " ".join(found(variance=[ALL["variance"][-1] | {"sequences": rows}])["sentences"])
    few = f"{rows} rows, fewer than the 60 that intervals need to be trusted"
    assert (few in texts, "not told from as much" in texts) == (not trusted, not trusted)


def test_the_measurement_to_speak_of_is_the_last_one_under_the_races_corruption() -> None:
    last = ALL["variance"][-1]
    entries = [*ALL["variance"][:2], last, last | {"corruption": "[MASK] only", "ratio": interval(0.1, 0.01)}]
    assert any("make 0.457" in text for text in found(variance=entries)["sentences"])


def test_every_arm_is_covered_after_its_own_passes() -> None:
    (text,) = [text for text in found()["sentences"] if text.startswith("Tokens never predicted")]
    first, second = text.split("; ")
    assert "after 7 passes: random 34 %" in first and "random x7 34 %" in first
    assert second == "after 1 pass: fully-explored (batch) 0 %."


@pytest.mark.parametrize(("passes", "words"), [(0.67, "made at most one pass"), (1.5, "made 1.50 passes")])
def test_few_passes_are_said(passes: float, words: str) -> None:
    arms = [own | {"passes": passes} for own in copy.deepcopy(ALL["arms"])]
    assert any(words in text for text in found(arms=arms)["sentences"])
    assert not any(words in text for text in found()["sentences"])


def test_tasks_are_told_in_points() -> None:
    text = next(
        text for text in found()["sentences"] if text.startswith("By citation_intent (test macro-F1)")
    )
    own = ALL["downstream"]["citation_intent"]["arms"]
    seen = [100 * own[name]["paired"]["detectable"] for name in ARMS if name not in ("random", "fresh")]
    low, high = re.findall(r"is ([\d.]+) to ([\d.]+) points, by arm", text)[0]
    assert min(seen) <= float(low) and max(seen) <= float(high)


def test_the_cost_is_a_run_not_a_guess() -> None:
    cost = found()["cost"]
    assert "210 steps of 28 rows, 376 k tokens: 2.3 minutes" in cost and "4.3 k to 4.5 k tokens" in cost
    assert "A step of random x7 has 4 different rows instead of 28." in cost
    assert found(race=None)["cost"] == ""

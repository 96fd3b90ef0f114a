"""Findings in words: they follow from the intervals, whichever way these fall."""

import copy
import re
from typing import Any

import pytest

from fmlm_cli.analysis.report.findings.sweep import short_names
from fmlm_cli.analysis.report.findings.whole import verdict
from fmlm_cli.analysis.results.comparison import Measurements
from fmlm_cli.analysis.results.plain import as_json, from_json
from tests.analysis.report.comparison import interval, made_json

ALL = made_json()


def found(**changed: Any) -> dict[str, Any]:
    return dict(as_json(verdict(from_json(Measurements, copy.deepcopy(ALL) | changed))))


_N = r"(\d+(?:\.\d+)?)"
VISIBLE = rf"is {_N}(?: to {_N})? {{unit}}(, by arm)?; so few runs leave that between {_N} and {_N}"


def seen_in(text: str, unit: str) -> list[float | None]:
    """The smallest and the largest visible difference, and what the seeds leave open of them."""
    match = re.search(VISIBLE.format(unit=unit), text)
    assert match is not None and (match[2] is None) == (match[3] is None), text
    return [None if match[n] is None else float(match[n]) for n in (1, 2, 4, 5)]


def rounds_up(shown: float | None, value: float) -> bool:
    return shown is not None and value <= shown < 1.11 * value


def test_what_can_be_seen_is_of_the_tests_made() -> None:
    own = next(pair for name, pair in ALL["race"]["paired"].items() if name != "fresh")
    text = next(text for text in found()["sentences"] if text.startswith("By held-out loss"))
    value, other, low, high = seen_in(text, "nats")
    assert other is None and "3 seeds" in text  # all arms share a spread
    for shown, name in ((value, "detectable"), (low, "detectable_low"), (high, "detectable_high")):
        assert rounds_up(shown, own[name])


def test_an_arm_with_a_spread_of_its_own_widens_what_can_be_seen() -> None:
    race = copy.deepcopy(ALL["race"])
    shared, wild = race["paired"]["full-batch"]["detectable_low"], race["paired"]["full-span"]
    wild |= {name: 20 * wild[name] for name in ("detectable", "detectable_low", "detectable_high")}
    value, largest, low, high = seen_in(
        next(text for text in found(race=race)["sentences"] if text.startswith("By held-out loss")), "nats"
    )
    assert value is not None and rounds_up(largest, wild["detectable"]) and largest != value
    assert rounds_up(low, shared) and rounds_up(high, wild["detectable_high"])


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
    pair = own["full-batch"]["paired"]
    value, _, low, high = seen_in(text, "points")
    for shown, name in ((value, "detectable"), (low, "detectable_low"), (high, "detectable_high")):
        assert rounds_up(shown, 100 * pair[name])


def test_the_cost_is_a_run_not_a_guess() -> None:
    cost = found()["cost"]
    assert "210 steps of 28 rows, 376 k tokens: 2.3 minutes" in cost and "4.3 k to 4.5 k tokens" in cost
    assert "A step of random x7 has 4 different rows instead of 28." in cost
    assert found(race=None)["cost"] == ""


# ---------------------------------------------------------------- the sweep


def at_best(sweep: dict[str, Any]) -> list[str]:
    return [text for text in found(sweep=sweep)["sentences"] if text.startswith("Each strategy at its best")]


def test_each_strategy_at_its_best_is_said_once_and_with_its_numbers() -> None:
    (text,) = at_best(ALL["sweep"])
    assert "its best learning_rate, chosen for each seed by the others" in text
    for best in ALL["sweep"]["best"]:
        if best["paired"]:
            assert f"{best['strategy']} {VERBS[best['paired']['better'], best['strategy']]} random, " in text


VERBS = {
    ("fully-explored", "fully-explored"): "is better than",
    (None, "span"): "cannot be told from",
    (None, "fully-explored"): "cannot be told from",
    ("random", "span"): "is worse than",
}


@pytest.mark.parametrize("better", [None, "fully-explored"])
def test_the_verb_follows_the_test(better: str | None) -> None:
    sweep = copy.deepcopy(ALL["sweep"])
    sweep["best"][1]["paired"]["better"] = better
    sweep["best"][2]["paired"]["better"] = "random"
    (text,) = at_best(sweep)
    assert f"fully-explored {VERBS[better, 'fully-explored']} random" in text
    assert "span is worse than random" in text


def test_a_sweep_without_anything_to_compare_says_why() -> None:
    sweep = copy.deepcopy(ALL["sweep"])
    for best in sweep["best"][1:]:
        best["paired"] = dict.fromkeys(best["paired"]) | {"note": "no random masking in sweep.strategy"}
    assert at_best(sweep) == [
        "Each strategy at its best learning_rate: nothing could be tested, no random masking in "
        "sweep.strategy."
    ]
    assert at_best(sweep | {"best": []}) == []


def test_axes_are_named_by_their_ends_where_these_differ() -> None:
    assert short_names(["strategy", "run.optimizer.learning_rate"]) == {
        "strategy": "strategy",
        "run.optimizer.learning_rate": "learning_rate",
    }
    alike = ["run.data.max_rows", "run.evaluation.max_rows"]
    assert short_names(alike) == dict(zip(alike, alike, strict=True))

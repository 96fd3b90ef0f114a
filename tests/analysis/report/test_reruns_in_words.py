"""Arms that were trained again for fewer steps: in a sentence, a figure and a table, whichever way they end."""

import copy
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli.analysis.paired import Contest, pair_up, spread_of
from fmlm_cli.analysis.report.figures.drawing import write_figure
from fmlm_cli.analysis.report.findings.whole import verdict
from fmlm_cli.analysis.report.race import race_part
from fmlm_cli.analysis.report.values import Arms
from fmlm_cli.analysis.results.comparison import ComparisonResults, Measurements, RerunResult
from fmlm_cli.analysis.results.plain import as_json, from_json
from tests.analysis.report.comparison import made_json

ALL = made_json()
BASE = {int(seed): loss for seed, loss in ALL["race"]["final"]["random"]["values"].items()}


def with_rerun(shift: float, noise: float = 0.001, *, diverged: bool = False) -> dict[str, Any]:
    """The race, with an arm trained again whose losses are the baseline's and `shift`, about `noise` off."""
    losses: dict[int, float | None] = {seed: BASE[seed] + shift + noise * (seed - 1) for seed in BASE}
    if diverged:
        losses[1] = None
    contest = Contest("random", frozenset())
    paired = contest.judge({"full-epoch": pair_up(losses, BASE)})["full-epoch"]
    again = RerunResult(**vars(spread_of(losses)), steps=181, share=181 / 210, paired=paired)
    race = copy.deepcopy(ALL["race"]) | {"reruns": {"full-epoch": as_json(again)}}
    return ALL | {"race": race}


@pytest.mark.parametrize(
    ("shift", "noise", "words"),
    [
        (-0.05, 0.001, "lower still, so more than the rest is saved (p < 0.001)"),
        (+0.05, 0.001, "higher, so less than the rest is saved (p < 0.001)"),
        (0.001, 0.02, "not told apart (p ="),
    ],
)
def test_what_a_shorter_schedule_ends_at_is_said(shift: float, noise: float, words: str) -> None:
    sentences = verdict(from_json(Measurements, with_rerun(shift, noise))).sentences
    (text,) = [text for text in sentences if text.startswith("Trained again")]
    assert "for 86 % of the tokens" in text and "fully-explored (epoch) ends at" in text
    assert words in text and "random ends after all of them" in text


def test_a_rerun_that_diverged_is_not_compared() -> None:
    sentences = verdict(from_json(Measurements, with_rerun(0.0, diverged=True))).sentences
    (text,) = [text for text in sentences if text.startswith("Trained again")]
    assert "could not be compared: diverged with seed 1" in text


def test_the_reports_race_shows_it(tmp_path: Path) -> None:
    results = from_json(ComparisonResults, with_rerun(-0.05))
    part = race_part(results, Arms.of(results))
    (exhibit,) = [exhibit for exhibit in part.exhibits if exhibit.name == "reruns"]
    assert exhibit.table is not None
    assert [row[:3] for row in exhibit.table.rows] == [
        ("random", "210", "100 %"),
        ("fully-explored (epoch)", "181", "86 %"),
    ]
    write_figure(exhibit.draw, exhibit.name, tmp_path)
    assert (tmp_path / "reruns.svg").is_file()


def test_without_reruns_there_is_nothing_of_them() -> None:
    results = from_json(ComparisonResults, ALL)
    assert "reruns" not in {exhibit.name for exhibit in race_part(results, Arms.of(results)).exhibits}
    assert not any(text.startswith("Trained again") for text in results.verdict.sentences)

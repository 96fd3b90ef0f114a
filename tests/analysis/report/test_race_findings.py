"""What is said of races, in words that follow from their numbers."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fmlm_cli.analysis.report.figures.drawing import WIDE, house_style
from fmlm_cli.analysis.report.findings.learning import steps_to_learn
from fmlm_cli.analysis.report.race import race_part
from fmlm_cli.analysis.report.summary import setup_table
from fmlm_cli.analysis.report.values import Arms
from fmlm_cli.analysis.results.comparison import ComparisonResults, CurveResult, RaceResult
from fmlm_cli.analysis.statistics import detectable_effect
from tests.analysis.report.comparison import ARMS, made_arm
from tests.analysis.report.races import MADE, START, UNIGRAM, by_seed, compared, race_of, told

NAMES = list(ARMS)
GAINS = np.array([0.0, 0.0, 0.03, 0.08, 0.05, 0.15])  # nats, in the order of the arms


def raced(
    gains: Any = GAINS, noise: float = 0.002, seeds: int = 3, end: float = 5.0, **how: Any
) -> RaceResult:
    rng = np.random.default_rng(1)
    losses = end - gains[:, None] + noise * rng.standard_normal((len(gains), seeds))
    return race_of(by_seed(losses, NAMES[: len(gains)]), **how)


def part_of(results: ComparisonResults) -> Any:
    return race_part(results, Arms.of(results))


# ---------------------------------------------------------------- the headline


def test_the_headline_names_the_lowest_with_the_interval_that_holds_for_all() -> None:
    race = raced()
    pair = race.paired["full-epoch"]
    assert pair.simultaneous_high is not None and pair.high is not None and pair.tests == 4
    assert pair.simultaneous_high > pair.high
    text = compared(race).verdict.headline
    found = re.fullmatch(
        r"fully-explored \(epoch\) is better than random: held-out loss lower by ([\d.]+) nats \(([\d.]+) to "
        r"[\d.]+, allowing for the choice among 4\)",
        text,
    )
    assert found is not None, text
    assert float(found[1]) == pytest.approx(-(pair.mean or 0), abs=6e-4)
    assert float(found[2]) == pytest.approx(-pair.simultaneous_high, abs=6e-4)


def test_of_one_candidate_the_interval_is_its_own() -> None:
    text = compared(raced(np.array([0.0, 0.05]))).verdict.headline
    assert re.fullmatch(r"random x7 is better than .* nats \([\d.]+ to [\d.]+\)", text), text


def test_the_headline_where_nothing_is_better() -> None:
    text = compared(raced(np.zeros(6), 0.05, seeds=5)).verdict.headline
    assert text == "No masking could be told from random"
    text = compared(raced(np.array([0.0, -0.1, 0.0]), 0.004)).verdict.headline
    assert text == "No masking could be told to be better than random; random x7 is worse"


def test_what_only_holms_later_steps_tell_has_no_interval() -> None:
    """Of two, the worse one is told at alpha / 2, and the better one at alpha: its own interval, no other."""
    base = np.array([5.0, 5.0, 5.0])
    losses = np.stack([base, base + 0.2 + [0, 0.001, -0.001], base - 0.1 + [0, 0.032, -0.032]])
    race = race_of(by_seed(losses, NAMES[:3]))
    pair = race.paired["full-batch"]
    assert 0.025 < (pair.p_value or 0) < 0.05 and pair.better == "full-batch"
    text = compared(race).verdict.headline
    assert re.fullmatch(
        r"fully-explored \(batch\) is better than random \(p = 0.0\d+ after Holm’s correction\), by how much is open",
        text,
    ), text


def test_a_fresh_control_does_not_win_and_is_compared_with_the_baseline() -> None:
    results = compared(raced(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.3]), 0.02, seeds=5))
    assert results.verdict.headline == "No masking could be told from random"
    text = told(results, "For scale: rows that never come twice, random (fresh rows), against random: −0.3")
    assert results.race is not None
    p = results.race.paired["fresh"].p_value
    assert p is not None and p < 0.001 and text.endswith(" nats, p < 0.001.")


# ---------------------------------------------------------------- learning


def test_steps_to_learn_are_those_of_the_line() -> None:
    """One nat above word frequencies, at 0.01 a step: 100 more; the slowest seed counts."""
    steps = (0, 10, 20, 30)

    def run(pace: float) -> CurveResult:
        return CurveResult(steps, steps, tuple(UNIGRAM + 1 - pace * (step - 30) for step in steps))

    race = raced(np.zeros(2), seeds=2)
    curves = {**race.curves, "random": {0: run(0.01), 1: run(0.05)}}
    assert steps_to_learn(replace(race, curves=curves), "random") == 130
    for rising in (-0.01, 0.0, 1e-5):  # the last would take a hundred thousand steps
        curves = {**curves, "random": {0: run(0.01), 1: run(rising)}}
        assert steps_to_learn(replace(race, curves=curves), "random") is None


def test_where_nothing_is_learnt_it_says_how_long_it_takes() -> None:
    results = compared(raced(end=7.0, steps=30), steps=30)
    assert results.race is not None
    steps = steps_to_learn(results.race, "full-epoch")
    assert steps is not None
    headline = results.verdict.headline
    found = re.fullmatch(
        r"Too short to tell: nothing learnt yet in 30 steps, where it takes about (\d+)", headline
    )
    assert found is not None and steps <= int(found[1]) < 1.1 * steps + 1, headline
    assert "where word frequencies alone come to 6.060" in told(
        results, "The lowest, fully-explored (epoch), goes"
    )
    part = part_of(results)
    assert [own.name for own in part.exhibits] == ["loss-curves", "final-loss"]
    assert any(note.startswith("Tokens to the same loss are not compared") for note in part.notes)
    assert not told(results, "Of the two lowest")


def test_where_it_does_not_fall_no_steps_are_promised() -> None:
    results = compared(raced(end=5.6, start=5.0, steps=30), steps=30)
    assert results.verdict.headline == (
        "Too short to tell: nothing learnt yet in 30 steps, with a loss that hardly falls, if at all"
    )
    assert "another learning rate" in told(results, "The lowest")


def test_arms_that_are_behind_are_named() -> None:
    results = compared(raced(np.array([0.0, -1.5, 0.05])))
    text = told(results, "Not with every seed below word frequencies and its own start")
    assert text.endswith(": random x7.")


def test_how_many_seeds_would_tell_what_was_seen() -> None:
    rng = np.random.default_rng(3)
    losses = 5 + 0.03 * rng.standard_normal((3, 4))
    race = race_of(by_seed(losses, NAMES[:3]))
    text = told(compared(race), "The largest difference seen")
    pair = max(race.paired.values(), key=lambda pair: abs(pair.mean or 0))
    assert pair.sd is not None and pair.mean is not None and pair.detectable is not None
    found = re.search(r"would take about (\d+) seeds", text)
    assert found is not None
    seeds, spread = int(found[1]), pair.detectable / detectable_effect(4, 0.025)
    assert (
        detectable_effect(seeds, 0.025) * spread
        <= abs(pair.mean)
        < detectable_effect(seeds - 1, 0.025) * spread
    )
    assert not told(compared(raced()), "The largest difference seen")  # where something was told
    alike = race_of(by_seed(5 + np.array([[0, 0, 0], [1e-4, -1e-4, 1e-7]]), NAMES[:2]))
    assert "more than 1,000 seeds" in told(compared(alike), "The difference seen")


def test_two_seeds_are_few() -> None:
    text = told(compared(raced(seeds=2)), "With 2 seeds an interval reaches 12.7 standard errors")
    assert "3 seeds 4.3, with 5 seeds 2.8" in text
    assert not told(compared(raced(seeds=3)), "With 3 seeds")


# ---------------------------------------------------------------- what intervals hold for


@pytest.mark.parametrize(
    ("data", "held_out", "words"),
    [
        ((840, 32_000, True), (512, 1_500, True), "Each seed draws its own 840 of 32,000 training rows and 512 of 1,500 held-out rows, so intervals hold for another sample of this text."),
        ((840, 32_000, True), (1_500, 1_500, False), "Each seed draws its own 840 of 32,000 training rows, but there are 1,500 held-out rows, the same with every seed: another sample of text would add to the spread."),
        ((840, 32_000, False), (512, 1_500, False), "There are 840 of 32,000 training rows and 512 of 1,500 held-out rows, the same with every seed: another sample of text would add to the spread."),
    ],
)  # fmt: skip
def test_rows_that_are_drawn_anew_are_said(data: Any, held_out: Any, words: str) -> None:
    assert MADE.evaluation is not None
    changed = {
        "data": replace(MADE.data, **dict(zip(("rows", "of_rows", "by_seed"), data, strict=True))),
        "evaluation": replace(
            MADE.evaluation, **dict(zip(("rows", "of_rows", "by_seed"), held_out, strict=True))
        ),
    }
    results = compared(raced(), **changed)
    assert words in told(results, "The loss is that of single tokens")
    assert not [cell for row in setup_table(results).rows for cell in row if re.search("[,;:.] ?[,;:]", cell)]


def test_the_first_pass_is_said_to_be_random_masking() -> None:
    begin = "In the first of 7 passes, 30 of 210 steps, fully-explored (epoch) masks exactly as random does"
    assert told(compared(raced()), begin)
    arms = tuple(replace(made_arm(name, ARMS[name]), passes=1.5) for name in NAMES)
    assert not told(compared(raced(), arms=arms), "In the first")


def test_tokens_saved_are_of_a_chosen_arm_and_say_where_in_its_schedule_it_is() -> None:
    results = compared(raced())
    (exhibit,) = (own for own in part_of(results).exhibits if own.name == "tokens-to-reach")
    assert "allowing for the choice among 4" in exhibit.says
    assert "may need more tokens or fewer" in exhibit.says and "mid-schedule" in exhibit.says
    given = compared(raced(), settings={"out": "comparison", "race": {"target_loss": 5.5}})
    (exhibit,) = (own for own in part_of(given).exhibits if own.name == "tokens-to-reach")
    assert "mid-schedule" not in exhibit.says


def test_word_frequencies_are_in_the_figures_sight() -> None:
    for unigram, shown in ((UNIGRAM, True), (START + 20, False)):
        results = compared(raced(unigram=unigram, start=START))
        exhibit = part_of(results).exhibits[0]
        assert f"word frequencies alone come to {unigram:.3f}" in exhibit.says
        with house_style():
            lines = exhibit.draw(WIDE).axes[0].get_lines()
        assert any(str(line.get_label()).startswith("word frequencies") for line in lines) == shown

"""Whatever runs and scores are lacking: there is a report, and only arms with every seed are compared."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fmlm_cli.analysis.report.figures.drawing import NARROW, WIDE, house_style
from fmlm_cli.analysis.report.html import page
from fmlm_cli.analysis.report.markdown import document
from fmlm_cli.analysis.report.summary import arms_table, glance, setup_table, summary_of
from fmlm_cli.analysis.report.values import Arms
from fmlm_cli.analysis.report.writing import parts_of, write_report
from fmlm_cli.analysis.results.comparison import ComparisonResults
from fmlm_cli.analysis.results.plain import as_json, from_json
from tests.analysis.report.races import compared, race_of, told

NAMES = ("random", "full-batch", "full-epoch", "fresh")
ENDS = st.sampled_from([4.9, 5.0, 5.013, 5.1, 6.5])
RUNS = st.lists(ENDS | st.none(), min_size=3, max_size=3)
EVERY = [5.0, 5.013, 4.9]
NONE = [None] * 3
TABLES = st.tuples(*[RUNS] * len(NAMES))
TWICE = re.compile(r"\b(\w+) \1\b")  # a word
ODD = re.compile(r"\b(nan|inf|None)\b")


def made(table: tuple[list[float | None], ...], scored: tuple[list[float | None], ...]) -> ComparisonResults:
    """A race, and a task in which every run that diverged has no score, and some others."""
    losses = {arm: dict(enumerate(own)) for arm, own in zip(NAMES, table, strict=True)}
    scores = {
        arm: {seed: None if losses[arm][seed] is None or s is None else s / 10 for seed, s in enumerate(own)}
        for arm, own in zip(NAMES, scored, strict=True)
    }
    return compared(race_of(losses), scores)


@settings(max_examples=60)
@given(TABLES, TABLES)
@example((EVERY, [5.0, None, 4.9], EVERY, EVERY), (EVERY,) * 4)
@example((NONE, EVERY, EVERY, EVERY), (EVERY,) * 4)
@example((EVERY, NONE, NONE, EVERY), (EVERY,) * 4)
@example((EVERY, EVERY, EVERY, NONE), (EVERY, EVERY, NONE, EVERY))
@example((NONE, NONE, NONE, EVERY), (EVERY,) * 4)
@example((NONE,) * 4, (NONE,) * 4)
def test_whatever_diverged_there_is_a_report(
    table: tuple[list[float | None], ...], scored: tuple[list[float | None], ...]
) -> None:
    results = made(table, scored)
    arms, parts = Arms.of(results), parts_of(results)
    assert from_json(ComparisonResults, as_json(results)) == results
    setup = [setup_table(results), arms_table(arms)]
    summary = summary_of(results, arms)
    drawn = {exhibit.name: ("", "") for part in parts for exhibit in part.exhibits}
    for text in (page(summary, parts, drawn, setup, "", ""), document(summary, parts, setup, "", "")):
        assert not ODD.search(text)
    for sentence in (results.verdict.headline, *results.verdict.sentences):
        assert not TWICE.search(sentence), sentence
    assert results.race is not None
    for arm, own in zip(NAMES[1:], table[1:], strict=True):
        compared_at_all = None not in (*own, *table[0])
        assert (results.race.paired[arm].n is not None) == compared_at_all
        assert (
            compared_at_all
            or not results.race.tokens_to_reach.get(arm)
            or not results.race.tokens_to_reach[arm].ratio.tested
        )
    lacking = [arm for arm, own in zip(NAMES, table, strict=True) if None in own]
    sentence = told(results, "Diverged: ")
    assert bool(sentence) == bool(lacking)
    first_table = glance(results, arms)
    assert first_table is not None
    order = [row[0].removesuffix(", baseline").removesuffix(", control") for row in first_table.rows]
    assert order.pop() == "word frequencies alone" or all(None in own and own == NONE for own in table)
    for arm in lacking:
        assert arms.label(arm) in sentence
    whole = [
        place
        for place, name in enumerate(order)
        if name in {arms.label(n) for n in NAMES[:3] if n not in lacking}
    ]
    assert whole == list(range(len(whole)))


@pytest.mark.slow
@settings(max_examples=8)
@given(TABLES)
@example((EVERY, [5.0, None, 4.9], EVERY, EVERY))
@example((NONE, EVERY, EVERY, EVERY))
@example((EVERY, NONE, NONE, EVERY))
@example((NONE, NONE, NONE, EVERY))
@example((NONE,) * 4)
def test_whatever_diverged_can_be_drawn(table: tuple[list[float | None], ...]) -> None:
    with house_style():
        for part in parts_of(made(table, table)):
            for exhibit in part.exhibits:
                for width in (WIDE, NARROW):
                    figure = exhibit.draw(width)
                    engine = figure.get_layout_engine()
                    assert engine is not None
                    engine.execute(figure)


def test_an_arm_that_lacks_a_seed_is_shown_and_said(tmp_path: Path) -> None:
    results = made((EVERY, [4.0, None, 4.1], [4.8, 4.82, 4.7], EVERY), (EVERY,) * 4)
    assert results.verdict.headline.startswith("fully-explored (epoch) is better than random")
    assert "allowing for" not in results.verdict.headline  # one was tested
    assert told(results, "Diverged") == "Diverged: fully-explored (batch) with seed 1; shown, not compared."
    write_report(tmp_path, results)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "4.050 (2 of 3 seeds)" in html and "diverged with seed 1" in html
    assert "fully-explored (batch) (2 of 3 seeds)" in html  # in the figure's legend


def test_without_the_baseline_nothing_is_compared() -> None:
    results = made(([5.0, 5.1, None], EVERY, [None, None, 4.9], EVERY), (EVERY,) * 4)
    assert results.verdict.headline == "Nothing could be compared with random: runs diverged"
    assert told(results, "Diverged") == (
        "Diverged: random with seed 2, fully-explored (epoch) with seeds 0 and 1; shown, not compared, and "
        "nothing is compared with random."
    )
    assert results.race is not None
    assert (
        results.race.paired["full-epoch"].note
        == "diverged with seeds 0 and 1, the baseline diverged with seed 2"
    )


def test_a_score_that_is_missing_is_said() -> None:
    results = made((EVERY,) * 4, (EVERY, [0.1, 0.2, None], EVERY, EVERY))
    assert told(results, "Without a score") == (
        "Without a score in citation_intent: fully-explored (batch) with seed 2; shown, not compared."
    )

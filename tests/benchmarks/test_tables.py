"""Tables and JSON of made-up numbers."""

import io
import json

import pytest
from rich.console import Console, RenderableType

from tests.benchmarks import tables
from tests.benchmarks.contest import Measured, Outcome
from tests.benchmarks.made import line, measured
from tests.benchmarks.material import model_configs

MACHINE = {
    "device": "a machine",
    "threads": 2,
    "precision": "float32",
    "peak": 1.5e11,
    "versions": {"torch": "2.13", "fmlm": "abc1234"},
}
LINE, OTHER = line("tiny"), line("other", "modernbert-base")
CONFIGS = {name: config.to_dict() for name, config in model_configs().items()}


@pytest.fixture
def outcome() -> Outcome:
    """Two rounds of one line, at 4 and 2 times, and one that did not run."""
    found = Outcome(not_run={"other": "no time left"})
    found.runs[LINE.ours] = {0: measured(4000, 4400), 1: measured(2000, 2000, memory=3.0)}
    found.runs[LINE.theirs] = {0: measured(1000, 1100, memory=None), 1: measured(1000, 1000, memory=None)}
    return found


def figures(outcome: Outcome) -> list[tables.Figures]:
    return tables.figures_of([LINE, OTHER], outcome, CONFIGS, {"full": 30522}, peak=1.5e11)


def printed(*what: RenderableType) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(*what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_ratio_is_of_windows_of_the_same_round(outcome: Outcome) -> None:
    ratio = tables.ratio_of(outcome.rounds(LINE))
    assert ratio.highest == pytest.approx(4400 / 1000)
    assert ratio.lowest == pytest.approx(2.0)  # not 2000 / 1100, which are of two rounds
    assert ratio.median == pytest.approx((2.0 + 4000 / 1100) / 2)


def test_share_and_floor_are_two_views_of_the_same_figures(outcome: Outcome) -> None:
    [found] = figures(outcome)
    assert found.tokens_per_step == 32 * 128
    seconds_per_step = found.tokens_per_step / tables.speed_of(found.ours)
    assert found.floor / seconds_per_step == pytest.approx(found.share(found.ours))


def test_a_run_that_tells_only_its_latest_speed_is_one_window_of_all_its_steps(outcome: Outcome) -> None:
    tokens = LINE.ours.pace.total * 32 * 128
    outcome.runs[LINE.ours] = {0: Measured(((tokens, 3.0),), None, 10.0, None)}
    [found] = figures(outcome)
    assert found.tokens_per_step == 32 * 128


def test_the_tables_keep_to_their_width_and_name_what_did_not_run(outcome: Outcome) -> None:
    found = figures(outcome)
    parts = (tables.main_table(found), tables.start_table(found))
    text = printed(*parts)
    assert all(len(row.rstrip()) <= tables.WIDTH for row in text.splitlines())
    assert "2.82 (2.00 to 4.40)" in text
    assert "2.00, –" in text  # the median memory of ours; none is known of the other
    assert "other" not in text
    told = printed(tables.not_run_list([LINE, OTHER], outcome))
    assert told.strip() == "not run: other (--only other): no time left"


def test_the_first_lines_say_what_is_compared_and_on_what() -> None:
    text = printed(tables.introduction("this against that", MACHINE))
    assert text.startswith("this against that")
    assert all(part in text for part in ("a machine, 2 threads, float32", "0.15 TFLOP/s", "fmlm abc1234"))


def test_the_json_has_every_window(outcome: Outcome) -> None:
    written = tables.to_json("this against that", MACHINE, figures(outcome), outcome)
    read = json.loads(json.dumps(written))
    [found] = read["lines"]
    seconds = [window["seconds"] for run in found["fmlm"]["runs"] for window in run["windows"]]
    assert [round(3 * 32 * 128 / each) for each in seconds] == [4000, 4400, 2000, 2000]
    assert found["stock"]["tokens_per_second"] == pytest.approx(1000)
    assert read["not_run"] == {"other": "no time left"}
    assert read["machine"] == MACHINE

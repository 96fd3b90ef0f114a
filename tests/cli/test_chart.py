"""Lines in characters: where they are, within the width, and without colours or braille too."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.cli.pictures.chart import draw_chart
from fmlm_cli.events import Chart, Line

FLOATS = st.floats(-1e6, 1e6)
LINES = st.lists(
    st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=30).map(
        lambda points: Line("run", *zip(*sorted(points), strict=True))
    ),
    min_size=1,
    max_size=30,
)


@given(lines=LINES, width=st.integers(20, 120), plain=st.booleans())
def test_any_lines_fit_the_width(lines: list[Line], width: int, plain: bool) -> None:
    text = draw_chart(Chart("loss", "step", lines), width, coloured=not plain, plain=plain).plain
    rows = text.split("\n")[2:18]
    body = [row for row in rows[:15] if row]
    assert max(map(len, body)) <= max(width, 20) + 8  # numbers of more than seven digits are wide
    assert not plain or text.isascii()


def test_a_straight_line_is_one() -> None:
    falling = Line("a", [0.0, 1.0], [1.0, 0.0])
    rows = draw_chart(Chart("loss", "step", [falling]), 38, coloured=False, plain=True).plain.split("\n")[
        2:16
    ]
    places = [[column for column, letter in enumerate(row[8:36]) if letter == "a"] for row in rows]
    assert all(places)
    assert places[0][0] == 0 and places[-1][-1] == 27
    assert all(left[-1] <= right[0] for left, right in pairwise(places))


@pytest.mark.parametrize("values", [[3.0, 3.0, 3.0], [3.0]])
def test_a_flat_line_or_a_point_is_drawn(values: list[float]) -> None:
    line = Line("a", [float(n) for n in range(len(values))], values)
    text = draw_chart(Chart("loss", "step", [line]), 60, coloured=False, plain=False).plain
    assert re.search("[\u2801-\u28ff]", text)


def test_letters_stand_in_the_order_of_the_ends() -> None:
    lines = [Line(str(n), [0.0, 1.0], [10.0, 1.0 + n / 100]) for n in range(5)]
    lines.insert(2, Line("none", [], []))  # a run without an evaluation
    rows = draw_chart(Chart("loss", "step", lines), 60, coloured=False, plain=False).plain.split("\n")[2:16]
    assert "".join(row[59:60] for row in rows).strip() == "fedba"


def test_names_cannot_command_the_terminal() -> None:
    line = Line("\x1b[2J", [0.0, 1.0], [1.0, 0.0])
    assert "\x1b" not in draw_chart(Chart("loss", "step", [line]), 60, coloured=True, plain=False).plain

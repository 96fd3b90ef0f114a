"""Lines drawn in characters: braille, each of which has 2 x 4 dots, or letters where there is none."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from rich.text import Text

from fmlm_cli.cli.markup import visible
from fmlm_cli.events import Chart, Line

_ROWS = 14
_NUMBER = 8  # columns of a number beside the axis, and the axis
_TAG = 2  # columns behind the lines, for their letters
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_COLOURS = ("blue", "dark_orange3", "green", "magenta", "yellow", "cyan", "red", "bright_black")
_BRAILLE = 0x2800
_DOT = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by the row and the column in a character


class _Canvas:
    """Dots by the character that they are in, each of one line."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.dots = [[0] * columns for _ in range(rows)]
        self.line = [[-1] * columns for _ in range(rows)]

    def draw(self, line: int, points: Sequence[tuple[float, float]]) -> None:
        """Points in dots from the upper left corner, joined."""
        for x, y in points[:1]:
            self._dot(line, x, y)
        for (x, y), (to_x, to_y) in pairwise(points):
            steps = max(1, math.ceil(max(abs(to_x - x), abs(to_y - y))))
            for step in range(1, steps + 1):
                self._dot(line, x + (to_x - x) * step / steps, y + (to_y - y) * step / steps)

    def _dot(self, line: int, x: float, y: float) -> None:
        column = min(max(round(x), 0), 2 * self.columns - 1)
        row = min(max(round(y), 0), 4 * self.rows - 1)
        self.dots[row // 4][column // 2] |= _DOT[row % 4][column % 2]
        self.line[row // 4][column // 2] = line


def draw_chart(chart: Chart, width: int, *, coloured: bool, plain: bool) -> Text:
    """The chart in so many columns. `plain`: in ASCII alone; without colours, letters tell lines apart."""
    lines = {place: line for place, line in enumerate(chart.lines) if line.x}
    x_ends = _ends(x for line in lines.values() for x in line.x)
    y_ends = _ends(y for line in lines.values() for y in line.y)
    canvas = _Canvas(max(width - _NUMBER - _TAG, 10), _ROWS)
    placed = {place: _placed(line, x_ends, y_ends, canvas) for place, line in lines.items()}
    for place, points in placed.items():
        canvas.draw(place, points)
    text = Text(f"\n{visible(chart.title)}\n", style="bold")
    tags = _tags({place: points[-1][1] / 4 for place, points in placed.items()})
    for row in range(_ROWS):
        text.append(_axis(row, y_ends, plain=plain), style="not bold dim")
        text.append_text(_row(canvas, row, coloured=coloured, plain=plain))
        text.append(
            f" {_letter(tags[row])}\n" if row in tags else "\n", style=_style(tags.get(row), coloured)
        )
    text.append(_x_axis(chart, x_ends, canvas.columns, plain=plain), style="not bold dim")
    for place, line in lines.items():
        text.append(f"\n{_letter(place)}", style=_style(place, coloured))
        text.append(f"  {visible(line.name)}  {line.y[-1]:.3f}", style="not bold")
    return text


def _ends(values: Iterator[float]) -> tuple[float, float]:
    """The least and the largest, which differ."""
    every = list(values)
    low, high = min(every), max(every)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _placed(
    line: Line, x_ends: tuple[float, float], y_ends: tuple[float, float], canvas: _Canvas
) -> list[tuple[float, float]]:
    """A line's points in dots of the canvas."""
    across = (2 * canvas.columns - 1) / (x_ends[1] - x_ends[0])
    down = (4 * canvas.rows - 1) / (y_ends[1] - y_ends[0])
    points = zip(line.x, line.y, strict=True)
    return [((x - x_ends[0]) * across, (y_ends[1] - y) * down) for x, y in points]


def _tags(ends: dict[int, float]) -> dict[int, int]:
    """Which line's letter stands in which row, near where that line ends; one to a row, the lowest first."""
    tags: dict[int, int] = {}
    for place, end in sorted(ends.items(), key=lambda item: -item[1]):
        row = min(int(end), _ROWS - 1, min(tags, default=_ROWS) - 1)
        if row < 0:
            break
        tags[row] = place
    return tags


def _row(canvas: _Canvas, row: int, *, coloured: bool, plain: bool) -> Text:
    """A row of the canvas."""
    text = Text()
    for dots, line in zip(canvas.dots[row], canvas.line[row], strict=True):
        if not dots:
            text.append(" ")
        elif plain:
            text.append(_letter(line))
        else:
            text.append(chr(_BRAILLE + dots), style=_style(line, coloured))
    return text


def _axis(row: int, y_ends: tuple[float, float], *, plain: bool) -> str:
    low, high = y_ends
    is_named = row in (0, _ROWS // 2, _ROWS - 1)
    value = high - (high - low) * (4 * row + 1.5) / (4 * _ROWS - 1)
    edge = ("+" if is_named else "|") if plain else ("┤" if is_named else "│")
    return f"{value if is_named else '':>{_NUMBER - 1}.3f}{edge}" if is_named else " " * (_NUMBER - 1) + edge


def _x_axis(chart: Chart, x_ends: tuple[float, float], columns: int, *, plain: bool) -> str:
    """The lower edge, and the ends of x with what it counts between them."""
    edge = f"{'+' if plain else '└'}{('-' if plain else '─') * columns}"
    low, high = (_compact(end) for end in x_ends)
    between = visible(chart.x_label).center(max(columns - len(low) - len(high), 0))
    return f"{edge:>{_NUMBER + columns}}\n{' ' * _NUMBER}{low}{between}{high}"


def _compact(value: float) -> str:
    """12.3M, 2.5."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:.4g}"


def _letter(place: int) -> str:
    return _LETTERS[place % len(_LETTERS)]


def _style(place: int | None, coloured: bool) -> str:
    return f"not bold {_COLOURS[place % len(_COLOURS)]}" if coloured and place is not None else "not bold"

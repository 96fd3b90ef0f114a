"""What a recipe tells while it works: small facts, which a console (or nobody) turns into words.

Recipes take `emit: Emit` and know nothing of consoles. Every event is a frozen dataclass.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Event:
    """Base of everything that can be emitted."""


@dataclass(frozen=True)
class Note(Event):
    """A plain sentence worth reading."""

    text: str


@dataclass(frozen=True)
class Caution(Event):
    """A sentence about something that may not be what the user wants.

    `code`: what it is about, for whoever has to tell kinds of cautions apart; "" where nobody has to.
    """

    text: str
    code: str = ""


@dataclass(frozen=True)
class Doing(Event):
    """What begins now and cannot say how far it is: of interest only where it takes its time."""

    text: str


@dataclass(frozen=True)
class Facts(Event):
    """Some facts: a title and name-value rows."""

    title: str
    rows: Mapping[str, str]


@dataclass(frozen=True)
class Grid(Event):
    """A table of several columns; the first names the row. `narrow`: one for where this would not fit."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    narrow: "Grid | None" = None


@dataclass(frozen=True)
class NextStep(Event):
    """What to do next, and the command line that does it, which is to be copied."""

    text: str
    command: str


@dataclass(frozen=True)
class Prediction(Event):
    """A word of held-out text that was masked: what stands around it, and what a model expected there.

    `guesses`: tokens and their probabilities, the likeliest first.
    """

    before: str
    word: str
    after: str
    guesses: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class MaskedRow(Event):
    """A row of tokens and the masks that each is in; padding is left out.

    `texts`: what each token stands for, with the blank before it. `maskable`: whether it can be masked.
    `masks`: the numbers, from 1, of the masks that hold it. `joined`: whether it goes on the unit of the
    token before it, in these masks. `seen`: what the first mask lets the model see. `counts`: tokens in each
    mask.
    """

    number: int
    texts: Sequence[str]
    maskable: Sequence[bool]
    masks: Sequence[Sequence[int]]
    joined: Sequence[bool]
    seen: Sequence[str]
    counts: Sequence[int]


@dataclass(frozen=True)
class Progress(Event):
    """How far a counted piece of work has come; `total` 0 means unknown.

    `done` and `total` are in `unit`; `details` are figures to show beside the bar, such as
    `{"documents": "12,345", "tokens/s": "250,000"}`. The same `task` is the same bar.
    """

    task: str
    done: float
    total: float
    unit: str
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained(Event):
    """One training record, as written to metrics.jsonl, with what a live line needs beside it."""

    record: Mapping[str, float]
    total_steps: int
    seconds_left: float


@dataclass(frozen=True)
class Evaluated(Event):
    """One evaluation record, as written to metrics.jsonl."""

    record: Mapping[str, float | str]


@dataclass(frozen=True)
class Remarked(Event):
    """Something out of the ordinary about a step: as written to metrics.jsonl, and in words."""

    record: Mapping[str, Any]
    text: str


@dataclass(frozen=True)
class Line:
    """A line of a chart: finite points from left to right."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Chart(Event):
    """Some lines in one picture; those of one name are alike in all charts. `x_label`: what x counts."""

    title: str
    x_label: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Scoreboard(Event):
    """A table of scores that fills in while a grid of runs is worked through.

    `rows`: for each name its cells, one text a column, "" where there is nothing yet. `latest`: what has just
    been found or, where `running`, how far the run at work has come. `done` and `total` count runs.
    """

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[str]]
    latest: str
    running: bool
    done: int
    total: int
    seconds_left: float | None


Emit = Callable[[Event], None]


def starting_anew(root: Path) -> Note:
    """For a call that was to go on where there is nothing: the folder's name may be mistyped."""
    return Note(f"nothing in {root} to go on from: starting anew")


def counted(number: int, thing: str, plural: str = "") -> str:
    """A number of things: `1 seed`, `1,200 seeds`; `plural` where that is not the word with an s."""
    return f"{number:,} {thing if number == 1 else plural or thing + 's'}"


def numbered(thing: str, numbers: Sequence[int]) -> str:
    """Things by their numbers: `seed 1`, `seeds 0, 1 and 4`."""
    *others, last = map(str, numbers)
    return f"{thing}s {', '.join(others)} and {last}" if others else f"{thing} {last}"


def data_size(size: int) -> str:
    """Bytes in the unit that suits."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return counted(size, "byte")


def duration(seconds: float) -> str:
    """In the unit that suits."""
    for unit, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{max(seconds, 1):.0f} seconds" if seconds >= 1.5 else "a second"


def clock_time(seconds: float) -> str:
    """h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def ignore(event: Event) -> None:
    """The `Emit` that says nothing."""

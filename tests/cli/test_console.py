"""What users and files bring is shown as it stands: rich's markup, escape sequences, letters of no encoding."""

import io
import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console as RichConsole
from rich.markup import render

from fmlm_cli import events
from fmlm_cli.cli.console import Console
from fmlm_cli.cli.markup import escape, visible
from fmlm_cli.cli.pictures.live_line import fitted, room_beside, training_figures

RECORD = {"step": 1, "eval_loss": 1.0, "eval_accuracy": 0.5, "unigram_loss": 2.0}
EVENTS: list[Callable[[str], events.Event]] = [
    events.Note,
    events.Caution,
    lambda name: events.Facts(name, {name: name}),
    lambda name: events.Grid(name, [name], [[name]]),
    lambda name: events.Chart(name, "step", [events.Line(name, [0.0, 1.0], [1.0, 0.0])]),
    lambda name: events.Prediction(name, name, name, [(name, 0.5)]),
    lambda name: events.Evaluated({**RECORD, "evaluation": name}),
    lambda name: events.Scoreboard("title", ["seed 0"], {name: ["1"]}, name, False, 1, 1, 0.0),
]


TRAINED = {
    "step": 1,
    "loss": 1.0,
    "learning_rate": 1e-4,
    "grad_norm": 1.0,
    "tokens_per_second": 123456.0,
    "peak_share": 0.4,
    "data_wait_share": 0.0,
    "memory_gib": 12.34,
}


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return "".join(capsys.readouterr())


TEXTS = st.lists(st.text("ab", min_size=1, max_size=8), max_size=4).map(" ".join)
LINES = st.lists(TEXTS, min_size=1, max_size=2).map("\n".join)  # of a cell


@pytest.mark.parametrize(
    "name", ["[red]x[/red]", "[/]", "[bold]", "[link=http://x]y[/link]", ":smile:", "[1:x]"]
)
@pytest.mark.parametrize("make", EVENTS)
def test_markup_in_a_name_is_shown(
    make: Callable[[str], events.Event], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Console().emit(make(name))
    assert name in shown(capsys)


@pytest.mark.parametrize("make", EVENTS)
def test_no_escape_sequence_and_no_half_character_is_written(
    make: Callable[[str], events.Event], capsys: pytest.CaptureFixture[str]
) -> None:
    Console().emit(make("a\x1b[2J\r\x9b\udcffz"))
    written = shown(capsys)
    assert r"a\x1b[2J\r\x9b\udcffz" in written
    assert not {"\x1b", "\r", "\x9b", "\udcff"} & set(written)


@given(st.lists(st.lists(LINES, min_size=3, max_size=3), min_size=1, max_size=4))
def test_words_of_a_table_are_whole_where_they_have_room(rows: list[list[str]]) -> None:
    """And no line is longer than the terminal."""
    header, *rows = rows
    least = [
        max((len(word) for row in (header, *rows) for word in row[i].split()), default=0) for i in range(3)
    ]
    width = sum(least) + 4
    with patch.dict(os.environ, {"COLUMNS": str(max(width, 8))}), redirect_stdout(io.StringIO()) as stream:
        Console().emit(events.Grid("title", header, rows))
    lines = stream.getvalue().partition("title\n")[2].splitlines()
    assert all(len(line.rstrip()) <= max(width, 8) for line in lines)
    said = [word for line in lines for word in line.split()]
    assert sorted(said) == sorted(word for row in (header, *rows) for cell in row for word in cell.split())


def test_a_step_says_how_fast_it_was_and_what_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    for waiting in (0.004, 0.0099, 0.07):
        Console().emit(events.Trained({**TRAINED, "data_wait_share": waiting}, 9, 60.0))
        line = shown(capsys)
        wait = "  data wait 7%" if waiting == 0.07 else ""
        assert f"123,456 tokens/s  40% of peak{wait}  12.3 GiB  1:00 left" in line


DATED = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize("total", [60, 1_000_000])
def test_the_live_line_is_cut_nowhere(columns: int, total: int) -> None:
    """What does not fit is left out; the count, the loss and the time left are whole."""
    for wait in (0.0, 0.25):
        record = {**TRAINED, "loss": 12.345, "data_wait_share": wait, "step": total - 1}
        count = f"{total - 1:,}/{total:,}"
        room = room_beside("step", f"{total:,}/{total:,}", columns)
        line = fitted(training_figures(record), room)
        assert line.startswith("loss 12.345") and (len(line) <= room or line == "loss 12.345")
        assert columns < 80 or "tokens/s" in line
        assert columns < 200 or line == fitted(training_figures(record))
        console, out = Console(), io.StringIO()
        console._out = RichConsole(file=io.StringIO(), width=columns, force_terminal=True)
        console._show_live("step", total - 1, total, line)
        assert console._live is not None
        RichConsole(file=out, width=columns).print(console._live.get_renderable())
        console._stop_live()
        [shown_line] = out.getvalue().splitlines()
        assert columns < 80 or ("…" not in shown_line and count in shown_line and "left" in shown_line)


def test_in_the_log_of_a_job_lines_have_times_and_each_start_a_mark(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/fmlm", "pretrain", "--out", "a b"])
    told = [
        events.Note("one"),
        events.Caution("two"),
        events.Trained(TRAINED, 1, 0.0),
        events.Evaluated(RECORD),
        events.Progress("reading", 1, 0, ""),
    ]
    for _ in range(2):  # starts
        console = Console()
        for event in told:
            console.emit(event)
    lines = shown(capsys).splitlines()
    assert len(lines) == 2 * (1 + len(told)) and all(DATED.match(line) for line in lines)
    texts = [DATED.sub("", line) for line in lines]
    marks = [number for number, text in enumerate(texts) if text.startswith("===== ")]
    assert marks == [0, 1 + len(told)]
    assert f"fmlm pretrain --out 'a b' (process {os.getpid()} on " in texts[0]
    assert texts[1:3] == ["one", "note: two"]


def test_where_somebody_reads_there_are_no_times(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Console(needs_reader=True).emit(events.Note("one"))  # `fmlm inspect store | less`
    assert shown(capsys) == "one\n"
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", terminal)
    Console().emit(events.Note("one"))
    assert not re.search(r"\d\d:\d\d|=====", terminal.getvalue())


def test_tables_in_a_pipe_trail_no_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(needs_reader=True)
    console.emit(events.Facts("title", {"a": "short", "b": "x" * 40, "c": ""}))
    console.emit(events.Grid("title", ["name", "value"], [["a", "1"], ["b" * 30, ""]]))
    lines = shown(capsys).split("\n")
    assert len(lines) > 8 and [line for line in lines if line != line.rstrip()] == []


def test_what_a_model_says_is_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    Console(needs_reader=True).emit(events.Prediction("a", "word", "b", [(",", 0.06), ("word", 0.05)]))
    assert "model says: “,” 6%, “word” 5%" in shown(capsys)


def test_an_error_is_one_line_whatever_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    Console().error("error: no such file: a\nb[/red]\x1b[31m")
    assert shown(capsys) == "error: no such file: a\\nb[/red]\\x1b[31m\n"


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_what_can_be_shown_is_not_changed(text: str) -> None:
    assert visible(text) == text
    assert render(escape(text) + "[b][/b]").plain == text


def test_a_table_that_would_be_folded_gives_way_to_a_narrow_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = events.Grid("runs", ("", "loss"), [("a\n  random", "3.2")])
    wide = events.Grid("runs", ("", "strategy", "loss"), [("a" * 30, "random" * 5, "3.2")], narrow)
    for columns, there in ((60, "a\n  random"), (80, "a" * 30)):
        monkeypatch.setenv("COLUMNS", str(columns))
        Console(needs_reader=True).emit(wide)  # as `fmlm runs` does, whose lines have no times
        lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert there.split("\n")[0] in "\n".join(lines).replace("3.2", "").split()
        assert max(map(len, lines)) <= columns

"""Events as words: one live line where there is a terminal, plain lines where there is none."""

import errno
import os
import platform
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, TextIO, cast

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

from fmlm_cli import events
from fmlm_cli.cli.markup import escape
from fmlm_cli.cli.pages import wrapped
from fmlm_cli.cli.pictures.chart import draw_chart
from fmlm_cli.cli.pictures.live_line import Figure, bar_width, fitted, room_beside, training_figures
from fmlm_cli.cli.pictures.masked_row import COLOURS, show_row
from fmlm_cli.cli.silence import SilenceWatch
from fmlm_cli.cli.streams import LastingStream, not_writable
from fmlm_cli.errors import Interrupted, shortened

_FILE_WIDTH = 160
_PAGE_WIDTH = 110  # beyond which lines are hard to read
_CHART_WIDTH = 80
_LONGEST_COMMAND = 300  # of a command's words in a log
_BETWEEN = 2  # blanks between columns
_BOARD_FRAME = 5  # lines of a table of scores that are no rows
_PLAIN_SECONDS = 10.0  # between two plain lines about the same piece of work


class Console:
    """Shows events. A context manager: leaving it ends the live line.

    Where the standard output or the standard error can take no more it goes quiet. If it `needs_reader`, for
    the standard output is what the command is for, it raises there: `Interrupted` where a pipe has no reader
    any more, else `UserError`. Where that is `for_programs`, a text for `write`, cautions go to the
    standard error, and other events nowhere.
    """

    def __init__(self, *, needs_reader: bool = False, for_programs: bool = False) -> None:
        self._needs_reader, self._for_programs = needs_reader, for_programs
        self._stdout = LastingStream(sys.stdout)
        # Where there is no terminal (a file, a pipe), paths and commands are not to be folded at 80 columns.
        width = None if self._stdout.isatty() or "COLUMNS" in os.environ else _FILE_WIDTH
        self._out = _rich(self._stdout, width=width)
        self._err = _rich(LastingStream(sys.stderr))
        cautions = self._err if for_programs else self._out
        # In the log of a job one looks for when things happened, and where each start of it began.
        self._dated = not (self._stdout.isatty() or needs_reader or for_programs)
        self._begun = False
        self._live: Progress | None = None
        self._board: Live | None = None
        self._final_board = Table()
        self._tasks: dict[str, TaskID] = {}
        self._spoken: dict[str, float] = {}
        self._predicted = False
        self._doing = ""
        self._status: Status | None = None
        self._lock = threading.RLock()  # of the thread that watches for silence
        self._silence = SilenceWatch(self._break_silence)
        self._handlers: Mapping[type[events.Event], Any] = {
            events.Note: lambda event: self._say(escape(event.text)),
            events.Caution: lambda event: self._say(f"[yellow]note:[/yellow] {escape(event.text)}", cautions),
            events.Remarked: lambda event: self.emit(events.Caution(event.text)),
            events.Doing: self._begin,
            events.Facts: self._facts,
            events.Grid: self._grid,
            events.NextStep: self._next_step,
            events.Prediction: self._prediction,
            events.MaskedRow: self._masked_row,
            events.Chart: self._chart,
            events.Progress: self._progress,
            events.Trained: self._trained,
            events.Evaluated: self._evaluated,
            events.Scoreboard: self._scoreboard,
        }

    def __enter__(self) -> "Console":
        self._silence.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._silence.stop()
        with self._lock:
            self._end_status()
            self._stop_live()

    def emit(self, event: events.Event) -> None:
        """Show one event."""
        if self._for_programs and not isinstance(event, events.Caution | events.Remarked):
            return
        with self._lock:
            self._end_status()
            self._mark_beginning()
            self._handlers[type(event)](event)
            self._silence.told()
        self._check_reader()

    def write(self, text: str) -> None:
        """Write a text for programs, in UTF-8."""
        self._stdout.write_bytes(text.encode())
        self._check_reader()

    def page(self, laid_out: Callable[[int], str]) -> None:
        """Print a text of the width of the console; its styles are ANSI's."""
        width = min(self._out.width, _PAGE_WIDTH)
        self._out.print(Text.from_ansi(laid_out(width)), soft_wrap=True)
        self._check_reader()

    def error(self, line: str) -> None:
        """Print the line that a command ends with."""
        line = line.replace("\n", "\\n")  # a name may hold a line end
        if self._err.is_terminal:  # which would break it inside of words
            line = "\n".join(wrapped(line, self._err.width))
        when = self._time() if self._dated and _are_one(sys.stdout, sys.stderr) else ""
        self._err.print(f"{when}[red]{escape(line)}[/red]")

    def _check_reader(self) -> None:
        error = self._stdout.error
        if error is None or not self._needs_reader:
            return
        if error.errno == errno.EPIPE:
            raise Interrupted("", 128 + signal.SIGPIPE)
        raise not_writable(error)

    def _begin(self, event: events.Doing) -> None:
        self._doing = event.text

    def _break_silence(self) -> None:
        """Say that it is at work, in a terminal until the next event; in a log what it does, if it is known.

        Not where others read what it prints.
        """
        with self._lock:
            if self._for_programs or self._live is not None or self._board is not None:
                return
            if self._out.is_terminal:
                self._status = self._out.status(f"{escape(self._doing) or 'working'} ...", spinner="line")
                self._status.start()
            elif self._doing and not self._needs_reader:
                self._say(f"{escape(self._doing)} ...")
            self._doing = ""

    def _end_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _mark_beginning(self) -> None:
        """In a log, say once where a start began, and with which words."""
        if self._dated and not self._begun:
            self._begun = True
            command = escape(shortened(shlex.join(["fmlm", *sys.argv[1:]]), _LONGEST_COMMAND))
            self._say(f"===== {command} (process {os.getpid()} on {escape(platform.node())})")

    def _say(self, markup: str, console: RichConsole | None = None) -> None:
        """Print a line, with the time before it in a log."""
        line = markup.lstrip("\n")
        blank = markup[: len(markup) - len(line)]  # lines before it have no time
        when = self._time() if self._dated else ""
        (console or self._out).print(f"{blank}{when}{line}")

    def _time(self) -> str:
        return f"[dim]{datetime.now():%Y-%m-%d %H:%M:%S}[/dim] "

    def _facts(self, event: events.Facts) -> None:
        self._stop_live()
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim", no_wrap=len(max(event.rows, key=len, default="")) < 30)
        table.add_column(overflow="fold")
        for name, value in event.rows.items():
            table.add_row(escape(name), escape(value))
        # Not as the table's title, which would be folded to the table's width.
        self._out.print(f"\n[bold]{escape(event.title)}[/bold]")
        self._out.print(table, soft_wrap=False)

    def _grid(self, event: events.Grid) -> None:
        self._stop_live()
        columns = list(zip(event.header, *event.rows, strict=True))
        if event.narrow is not None and sum(_unfolded(columns)) > _room(columns, self._out.width):
            self._grid(event.narrow)
            return
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name, width in zip(event.header, _widths(columns, self._out.width), strict=True):
            table.add_column(escape(name), overflow="fold", width=width)  # no name or number is cut short
        for row in event.rows:
            table.add_row(*map(escape, row))
        self._out.print(f"\n[bold]{escape(event.title)}[/bold]")
        self._out.print(table, soft_wrap=False)

    def _next_step(self, event: events.NextStep) -> None:
        self._stop_live()
        self._out.print(f"\n[bold]next:[/bold] {escape(event.text)}:")
        self._out.print(f"  {escape(event.command)}")  # never folded, and without a time, to be copied

    def _prediction(self, event: events.Prediction) -> None:
        self._stop_live()
        if not self._predicted:
            self._out.print(
                "\n[bold]\\[MASK] predictions[/bold] on held-out text (in brackets: the word that was masked)"
            )
            self._predicted = True
        self._out.print(
            f"  ... {escape(event.before)} [bold cyan]\\[{escape(event.word)}][/bold cyan] "
            f"{escape(event.after)} ..."
        )
        guesses = (
            f"[green]“{escape(g)}” {p:.0%}[/green]" if g == event.word else f"“{escape(g)}” {p:.0%}"
            for g, p in event.guesses
        )
        self._out.print(f"      [dim]model says:[/dim] {', '.join(guesses)}")

    def _masked_row(self, event: events.MaskedRow) -> None:
        self._stop_live()
        many = self._out.color_system in ("256", "truecolor") and not self._out.no_color
        self._out.print(show_row(event, colours=many and len(event.counts) <= COLOURS), soft_wrap=False)

    def _chart(self, event: events.Chart) -> None:
        self._stop_live()
        width = min(self._out.width, _CHART_WIDTH) if self._out.is_terminal else _CHART_WIDTH
        coloured = self._out.color_system is not None and not self._out.no_color
        plain = "utf" not in self._out.encoding.lower()
        self._out.print(draw_chart(event, width, coloured=coloured, plain=plain), soft_wrap=False)

    def _progress(self, event: events.Progress) -> None:
        finished = bool(event.total) and event.done >= event.total
        figures = [
            Figure(f"{value} {name}", rank) for rank, (name, value) in enumerate(event.details.items())
        ]
        if self._out.is_terminal:
            room = room_beside(event.task, "100%", self._out.width)
            self._show_live(event.task, event.done, event.total, escape(fitted(figures, room)))
            if finished:
                self._drop_live(event.task)
        elif not finished and self._may_speak(event.task, at_once=not event.total):
            share = f" {event.done / event.total:.0%}" if event.total else ""
            self._say(escape(f"{event.task}{share}  {fitted(figures)}".rstrip()))

    def _trained(self, event: events.Trained) -> None:
        record, total = event.record, event.total_steps
        step = int(record["step"])
        figures = training_figures(record)
        if self._out.is_terminal:
            room = room_beside("step", f"{total:,}/{total:,}", self._out.width)
            self._show_live("step", step, total, fitted(figures, room))
            if step >= total:
                self._drop_live("step")
        elif step == total or self._may_speak("step"):
            left = events.clock_time(event.seconds_left)
            self._say(f"step {step:,}/{total:,}  {fitted(figures)}  {left} left")

    def _evaluated(self, event: events.Evaluated) -> None:
        record = event.record
        name = f" on {escape(str(record['evaluation']))}" if "evaluation" in record else ""
        self._say(
            f"[cyan]step {record['step']:,}[/cyan]  held-out loss{name} "
            f"[bold]{record['eval_loss']:.3f}[/bold]  accuracy {record['eval_accuracy']:.1%}  [dim](word "
            f"frequencies alone: {record['unigram_loss']:.3f})[/dim]"
        )

    def _scoreboard(self, event: events.Scoreboard) -> None:
        left = ""
        if event.seconds_left is not None and event.done < event.total:
            left = f", {events.clock_time(event.seconds_left)} left"
        progress = f"{event.done} of {event.total} done{left}"
        if not self._out.is_terminal:
            if not event.running or self._may_speak("scoreboard", at_once=False):
                self._say(f"{escape(event.latest)}  [dim]({progress})[/dim]")
            return
        rows = event.rows
        if len(rows) > self._out.height - _BOARD_FRAME:  # what is still open is worth more than what is done
            rows = {name: texts for name, texts in rows.items() if "" in texts}
        latest = Text(event.latest, style="dim", no_wrap=True, overflow="ellipsis")
        if self._board is None:
            self._board = Live(console=self._out, refresh_per_second=4)
            self._board.start()
        self._board.update(Group(_board(event, rows, progress), latest))
        self._final_board = _board(event, event.rows, progress)  # stays when the live one ends

    def _show_live(self, task: str, done: float, total: float, text: str) -> None:
        if self._live is None:
            count = (
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}")
                if task == "step"
                else TextColumn("{task.percentage:>3.0f}%")
            )
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=bar_width(self._out.width)),
                count,
                TextColumn("{task.fields[text]}"),
            )
            left = TimeRemainingColumn(compact=True, elapsed_when_finished=True)
            self._live = Progress(
                *columns, left, TextColumn("left"), console=self._out, transient=True, refresh_per_second=5
            )
            self._live.start()
        if task not in self._tasks:
            self._tasks[task] = self._live.add_task(task, total=total or None, text=text)
        self._live.update(self._tasks[task], completed=done, total=total or None, text=text)

    def _drop_live(self, task: str) -> None:
        if self._live is not None and task in self._tasks:
            self._live.remove_task(self._tasks.pop(task))
            if not self._tasks:
                self._stop_live()

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._tasks.clear()
        if self._board is not None:
            self._board.update(self._final_board)
            self._board.stop()
            self._board = None

    def _may_speak(self, task: str, at_once: bool = True) -> bool:
        """Whether the last plain line about this task is long enough ago, or may be the first."""
        now = time.monotonic()
        last = self._spoken.setdefault(task, float("-inf") if at_once else now)
        if now - last < _PLAIN_SECONDS:
            return False
        self._spoken[task] = now
        return True


def _are_one(*streams: TextIO) -> bool:
    """Whether streams go into one file or pipe, as those of a job do."""
    try:
        files = {(found.st_dev, found.st_ino) for found in (os.fstat(stream.fileno()) for stream in streams)}
    except (AttributeError, OSError, ValueError):  # none, closed, or no file of the system's
        return False
    return len(files) == 1


Columns = Sequence[Sequence[str]]  # of a table, each with its header


def _unfolded(columns: Columns) -> list[int]:
    """How wide columns are without a fold but those that texts bring."""
    lines = [[line for text in texts for line in text.splitlines()] for texts in columns]
    return [max(map(cell_len, texts), default=0) for texts in lines]


def _room(columns: Columns, width: int) -> int:
    """What is left to columns on lines of this width."""
    return width - _BETWEEN * (len(columns) - 1)


def _widths(columns: Columns, width: int) -> list[int | None]:
    """Of columns of a table, which so are folded between words; None where words have no room."""
    widths, room = _unfolded(columns), _room(columns, width)
    least = [max(map(cell_len, " ".join(texts).split()), default=0) for texts in columns]
    if sum(least) > room:
        return [None] * len(columns)
    while sum(widths) > room:
        shrinking = [place for place, width in enumerate(widths) if width > least[place]]
        widths[max(shrinking, key=widths.__getitem__)] -= 1
    return [*widths]


def _rich(stream: LastingStream, width: int | None = None) -> RichConsole:
    """A console of rich's that leaves a text as it is."""
    file = cast(TextIO, stream)
    return RichConsole(file=file, width=width, highlight=False, soft_wrap=True, emoji=False)


def _board(event: events.Scoreboard, rows: Mapping[str, Sequence[str]], progress: str) -> Table:
    """Some rows of a table of scores."""
    title = f"[bold]{escape(event.title)}[/bold], {progress}"
    table = Table(
        "", *event.columns, title=title, title_style="", title_justify="left", box=None, pad_edge=False
    )
    for name, texts in rows.items():
        table.add_row(escape(name), *(escape(text) or "[dim]·[/dim]" for text in texts))
    return table

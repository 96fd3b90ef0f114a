"""Runs the commands of a Markdown page as a person would, one after the other, and holds its output to them.

What is run, block by block:

- ```sh: a command a line (a backslash at a line's end goes on); each is to end with 0.
- ```console: commands behind `$ `, and under each what it prints. Nothing under one: it may print anything.
- any other block whose first line (behind a `#!`) is a comment with nothing but the name of a file, as
  `# job.sbatch`: it is written to that file.
- ```python without a name: run by Python.

Only `$ echo $?` may stand under a command that is to fail: it prints that one's exit code.

In what is shown, a number stands for any number, a unit of bytes or of time for any of its kind, and blanks for
any (a line may be folded elsewhere, or not at all, where the rest of it is indented); `...` in a line for any
text of it, and a line of `...` for any lines.
"""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

from tests.environment import python_path

_NUMBER = r"[+−-]?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?"
_UNITS = (("byte", "bytes", "kB", "MB", "GB"), ("second", "seconds", "minutes", "hours"))
_NUMBERS = re.compile(rf"((?:(?<![^\W_]){_NUMBER})|\d+(?:[.,]\d+)*)")
_BLANKS = r"\s*[^\S\n]"  # in the same line, or where one goes on in another, indented
_FILE_NAME = re.compile(r"# ([\w.-]+\.\w+)$")
# As pip makes it: processes that it starts import it again, and are not to run the command again.
_FMLM = f"""#!{sys.executable}
from fmlm_cli.__main__ import main

if __name__ == "__main__":
    main()
"""
_EXIT_CODE = "echo $?"
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Step:
    """What one command or block of a page asks for. `shown`: lines of output, none where all is allowed."""

    line: int
    command: str = ""
    shown: Sequence[str] = ()
    file: str = ""
    text: str = ""


@dataclass(frozen=True)
class Ran:
    """A command that was run: how it stands in the page, what was run instead, and what came of it."""

    step: Step
    command: str
    code: int
    said: str
    seconds: float


@dataclass(frozen=True)
class Scaling:
    """How a page is made small: texts of its commands, files and output, and what is put in their place.

    Where two begin at one place the first counts. Each is to stand in the page once at least, which `execute`
    holds to.
    """

    instead: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, text: str) -> str:
        written = "|".join(map(re.escape, self.instead)) or "(?!)"
        return re.sub(written, lambda found: self.instead[found[0]], text)

    def unused(self, texts: Sequence[str]) -> list[str]:
        """What is replaced nowhere."""
        return [written for written in self.instead if not any(written in text for text in texts)]


class PageError(AssertionError):
    """A page that does not come true."""


def steps_of(text: str) -> Iterator[Step]:
    """What a page asks for, in its order."""
    for token in MarkdownIt().parse(text):
        if token.type != "fence" or token.map is None:
            continue
        first = token.map[0] + 2  # the line under the fence, counted from one
        language = token.info.split()[0] if token.info.strip() else ""
        lines = token.content.splitlines()
        if language == "sh":
            yield from (Step(line, command) for line, command in _commands(lines, first))
        elif language == "console":
            yield from _session(lines, first)
        elif name := _named(lines):
            yield Step(first, file=name, text=token.content)
        elif language == "python":
            yield Step(first, command="python -", text=token.content)


def _named(lines: Sequence[str]) -> str:
    """The name in a block's first line, that of the file it is."""
    for line in lines[:2]:
        if named := _FILE_NAME.match(line):
            return named[1]
        if not line.startswith("#!"):
            break
    return ""


def _commands(lines: Sequence[str], first: int) -> Iterator[tuple[int, str]]:
    """Commands, whose lines are joined where one ends in a backslash; comments and blank lines are none."""
    whole: list[str] = []
    for number, line in enumerate(lines, start=first):
        whole.append(line)
        if not line.endswith("\\"):
            command = "\n".join(whole)
            if command.strip() and not command.startswith("#"):
                yield number - len(whole) + 1, command
            whole = []


def _session(lines: Sequence[str], first: int) -> Iterator[Step]:
    """Commands behind `$ `, each with the lines under it."""
    step: Step | None = None
    shown: list[str] = []
    numbered = iter(enumerate(lines, start=first))
    for number, line in numbered:
        if not line.startswith("$ "):
            shown.append(line)
            continue
        if step is not None:
            yield Step(step.line, step.command, tuple(shown))
        shown, command = [], line[2:]
        while command.endswith("\\"):
            command += "\n" + next(numbered)[1]
        step = Step(number, command)
    if step is not None:
        yield Step(step.line, step.command, tuple(shown))


# ---------------------------------------------------------------- running


def execute(page: Path, folder: Path, scaling: Scaling | None = None, *, columns: int = 100) -> list[Ran]:
    """Run a page in a folder, in which its files are already; what was run.

    Each command is a process of bash's in a terminal (a dumb one, so that no line is written over another),
    with `fmlm`, and whatever lies in the folder's `bin`, on the PATH. Raises `PageError` that says where the
    page fails and how, at the first command that does.
    """
    scaling = scaling or Scaling()
    steps = list(steps_of(page.read_text(encoding="utf-8")))
    if unused := scaling.unused([step.command + step.text for step in steps]):
        raise PageError(f"{page.name} has no {unused[0]!r} to put something in the place of")
    install(folder / "bin", "fmlm", _FMLM)
    install(folder / "bin", "python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    ran: list[Ran] = []
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        if step.file:
            (folder / step.file).write_text(scaling(step.text), encoding="utf-8")
            continue
        done = _run(step, scaling, folder, ran[-1].code if ran else 0, columns)
        if done.code != 0 and (after is None or after.command != _EXIT_CODE):
            raise PageError(_told(page, done, f"ended with {done.code}"))
        shown = scaling("\n".join(step.shown)).splitlines()
        if wrong := first_unmatched(shown, done.said, exactly=step.command == _EXIT_CODE):
            raise PageError(
                _told(page, done, f"does not print what the page shows, from this line on: {wrong}")
            )
        ran.append(done)
    return ran


def _run(step: Step, scaling: Scaling, folder: Path, code: int, columns: int) -> Ran:
    """Run a command, after one that ended with this code."""
    command = scaling(step.command)
    fed = scaling(step.text)
    began = time.monotonic()
    ended, said = in_terminal(["bash", "-c", f"(exit {code})\n{command}"], folder, columns, fed)
    return Ran(step, command, ended, said, time.monotonic() - began)


def in_terminal(
    words: Sequence[str], folder: Path, columns: int = 100, fed: str = "", seconds: float = 600
) -> tuple[int, str]:
    """The exit code of a process in a terminal, and what it left there. After so many `seconds` it is killed."""
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": python_path(),
        "TERM": "dumb",
        "COLUMNS": str(columns),
        "LINES": "50",
    }
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    late = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
    late.start()
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(fed.encode())
        said = b"".join(_read(ours))
        return process.wait(), _COLOURS.sub("", said.decode(errors="replace")).replace("\r\n", "\n")
    finally:
        late.cancel()
        os.close(ours)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _read(terminal: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError):  # Linux's way to say that nobody has it open any more
        while some := os.read(terminal, 65536):
            yield some


def install(folder: Path, name: str, script: str) -> None:
    """Make a command of a script."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


def _told(page: Path, done: Ran, what: str) -> str:
    return f"{page.name}, line {done.step.line}: {done.command}\n{what}\n--- it printed\n{done.said}"


# ---------------------------------------------------------------- what is shown


def first_unmatched(shown: Sequence[str], said: str, *, exactly: bool = False) -> str | None:
    """The first shown line with which the lines up to it are not what was said; None if all are.

    `exactly`: numbers are the very numbers.
    """
    lines = list(shown)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        return None
    said = "\n".join(line.rstrip() for line in said.splitlines()).strip("\n") + "\n"
    for number, line in enumerate(lines, start=1):
        if not re.match(_pattern(lines[:number], exactly) + r"(?!\S)", said):
            return line
    if not re.match(_pattern(lines, exactly) + r"\s*\Z", said):
        return f"(the end: there is more than) {lines[-1]}"
    return None


def _pattern(lines: Sequence[str], exactly: bool) -> str:
    """A line that is indented may go on in the one above it, any other begins one."""
    pattern, after_text = "", False
    for line in lines:
        if line.strip() == "...":
            pattern += r"[^\S\n]*\n(?:.*\n)*?" if after_text else r"(?:.*\n)*?"
            after_text = False
        elif words := [_word(word, exactly) for word in line.split()]:
            between = (_BLANKS if line[0] == " " else r"[^\S\n]*\n\s*") if after_text else r"\s*"
            pattern += between + _BLANKS.join(words)
            after_text = True
    return pattern


def _word(word: str, exactly: bool) -> str:
    """`...` in it is any text, a number any number, and a unit any of its kind."""
    bare = word.rstrip(",;.)")
    for units in _UNITS:
        if bare in units:
            return f"(?:{'|'.join(units)}){re.escape(word[len(bare) :])}"
    pieces = [re.escape(piece) for piece in word.split("...")]
    if not exactly:
        pieces = [
            "".join(
                _NUMBER if place % 2 else re.escape(text) for place, text in enumerate(_NUMBERS.split(piece))
            )
            for piece in word.split("...")
        ]
    return ".*?".join(pieces)

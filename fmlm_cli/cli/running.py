"""How commands end: whatever ends one becomes one line and an exit code."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from fmlm_cli.cli.console import Console
from fmlm_cli.cli.mistakes import faults
from fmlm_cli.engine.signals import stoppable
from fmlm_cli.errors import PROGRAM_ERROR, AnotherEndedError, Interrupted, UserError, ending_of, process_of

_GOES_ON = "; the same command with --resume keeps what is finished"


@contextmanager
def guarded(debug: bool, *, leaves_files: bool, for_programs: bool = False) -> Iterator[Console]:
    """A console for a command; whatever ends the command becomes one line and an exit code.

    `leaves_files`: what it finds goes into files, so that it needs no reader, and can go on later. Of any
    other command what it prints is all there is: without a reader it ends, as `cat` does, with the code of
    SIGPIPE. `for_programs`: see `Console`.
    """
    # Libraries that bring a progress bar or advice of their own would write over ours.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it has no home to keep its fonts in, say
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a write to a closed pipe or socket is an error, no death
    console = Console(needs_reader=not leaves_files, for_programs=for_programs)
    try:
        with stoppable(), console:
            _check_working_folder()
            yield console
    except typer.Exit:
        raise
    except BaseException as error:  # a panic of the tokenizers library, which is no Exception, among them
        if isinstance(error, SystemExit | GeneratorExit):
            raise
        if debug and not isinstance(error, Interrupted | AnotherEndedError | KeyboardInterrupt):
            for line in faults.versions():
                console.error(line)
            raise
        line, code = ending_of(error)
        if code == PROGRAM_ERROR and not isinstance(error, AnotherEndedError):
            line, *more = faults.told(error)
        else:
            more = []
        if name := process_of(error):
            line = f"{name}: {line}"
        if isinstance(error, Interrupted | KeyboardInterrupt) and leaves_files:
            line += _GOES_ON
        for text in (line, *more) if line else ():
            console.error(text)
        raise typer.Exit(code) from None


def _check_working_folder() -> None:
    """Refuse to work where names lead nowhere: another process has removed the folder."""
    try:
        os.getcwd()  # noqa: PTH109 - which Path.cwd() calls too
    except FileNotFoundError:
        raise UserError("the working folder is gone: change to one that is there (cd)") from None

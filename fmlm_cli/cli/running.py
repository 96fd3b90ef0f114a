"""How commands end: whatever ends one becomes one line and an exit code."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from fmlm_cli.cli.console import Console
from fmlm_cli.engine.signals import stoppable
from fmlm_cli.errors import AnotherEndedError, Interrupted, OutOfSpaceError, UserError, is_out_of_space

USER_ERROR, PROGRAM_ERROR = 2, 1

# What the user can put right of what libraries raise; by name, for they may not be imported.
_OF_LIBRARIES = {
    "OutOfMemoryError": "out of GPU memory: forward fewer rows at once, with --set batch.micro_size=N (and "
    "--resume)",
    "PanicException": "the tokenizer gave up on a text: choose another tokenizer",
}
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
            yield console
    except typer.Exit:
        raise
    except BaseException as error:  # a panic of the tokenizers library, which is no Exception, among them
        if isinstance(error, SystemExit | GeneratorExit):
            raise
        if debug and not isinstance(error, Interrupted | AnotherEndedError | KeyboardInterrupt):
            raise
        line, code = _ending(error)
        if isinstance(error, Interrupted | KeyboardInterrupt) and leaves_files:
            line += _GOES_ON
        if line:
            console.error(line)
        raise typer.Exit(code) from None


def _ending(error: BaseException) -> tuple[str, int]:
    """The line and the exit code for whatever ended a command."""
    error = _refused_by_the_system(error) or error
    if isinstance(error, UserError):
        return f"error: {error}", USER_ERROR
    if isinstance(error, Interrupted | AnotherEndedError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "stopped at once by Ctrl-C", 128 + signal.SIGINT
    if is_out_of_space(error):
        return (
            f"error: {OutOfSpaceError('no space left on the disk: free some, or choose another --out')}",
            USER_ERROR,
        )
    kind = type(error).__name__
    if kind in _OF_LIBRARIES:
        return f"error: {_OF_LIBRARIES[kind]}", USER_ERROR
    reason = (str(error).splitlines() or [""])[0]
    return f"unexpected {kind}: {reason} (this is a fault of fmlm's: --debug shows where)", PROGRAM_ERROR


def _refused_by_the_system(error: BaseException) -> UserError | None:
    """A name that is too long, a file of another user's, JSON nested too deep, wherever it is met."""
    if isinstance(error, RecursionError) and "JSON" in str(error):  # as libraries read it, without its name
        return UserError("a .json file of the checkpoint or tokenizer is nested too deep: fetch it again")
    if not isinstance(error, OSError) or is_out_of_space(error):
        return None
    if error.filename is None and not isinstance(error, PermissionError):  # pyarrow's have the name inside
        return None
    place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return UserError(f"{place}{error.strerror}; check the name and its permissions")

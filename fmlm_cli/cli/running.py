"""How commands end: whatever ends one becomes one line and an exit code."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from fmlm_cli.cli.console import Console
from fmlm_cli.errors import Interrupted, OutOfSpaceError, UserError, is_out_of_space
from fmlm_cli.events import Emit

USER_ERROR, PROGRAM_ERROR = 2, 1

_STOPPED = "stopped by {}; nothing half-written was left, and the same command with --resume goes on"


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Interrupted(_STOPPED.format("SIGTERM"), 128 + number)


@contextmanager
def guarded(debug: bool) -> Iterator[Emit]:
    """A console for a command to emit to; whatever ends the command becomes one line and an exit code."""
    # Libraries that bring a progress bar or advice of their own would write over ours.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it has no home to keep its fonts in, say
    signal.signal(signal.SIGTERM, _terminate)
    console = Console()
    try:
        with console:
            yield console.emit
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt, Interrupted) as error:
        if debug and not isinstance(error, Interrupted | KeyboardInterrupt):
            raise
        line, code = _ending(error)
        console.error(line)
        raise typer.Exit(code) from None


def _ending(error: BaseException) -> tuple[str, int]:
    """The line and the exit code for whatever ended a command."""
    error = _refused_by_the_system(error) or error
    if isinstance(error, UserError):
        return f"error: {error}", USER_ERROR
    if isinstance(error, Interrupted):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return _STOPPED.format("Ctrl-C"), 128 + signal.SIGINT
    if is_out_of_space(error):
        return (
            f"error: {OutOfSpaceError('no space left on the disk: free some, or choose another --out')}",
            USER_ERROR,
        )
    kind = type(error).__name__
    if kind == "OutOfMemoryError":  # torch's; by name, for torch may not be imported
        return (
            "error: out of GPU memory: forward fewer rows at once, with --set batch.micro_size=N (and "
            "--resume)",
            USER_ERROR,
        )
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

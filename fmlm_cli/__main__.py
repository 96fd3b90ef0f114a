"""Entry point of `fmlm` and `python -m fmlm_cli`."""

import os
import sys

# `python -m` looks for modules in the working folder first: a numpy.py that lies there would be run. Where
# fmlm itself comes from there, all else may too.
if __name__ == "__main__" and not sys.flags.safe_path and __file__ != f"{sys.path[0]}/fmlm_cli/__main__.py":
    del sys.path[0]

import contextlib
import fcntl
import signal
import threading
import time
from types import FrameType
from typing import NoReturn

from fmlm_cli.engine import signals
from fmlm_cli.errors import PROGRAM_ERROR, ending_of

_DEAF_SECONDS = 2


def _standard_error() -> int:
    """One more descriptor of it, which stays as it is while 2 is led nowhere; -1 where it is closed."""
    with contextlib.suppress(OSError):
        return fcntl.fcntl(
            2, fcntl.F_DUPFD_CLOEXEC, 3
        )  # not in the place of a standard stream that is closed
    return -1


_STANDARD_ERROR = _standard_error()


def main() -> None:
    """Run the command line."""
    _end_if_deaf(signals.listen(_leave))
    try:
        from fmlm_cli.cli.app import main as run

        run()
    except Exception as error:  # before a command has begun, which tells of its own
        if "--debug" in sys.argv:
            raise
        line, code = ending_of(error)
        print("\n".join(_fault(error) if code == PROGRAM_ERROR else [line]), file=sys.stderr)
        sys.exit(code)
    finally:
        signals.ignore_from_now_on()


def _fault(error: Exception) -> list[str]:
    """Lines about a fault of fmlm's own; what is at fault may be what they are made with."""
    try:
        from fmlm_cli.cli.mistakes import faults

        return faults.told(error)
    except Exception:
        return [ending_of(error)[0]]


def _leave(request: signals.StopRequest, frame: FrameType | None) -> None:
    """End by an exception where a recipe is at work, which lets it clean up; else at once."""
    if _recipe_at_work(frame):
        signals.interrupt(request, frame)
    # An exception in the middle of an import may be swallowed there, or become any other.
    _end(request, " after the work had ended" if request.work_has_ended else " before anything began")


def _end_if_deaf(request: signals.StopRequest) -> None:
    """Let a signal end the process where Python does not come to handle it for seconds.

    A library may be in one call for minutes, as tokenizers is when it learns a vocabulary. It is as if the
    process were killed: the next call removes what is half-written.
    """
    heard, hearing = os.pipe()
    os.set_blocking(hearing, False)
    signal.set_wakeup_fd(hearing, warn_on_full_buffer=False)  # written to at once, whatever Python is at

    def watch() -> None:
        while number := os.read(heard, 1)[0]:
            time.sleep(_DEAF_SECONDS)
            if number in signals.STOPPING and not (request.asked or request.patient or request.ended_by):
                request.signal = number
                _end(request, "; the next call removes what is half-written")

    threading.Thread(target=watch, name="signals", daemon=True).start()


def _end(request: signals.StopRequest, how_far: str) -> NoReturn:
    """Say why, and end without any more ado."""
    ending = request.interrupted(how_far)
    if request.tell_others(ending):
        with contextlib.suppress(OSError):
            os.write(_STANDARD_ERROR, f"{ending}\n".encode())
    os._exit(request.exit_code)


def _recipe_at_work(frame: FrameType | None) -> bool:
    """Whether a function of a recipe has been called; its module alone may be at being loaded."""
    outermost = None
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("fmlm_cli.recipes"):
            outermost = frame.f_code.co_name
        frame = frame.f_back
    return outermost not in (None, "<module>")


if __name__ == "__main__":
    main()

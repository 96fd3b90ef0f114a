"""Entry point of `fmlm` and `python -m fmlm_cli`."""

import os
import sys

# `python -m` looks for modules in the working folder first: a numpy.py that lies there would be run. Where
# fmlm itself comes from there, all else may too.
if __name__ == "__main__" and not sys.flags.safe_path and __file__ != f"{sys.path[0]}/fmlm_cli/__main__.py":
    del sys.path[0]

import contextlib
from types import FrameType

from fmlm_cli.engine import signals


def main() -> None:
    """Run the command line."""
    signals.listen(_leave)
    try:
        from fmlm_cli.cli.app import main as run

        run()
    finally:
        signals.ignore_from_now_on()


def _leave(request: signals.StopRequest, frame: FrameType | None) -> None:
    """End at once while modules are being loaded; else by an exception, which lets a recipe clean up."""
    if _recipe_at_work(frame):
        signals.interrupt(request, frame)
    # An exception in the middle of an import may be swallowed there, or become any other.
    with contextlib.suppress(OSError):
        os.write(2, f"{request.interrupted(' before anything began')}\n".encode())
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

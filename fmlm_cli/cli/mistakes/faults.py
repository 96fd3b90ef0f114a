"""A fault of the program's own: what is said of it, and a log that tells whoever mends it what they need."""

import contextlib
import importlib
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator
from datetime import datetime

from fmlm_cli.errors import one_line, shortened

# Of the environment what decides how it runs; nothing that could hold a password.
_TELLING = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "WORLD_SIZE", "LANG", "LC_ALL")


def told(error: BaseException) -> list[str]:
    """What to say of a fault, some lines; its log is written beside other temporary files."""
    what = f"unexpected {type(error).__name__}: {shortened(one_line(error), 200)}"
    if at := _where(error):
        what += f" (in {at})"
    log = _written(error)
    fault = "this is a fault of fmlm's, not yours: please report it with"
    if log is None:
        return [what, f"{fault} what the same command prints with --debug"]
    return [
        what,
        f"{fault} {log}",
        "(traceback, versions and the command: look it over before you send it)",
    ]


def versions() -> Iterator[str]:
    """What fmlm is here; the device too where torch is loaded, for loading it could fail in its turn."""
    try:
        about = importlib.import_module("fmlm_cli.about")
        # Asked for the device it loads torch.
        yield from about.described() if "torch" in sys.modules else about.packages()
    except Exception as error:  # a GPU that has failed, say, which must not stand in the fault's place
        yield f"the rest is not known: {one_line(error)}"


def _where(error: BaseException) -> str:
    """The innermost place of fmlm's own code, as file and line."""
    own = [f for f in traceback.extract_tb(error.__traceback__) if "fmlm_cli" in f.filename]
    return f"fmlm_cli{own[-1].filename.rpartition('fmlm_cli')[2]}:{own[-1].lineno}" if own else ""


def _written(error: BaseException) -> str | None:
    """The path of the log; None where none can be written."""
    parts = [
        f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        f"command: {shlex.join(['fmlm', *sys.argv[1:]])}",
        *versions(),
        *(f"{name}={os.environ[name]}" for name in _TELLING if name in os.environ),
        "".join(traceback.format_exception(error)),
    ]
    with contextlib.suppress(OSError):
        descriptor, path = tempfile.mkstemp(prefix="fmlm-fault-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n".join(parts))
        return path
    return None

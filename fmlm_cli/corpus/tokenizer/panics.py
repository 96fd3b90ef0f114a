"""What the tokenizers library does when it gives up: it panics, or raises a bare `Exception`."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from fmlm_cli.errors import UserError, one_line


@contextlib.contextmanager
def failures_as_errors(what: str) -> Iterator[None]:
    """Around calls of the tokenizers library alone: a `UserError` that begins with `what` where it fails.

    A panic, such as that of a regular expression which takes too long, is no `Exception` in Python, and Rust
    prints it as it happens: meanwhile nothing reaches the standard error stream.
    """
    try:
        with _NOWHERE.instead_of_stderr():
            yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{what} ({one_line(error)}): choose another tokenizer") from error


class _Nowhere:
    """Where the standard error stream leads while some thread is at work there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work: set[object] = set()
        self._kept: int | None = None

    @contextlib.contextmanager
    def instead_of_stderr(self) -> Iterator[None]:
        me = object()
        try:
            with self._lock:
                self._at_work.add(me)
                self._lead_there()
            yield
        finally:
            with self._lock:
                self._at_work.discard(me)
                self._lead_back()

    def _lead_there(self) -> None:
        if self._kept is None:
            with contextlib.suppress(OSError):  # it is closed
                self._kept = os.dup(2)
                with Path(os.devnull).open("wb") as nowhere:
                    os.dup2(nowhere.fileno(), 2)

    def _lead_back(self) -> None:
        if self._kept is not None and not self._at_work:
            os.dup2(self._kept, 2)
            os.close(self._kept)
            self._kept = None


_NOWHERE = _Nowhere()

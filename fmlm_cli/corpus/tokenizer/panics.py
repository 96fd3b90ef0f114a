"""What the tokenizers library does when it gives up: it panics, or raises a bare `Exception`."""

import contextlib
import os
from collections.abc import Iterator

from fmlm_cli.errors import UserError, one_line


@contextlib.contextmanager
def failures_as_errors(what: str) -> Iterator[None]:
    """Around calls of the tokenizers library alone: a `UserError` that begins with `what` where it fails.

    A panic, such as that of a regular expression which takes too long, is no `Exception` in Python, and Rust
    prints it as it happens: meanwhile nothing reaches the standard error stream.
    """
    try:
        with _without_stderr():
            yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{what} ({one_line(error)}): choose another tokenizer") from error


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

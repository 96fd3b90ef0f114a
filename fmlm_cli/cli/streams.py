"""The standard streams, which may be closed, full, or without a reader at any moment."""

import contextlib
import errno
import io
import os
import re
from pathlib import Path
from typing import Any, TextIO

from fmlm_cli.errors import UserError

_BLANKS_AT_END = re.compile("[ \t]+(?=\n)")
_LAST_STANDARD = 2  # descriptor


def occupy_closed_descriptors() -> None:
    """Let no file be opened in the place of a closed standard stream, where libraries would write into it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD:
        pass
    os.close(descriptor)


def lead_nowhere(stream: TextIO) -> None:
    """Give up a stream: what is left in its buffer would fail again when the process ends."""
    with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def not_writable(error: OSError) -> UserError:
    """What to say where nothing can be written to the standard output."""
    return UserError(
        f"nothing can be written to the standard output: {(error.strerror or str(error)).lower()}"
    )


class LastingStream:
    """A text stream that takes what is written in any case; once that fails it keeps nothing more.

    Where it is no terminal, blanks at the end of lines, which tables have, are left out. `error`: why it
    failed; None as long as it works.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.error = None if stream else OSError(errno.EBADF, "it is closed")
        self._stream = stream or io.StringIO()

    def write(self, text: str) -> int:
        """Write, as far as that works."""
        if self.error is None:
            try:
                self._stream.write(text if self._stream.isatty() else _BLANKS_AT_END.sub("", text))
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flush, as far as that works."""
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def write_bytes(self, content: bytes) -> None:
        """Write bytes, whatever the encoding of text is."""
        self.flush()
        if self.error is None:
            try:
                self._stream.buffer.write(content)
                self._stream.buffer.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.error = error
        lead_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

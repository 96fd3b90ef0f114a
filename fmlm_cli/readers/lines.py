"""Text by line, each line with its number."""

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from fmlm_cli.errors import UserError
from fmlm_cli.readers.bytes import opened

Line = tuple[int, str]  # its number from 1, and its text with its end

BOM = codecs.BOM_UTF8


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a text file, also a .gz. Raises `UserError` (file, line, remedy)."""
    with opened(path) as (stream, _):
        yield from numbered_lines(stream, path)


def numbered_lines(stream: Iterable[bytes], source: object) -> Iterator[Line]:
    """The lines of a binary stream, without its byte-order mark; `source`: its name, for messages.

    Lines end at line feeds alone, not at the other characters that `str.splitlines` knows. Raises `UserError`
    for one that is not UTF-8.
    """
    for number, line in enumerate(stream, start=1):
        try:
            yield number, (line.removeprefix(BOM) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            bad = error.object[error.start]
            remedy = "convert the file (for example iconv -f LATIN1 -t UTF-8)"
            raise UserError(f"{source}:{number}: not UTF-8 (byte 0x{bad:02x}); {remedy}") from None

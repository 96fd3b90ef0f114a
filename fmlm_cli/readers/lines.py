"""Text by line, each line with its number."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from fmlm_cli.errors import UserError
from fmlm_cli.readers.bytes import BOM, blocks_of, opened
from fmlm_cli.readers.compression import Stream

Line = tuple[int, str]  # its number from 1, and its text without the line feed

LONGEST = 20_000_000  # bytes of a line that is read whole: far more than any line of a table or a list


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a text file, compressed or not. Raises `UserError` (file, line, remedy)."""
    with opened(path) as (stream, _):
        yield from numbered_lines(stream, path)


def numbered_lines(stream: Stream, source: object) -> Iterator[Line]:
    """The lines of a binary stream, without its byte-order mark; `source`: its name, for messages.

    Lines end at line feeds alone, not at the other characters that `str.splitlines` knows. Raises `UserError`
    for one that is not UTF-8 or longer than `LONGEST`, and for what is no text at all.
    """
    for number, line in enumerate(split_lines(blocks_of(stream, source), LONGEST), start=1):
        if len(line) > LONGEST:
            remedy = "check where its lines end"
            raise UserError(f"{source}:{number}: the line is longer than {LONGEST:,} bytes; {remedy}")
        try:
            yield number, (line.removeprefix(BOM) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            bad = error.object[error.start]
            remedy = "convert the file (for example iconv -f LATIN1 -t UTF-8)"
            raise UserError(f"{source}:{number}: not UTF-8 (byte 0x{bad:02x}); {remedy}") from None


def split_lines(blocks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Lines without their ends, over as many blocks as they run; in memory is one line, and not all of it.

    One of more than `most` bytes comes as its beginning, longer than `most` by less than two blocks, as soon
    as that is read; the rest of it is passed over when the next line is asked for.
    """
    begun: list[bytes] = []  # of the line that has not ended yet
    size, given = 0, False
    for block in blocks:
        rest, *lines = block.split(b"\n")
        if not given:
            begun.append(rest)
            size += len(rest)
            if lines or size > most:
                yield b"".join(begun)
                begun, given = [], True
        if lines:
            yield from lines[:-1]
            begun, size, given = [lines[-1]], len(lines[-1]), False
            if size > most:
                yield lines[-1]
                begun, given = [], True
    if last := b"".join(begun):
        yield last

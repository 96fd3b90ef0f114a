"""Files as bytes, compressed or not; whatever keeps them from being read as text is one clear line."""

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fmlm_cli.errors import UserError
from fmlm_cli.readers.formats import other_format, other_than_text

BLOCK = 1 << 20  # bytes read at once: large enough to be fast, small beside any model
_GZIP = "gzip"


@contextlib.contextmanager
def readable(source: object) -> Iterator[None]:
    """Turn what the system or gzip says of a file or folder that cannot be read into a `UserError`."""
    try:
        yield
    except EOFError:
        raise UserError(f"{source}: the gzip file is cut short; fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        remedy = "test it with gzip -t; if it is plain text, take .gz off its name"
        raise UserError(f"{source}: not a gzip file, or damaged ({error}); {remedy}") from error
    except OSError as error:
        raise unreadable(source, error) from error


def unreadable(source: object, error: OSError) -> UserError:
    """An error for what the system will not let us read."""
    reason = error.strerror or error
    return UserError(f"{source}: cannot read it ({reason}); check its permissions and the disk")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes] | gzip.GzipFile, IO[bytes]]]:
    """A file's contents, decompressed where its name ends with .gz, and the file as it lies on the disk.

    The place in the latter tells how far reading the former has come. Raises `UserError`, also while reading.
    """
    with readable(path), path.open("rb") as disk:
        if path.suffix.lower() == ".gz":
            found = other_format(disk.peek(BLOCK))
            if found and found.name != _GZIP:
                raise UserError(f"{path}: {found.refusal}")
            with gzip.GzipFile(fileobj=disk) as stream:
                yield stream, disk
        else:
            yield disk, disk


def blocks_of(stream: IO[bytes] | gzip.GzipFile, source: object) -> Iterator[bytes]:
    """What a stream holds, in blocks of 1 MiB; `source`: its name, for messages.

    Raises `UserError` for one that begins as files of another format do, and for a block that is no text in
    an encoding of single bytes: text of 16 or 32 bits a character, or a run of NULs. The last block, of
    whatever size, is judged with what is before it.
    """
    position, before = 0, b""
    while block := stream.read(BLOCK):
        if not position and (found := other_format(block)):
            raise UserError(f"{source}: {found.refusal}")
        more = (BLOCK - len(block)) // 4 * 4  # whole characters, however wide
        if refusal := other_than_text(before[len(before) - more :] + block if more and before else block):
            place = f"from byte position {position:,} on, " if position else ""
            raise UserError(f"{source}: {place}{refusal}")
        yield block
        position, before = position + len(block), block

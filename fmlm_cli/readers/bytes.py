"""Files as bytes, compressed or not; whatever keeps them from being read as text is one clear line."""

import codecs
import contextlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO

from fmlm_cli.errors import UserError
from fmlm_cli.readers.compression import Decompressed, Stream, split_name
from fmlm_cli.readers.formats import other_format, other_than_text

BLOCK = 1 << 20  # bytes read at once: large enough to be fast, small beside any model
BOM = codecs.BOM_UTF8


@contextlib.contextmanager
def readable(source: object) -> Iterator[None]:
    """Turn what the system says of a file or folder that cannot be read into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise unreadable(source, error) from error


def unreadable(source: object, error: OSError) -> UserError:
    """An error for what the system will not let us read."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{source}: no such file; check the name")
    if isinstance(error, IsADirectoryError):
        return UserError(f"{source} is a folder: give a file")
    reason = error.strerror or error
    return UserError(f"{source}: cannot read it ({reason}); check its permissions and the disk")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Stream, IO[bytes]]]:
    """A file's contents, decompressed where its name ends with a codec's ending, and the file on the disk.

    The place in the latter tells how far reading the former has come. Raises `UserError`, also while reading.
    """
    codec = split_name(path.name)[1]
    with readable(path), path.open("rb") as disk:
        if codec is None:
            yield disk, disk
        else:
            found = other_format(disk.peek(BLOCK))
            if found and found.name != codec.name:
                raise UserError(f"{path}: {found.refusal}")
            yield Decompressed(path, codec, disk), disk


def blocks_of(stream: Stream, source: object) -> Iterator[bytes]:
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


def with_plain_ends(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Text without its byte-order mark and with every line end as a line feed; blocks may be empty."""
    blocks = iter(blocks)
    held = b""  # a carriage return at a block's end, perhaps half of '\r\n'; the file's last one ends nothing
    for block in chain([next(blocks, b"").removeprefix(BOM)], blocks):
        text = held + block
        held = b"\r" if text.endswith(b"\r") else b""
        text = text[: len(text) - len(held)]
        yield text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text

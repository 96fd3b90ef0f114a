"""Compressed files: the codecs that are read, each known by a name's ending and by a file's first bytes."""

import gzip
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import pyarrow as pa

from fmlm_cli.errors import UserError, one_line

_BLOCK = 1 << 20


class Stream(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """At most so many of the next bytes; none at the end."""
        ...


@dataclass(frozen=True)
class Codec:
    """A way to compress: what it is called, how the names and the contents of its files end and begin."""

    name: str
    ending: str
    begins: bytes | tuple[bytes, ...]
    tool: str  # the command that is commonly there; -d decompresses with it, -t tests
    decompressing: Callable[[IO[bytes]], Stream]


def _by_pyarrow(name: str) -> Callable[[IO[bytes]], Stream]:
    return lambda disk: pa.CompressedInputStream(pa.PythonFile(disk, mode="r"), name)


def _gunzipping(disk: IO[bytes]) -> Stream:
    return gzip.GzipFile(fileobj=disk)  # pyarrow's refuses zeros after the last member, as tapes have them


CODECS = (
    Codec("gzip", ".gz", b"\x1f\x8b", "gzip", _gunzipping),
    Codec("Zstandard", ".zst", b"\x28\xb5\x2f\xfd", "zstd", _by_pyarrow("zstd")),
    Codec("xz", ".xz", b"\xfd7zXZ\0", "xz", lzma.LZMAFile),
    Codec(
        "bzip2",
        ".bz2",
        tuple(b"BZh%d%b" % (level, mark) for level in range(1, 10) for mark in (b"1AY&SY", b"\x17rE8P\x90")),
        "bzip2",
        _by_pyarrow("bz2"),
    ),
    Codec("LZ4", ".lz4", b"\x04\x22\x4d\x18", "lz4", _by_pyarrow("lz4")),
)
ENDINGS = ", ".join(codec.ending for codec in CODECS)


def split_name(name: str) -> tuple[str, Codec | None]:
    """A file's name without the ending that says how it is compressed, and what that says."""
    codec = next((codec for codec in CODECS if name.lower().endswith(codec.ending)), None)
    return (name[: -len(codec.ending)], codec) if codec else (name, None)


def codec_of(head: bytes) -> Codec | None:
    """How a file is compressed, by its first bytes."""
    return next((codec for codec in CODECS if head.startswith(codec.begins)), None)


class Decompressed:
    """The contents of a compressed file. Reading raises `UserError` where it is damaged or ends too soon.

    `disk`: the open file, at its beginning.
    """

    def __init__(self, path: Path, codec: Codec, disk: IO[bytes]) -> None:
        self._path, self._codec = path, codec
        self._stream = codec.decompressing(disk)
        self._position = 0

    def read(self, size: int, /) -> bytes:
        """At most so many of the next bytes; none at the end."""
        try:
            block = self._stream.read(size)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            if (
                isinstance(error, OSError) and error.errno is not None
            ):  # of the system: not what is in the file
                raise
            raise self._damage(error) from error
        self._position += len(block)
        return block

    def _damage(self, error: Exception) -> UserError:
        """What to say of a file that cannot be decompressed to its end."""
        name, tool, place = self._codec.name, self._codec.tool, f"byte {self._last():,} of its contents"
        if isinstance(error, EOFError) or "Truncated" in str(error):
            return UserError(f"{self._path}: the {name} file is cut short at {place}; fetch it again")
        remedy = f"test it with {tool} -t; if it is not compressed, take {self._codec.ending} off its name"
        return UserError(
            f"{self._path}: not a {name} file, or damaged at {place} ({one_line(error)}); {remedy}"
        )

    def _last(self) -> int:
        """How many bytes come out before the failure: those of a block that fails are lost, so once more."""
        with self._path.open("rb") as disk:
            stream = self._codec.decompressing(disk)
            reached = 0
            try:
                while reached < self._position:
                    reached += len(stream.read(min(self._position - reached, _BLOCK))) or self._position
                while stream.read(1):
                    reached += 1
            except (OSError, EOFError, zlib.error, lzma.LZMAError):
                pass
        return reached

"""Files as bytes, compressed or not; whatever keeps them from being read is one clear line."""

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fmlm_cli.errors import UserError


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
            with gzip.GzipFile(fileobj=disk) as stream:
                yield stream, disk
        else:
            yield disk, disk

"""Files: hashes, atomic writes, what the disk says in one clear line."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fmlm_cli.errors import OutOfSpaceError, UserError, is_out_of_space, one_line

_FORBIDDEN = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the disk is read-only",
}


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(paths: Iterable[Path]) -> list[str]:
    """The same of several files at a time: reading and hashing let other threads run."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(sha256_of_file, paths))


def flush(path: Path) -> None:
    """Have the disk take a file; the system's memory of it stays."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def let_the_disk_have(path: Path) -> None:
    """Flush a file to the disk and forget it, so that whoever reads it next reads what the disk holds."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):  # macOS has none
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sha256_of_json(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON (sorted keys, no blanks, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def content_hash(text: str) -> int:
    """64-bit hash of a document's text (BLAKE2b): equal texts fall on the same side of a split."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")


@contextlib.contextmanager
def clear_disk_errors(where: Path) -> Iterator[None]:
    """Turn "no space left", "permission denied" and "read-only", from any library, into one clear line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_out_of_space(error):
            raise OutOfSpaceError(
                f"no space left on the disk while writing {where}, or within a quota or `ulimit -f`: "
                "free some, or choose another --out"
            ) from error
        if isinstance(error, OSError) and error.errno in _FORBIDDEN:
            reason = _FORBIDDEN[error.errno]
            raise UserError(
                f"cannot write {error.filename or where}: {reason}; choose another --out"
            ) from error
        raise


@contextlib.contextmanager
def complete_file(target: Path) -> Iterator[Path]:
    """A temporary path beside `target`, to be filled; it takes the target's name only if the block succeeds.

    Its name is this process's own: others may be writing the same file. Its mode is as the umask says, which
    safetensors, writing by way of a file that only its owner can read, does not heed.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with clear_disk_errors(target):
        try:
            temporary.touch()
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"cannot write {target}: there is no folder {target.parent}; make it") from None
        try:
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole or not at all (a temporary file beside it, then renamed)."""
    with complete_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that fmlm or Hugging Face wrote; damage is a `UserError` with file and line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); the file is damaged") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a UTF-8 text file; the file is damaged") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, [[[[ without end
        raise UserError(f"{path}: not to be read as JSON ({one_line(error)}); the file is damaged") from None

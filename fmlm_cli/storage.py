"""Files: atomic writes, hashes, output folders that appear only when complete, the run directory's layout."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmlm_cli.errors import OutOfSpaceError, UserError, is_out_of_space

MANIFEST = "manifest.json"
RUN_CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
LOCK = ".lock"
_FORBIDDEN = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the disk is read-only",
}


@dataclass(frozen=True)
class RunDirectory:
    """Where things lie in a run: config.yaml, metrics.jsonl, checkpoints/step-N/, final/, plots/."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved settings, themselves a valid input."""
        return self.root / RUN_CONFIG

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.root / METRICS

    @property
    def checkpoints(self) -> Path:
        """Holds one folder step-N for each checkpoint kept."""
        return self.root / "checkpoints"

    @property
    def final(self) -> Path:
        """The finished model, a plain Hugging Face folder; exists only when the run is complete."""
        return self.root / "final"

    @property
    def first_scores(self) -> Path:
        """Held-out losses by token before the first step."""
        return self.root / "first_scores.safetensors"

    @property
    def plots(self) -> Path:
        """Pictures."""
        return self.root / "plots"

    @property
    def is_finished(self) -> bool:
        """Whether the run has left its final model."""
        return (self.final / "config.json").is_file()


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
                f"no space left on the disk while writing {where}: free some, or choose another --out"
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

    Its name is this process's own: others may be writing the same file.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with clear_disk_errors(target):
        try:
            yield temporary
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


def _sync_tree(folder: Path) -> None:
    """Flush a finished folder to the disk, so that a power cut cannot leave it named but empty."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


@contextlib.contextmanager
def complete_folder(target: Path) -> Iterator[Path]:
    """Fill a temporary folder beside `target`; it takes the target's name only if the block succeeds.

    An existing target is replaced at that moment and not before. Whatever ends the block early (an error,
    Ctrl-C, SIGTERM) leaves the target as it was and removes what was half-written.
    """
    target = target.resolve()  # a link stays, and what it points to is replaced; "." has a name
    temporary = target.with_name(f".{target.name}.partial")
    missing = [folder for folder in target.parents if not folder.exists()]  # the deepest first
    with clear_disk_errors(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            yield temporary
            _sync_tree(temporary)
            if target.exists():
                _swap(temporary, target)
            else:
                temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if not target.exists():
                _remove_empty(missing)


def _swap(new: Path, target: Path) -> None:
    """Put a folder in the place of another, which stays if that fails or is interrupted."""
    replaced = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    try:
        target.rename(replaced)
        new.rename(target)
    except BaseException:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        raise
    shutil.rmtree(replaced)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, inner ones first, as far as there is nothing in them."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextlib.contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Make `folder` if need be, and keep other processes of fmlm's out of it while inside.

    Two processes in one run would interleave its metrics and remove each other's checkpoints. The operating
    system gives the lock back however the process ends. Raises `UserError` if another one holds it.
    """
    with clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder} is in use by another fmlm process: wait for it, or choose another --out"
            ) from None
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Keep other processes waiting at `path`, a file made for this, while inside."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def clear_folder(folder: Path, *, last: Path) -> None:
    """Remove what a folder holds, but not itself: it may be a link, a mount or the working folder.

    `last`, the file by which fmlm knows the folder as its own, goes last: an interrupted call can be
    repeated.
    """
    for path in sorted((p for p in folder.iterdir() if p.name != LOCK), key=lambda path: path == last):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def check_outside(folder: Path, needed: Mapping[Path, str]) -> None:
    """Refuse to replace a folder that holds what its new content is made of; `needed`: what each path is."""
    for path, kind in needed.items():
        if path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"the {kind} {path} lies inside {folder}: choose another --out")


def claim_output(target: Path, *, marker: str, overwrite: bool, resume: bool) -> None:
    """Check that `target` may be written to; nothing is touched.

    `marker` is the file by which a folder shows that fmlm made it: --overwrite never removes anything else.
    Raises `UserError` for a file in the way, or a folder with contents that was neither to be resumed nor
    overwritten.
    """
    if overwrite and resume:
        raise UserError("--resume and --overwrite exclude each other: keep one")
    existing = next(path for path in (target, *target.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"{existing} is a file, not a folder: choose another --out")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if overwrite and not (target / marker).is_file():
        raise UserError(
            f"{target} was not made by this command (it has no {marker}): remove it yourself, or choose "
            "another --out"
        )
    if resume and not (target / marker).is_file():
        raise UserError(
            f"{target} is not empty and holds nothing to resume (no {marker}): choose another --out"
        )
    if not (overwrite or resume):
        raise UserError(
            f"{target} is not empty: pass --resume to go on, --overwrite to replace it, or choose another "
            "--out"
        )

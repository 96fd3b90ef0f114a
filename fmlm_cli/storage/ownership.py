"""Whose a folder is: what may be written to or cleared, and by which process."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from fmlm_cli.errors import InUseError, UserError
from fmlm_cli.storage.files import clear_disk_errors

LOCK = ".lock"


@contextlib.contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Make `folder` if need be, and keep other processes of fmlm's out of it while inside.

    Two processes in one run would interleave its metrics and remove each other's checkpoints. The operating
    system gives the lock back however the process ends. Raises `InUseError` if another one holds it.
    """
    with clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(
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

"""Output folders that appear only when they are complete."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from fmlm_cli.storage.files import clear_disk_errors


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

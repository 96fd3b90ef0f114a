"""Output folders that appear only when they are complete, and what killed processes leave of them."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from fmlm_cli.storage.files import clear_disk_errors

# What a process that is killed may leave: files half-written, folders half-written or half-removed, and those
# that were about to be replaced.
_LEFT_FILE = re.compile(r"\..+\.\d+\.partial")
_LEFT_FOLDER = re.compile(r"\.(?P<name>.+)\.(partial|replaced)")


def beside(target: Path, what: str) -> Path:
    """A path beside `target` for what is `partial` or `replaced` of it."""
    return target.with_name(f".{target.name}.{what}")


@contextlib.contextmanager
def complete_folder(target: Path) -> Iterator[Path]:
    """Fill a temporary folder beside `target`; it takes the target's name only if the block succeeds.

    An existing target is replaced at that moment and not before. Whatever ends the block early (an error,
    Ctrl-C, SIGTERM) leaves the target as it was and removes what was half-written. The target is in a folder
    that this process owns: nobody else is at work at it.
    """
    target = target.resolve()  # a link stays, and what it points to is replaced; "." has a name
    temporary, missing = beside(target, "partial"), missing_folders(target)
    with clear_disk_errors(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            remove(temporary)
            temporary.mkdir()
            yield temporary
            put_in_place(temporary, target)
        finally:
            remove(temporary)
            if not target.exists():
                remove_empty(missing)


def put_in_place(temporary: Path, target: Path) -> None:
    """Give a filled folder its name, once all in it is on the disk with the modes that the umask asks for.

    A target that exists stays if that fails or is interrupted.
    """
    _sync_tree(temporary)
    if not target.exists():
        temporary.rename(target)
        _sync_folder(target.parent)
        return
    replaced = beside(target, "replaced")
    remove(replaced)
    try:
        target.rename(replaced)
        temporary.rename(target)
    except BaseException:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        raise
    _sync_folder(target.parent)
    remove(replaced)


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder: what is removed next may not be gone before these are there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems flush no folders
        pass
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    """Flush a finished folder to the disk, so that a power cut cannot leave it named but empty.

    safetensors writes files that only their owner can read; the folder's own mode says what the umask allows.
    What a link points to is not the folder's.
    """
    mode = folder.stat().st_mode & 0o666
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode | path.stat().st_mode & 0o111)
            with path.open("rb") as file:
                os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, a file or a link, if it is there.

    A folder that others know by its name loses that first: one half-removed is nobody's.
    """
    if path.is_dir() and not path.is_symlink():
        if not is_left_over(path):
            doomed = beside(path, "partial")
            remove(doomed)
            path = path.rename(doomed)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(root: Path) -> None:
    """Remove what killed processes have left in a folder, and put back what they were about to replace."""
    for path in sorted(root.rglob(".*")):
        if is_left_over(path):
            put_back(path)
            remove(path)


def is_left_over(path: Path) -> bool:
    """Whether something is, by its name and what it is, what a killed process has left."""
    if path.is_dir() and not path.is_symlink():
        return _LEFT_FOLDER.fullmatch(path.name) is not None
    return _LEFT_FILE.fullmatch(path.name) is not None and path.is_file()


def put_back(path: Path) -> None:
    """Give a folder that was about to be replaced its name again, if nothing has come in its place."""
    left = _LEFT_FOLDER.fullmatch(path.name)
    if left and path.name.endswith(".replaced") and path.is_dir():
        whole = path.with_name(left["name"])
        if not os.path.lexists(whole):
            path.rename(whole)


def missing_folders(path: Path) -> list[Path]:
    """The folders that have to be made for `path` to be one, the deepest first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, inner ones first, as far as there is nothing in them."""
    for folder in folders:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return


def free_space(folder: Path) -> int:
    """Bytes that are free where a folder is, or is to be made."""
    while not folder.exists():
        folder = folder.absolute().parent
    return shutil.disk_usage(folder).free

"""Folders that commands have made, wherever they lie."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmlm_cli import storage
from fmlm_cli.errors import UserError


@dataclass(frozen=True)
class FoundFolder:
    """A folder of results. `kind`: as its marker has it, or why that cannot be told."""

    path: Path
    kind: str


def find_results(folders: Sequence[str]) -> list[FoundFolder]:
    """Runs, fine-tunings and comparisons at or below these folders, each once; links are not followed.

    Nothing is looked for inside of one, but inside those of `folders` that are comparisons. Raises
    `UserError` for a folder that is not there.
    """
    found: dict[Path, FoundFolder] = {}
    for text in folders:
        folder = Path(text)
        if not folder.is_dir():
            what = "a file, not a folder" if folder.exists() else "no such folder"
            raise UserError(f"{folder}: {what}; name runs, or folders that hold some")
        for result in _results_in(folder, is_named=True):
            found.setdefault(result.path.resolve(), result)
    return list(found.values())


def _results_in(folder: Path, *, is_named: bool = False) -> Iterator[FoundFolder]:
    """In the order of their names."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # another user's
        return
    names = {entry.name for entry in entries}
    is_marked = storage.MARKER in names
    if is_marked and storage.RUN_CONFIG in names:
        kind = _kind_of(folder)
        yield FoundFolder(folder, kind)
        if kind == storage.RUN.name or not is_named:
            return
    elif is_marked and not is_named:  # a token store
        return
    for entry in entries:
        if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield from _results_in(folder / entry.name)


def _kind_of(folder: Path) -> str:
    try:
        return storage.kind_of(folder) or "not known: its .fmlm.json is damaged"
    except UserError:
        return "of a newer fmlm"

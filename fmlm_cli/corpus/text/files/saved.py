"""Data sets as `datasets.save_to_disk` leaves them: a folder of Arrow files, or one such for each split."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.readers.bytes import readable

_SPLITS, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
TRAIN = "train"  # the split that is read unless another is asked for


@dataclass(frozen=True)
class SavedSet:
    """The files to read, in order, and the folders of splits that are not asked for."""

    files: tuple[Path, ...]
    other_splits: tuple[Path, ...] = ()


def is_saved(folder: Path) -> bool:
    """Whether a folder is a data set that was saved, with or without splits."""
    return (folder / _SPLITS).is_file() or all((folder / name).is_file() for name in (_STATE, _INFO))


def saved_set(folder: Path, split: str | None) -> SavedSet:
    """The files of a split of a saved data set. Raises `UserError` for one that is not there or not whole."""
    if not (folder / _SPLITS).is_file():
        state = _read(folder / _STATE)
        own = state.get("_split")
        if split is not None and own != split:
            saved = f"the split '{own}' alone was saved" if own else "it was saved without splits"
            raise UserError(f"{folder}: {saved}, so there is no '{split}': drop --split")
        return SavedSet(_files(folder, state))
    names = _read(folder / _SPLITS).get("splits")
    if not isinstance(names, list) or not all(_is_name(name) for name in names):
        raise _not_saved(folder / _SPLITS, "no list of splits")
    wanted = TRAIN if split is None else split
    if wanted not in names:
        raise UserError(f"{folder}: {unknown_name('split', wanted, names)}; choose one with --split")
    others = tuple(folder / name for name in names if name != wanted)
    return SavedSet(_files(folder / wanted, _read(folder / wanted / _STATE)), others)


def _files(folder: Path, state: Mapping[str, Any]) -> tuple[Path, ...]:
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UserError(f"{folder}: only some of its rows are meant: save it again after flatten_indices()")
    entries = state.get("_data_files")
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries or ()]
    if not isinstance(entries, list) or not all(_is_name(name) for name in names):
        raise _not_saved(folder / _STATE, "no list of files")
    for name in names:
        if not (folder / str(name)).is_file():
            raise UserError(
                f"{folder}: {name} is not there, of which its {_STATE} speaks: copy the folder whole"
            )
    return tuple(folder / str(name) for name in names)


def _is_name(name: object) -> bool:
    """Whether it names something in the folder itself."""
    return isinstance(name, str) and Path(name).name == name


def _read(path: Path) -> dict[str, Any]:
    with readable(path):
        content = path.read_bytes()
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _not_saved(path, str(error)) from None
    if not isinstance(value, dict):
        raise _not_saved(path, "no object")
    return value


def _not_saved(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: not as save_to_disk writes it ({reason}); save the data set again")

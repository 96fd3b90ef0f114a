"""What a result depends on: hashed when it is written, checked when it is read."""

import json
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fmlm_cli.errors import UserError
from fmlm_cli.storage.files import (
    flush,
    let_the_disk_have,
    read_json,
    sha256_of_file,
    sha256_of_files,
    sha256_of_json,
    write_json,
)

HASHES = "fmlm_hashes.json"  # in a folder that other tools read too, which pass it over

_SEAL = "sha256"


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object whole or not at all, with a hash of itself as `sha256` in it."""
    assert _SEAL not in value, value
    plain = json.loads(json.dumps(value))  # as it will be read: without tuples, and all keys texts
    write_json(path, {**plain, _SEAL: sha256_of_json(plain)})


def unsealed(content: Any) -> dict[str, Any] | None:
    """The object that `write_sealed` wrote, without its hash; None if it is no longer that one."""
    if not isinstance(content, dict):
        return None
    plain = {key: value for key, value in content.items() if key != _SEAL}
    return plain if content.get(_SEAL) == sha256_of_json(plain) else None


def read_sealed(path: Path) -> dict[str, Any]:
    """The object that `write_sealed` wrote. Raises `UserError` for a file that is damaged or was changed."""
    plain = unsealed(read_json(path))
    if plain is None:
        raise UserError(f"{path} has changed since it was written; the file is damaged")
    return plain


def hashes_of(folder: Path, *, but: Collection[str] = ()) -> dict[str, str]:
    """The hash of every file of a folder by its path in it, those called `but` left out."""
    files = _files_of(folder, but)
    return dict(zip(_names(folder, files), sha256_of_files(files), strict=True))


def hashes_while_flushed(folder: Path, *, but: Collection[str] = ()) -> dict[str, str]:
    """The same, read from the system's memory of what was just written, while the disk takes it."""
    files = _files_of(folder, but)
    with ThreadPoolExecutor() as threads:
        flushing = threads.map(flush, files)
        hashes = dict(zip(_names(folder, files), threads.map(sha256_of_file, files), strict=True))
        list(flushing)  # which may have failed
    return hashes


def _files_of(folder: Path, but: Collection[str]) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in but]


def _names(folder: Path, files: Iterable[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files]


def missing_file(folder: Path, hashes: Mapping[str, str]) -> Path | None:
    """The first file of `hashes_of` that is no longer there."""
    return next((folder / name for name in hashes if not (folder / name).is_file()), None)


def damage_of(folder: Path, hashes: Mapping[str, str]) -> str | None:
    """What is wrong with the first file of `hashes_of` that is not as it was, in words; None if all are."""
    missing = missing_file(folder, hashes)
    if missing is not None:
        return f"{missing} is missing"
    files = [folder / name for name in hashes]
    found = zip(files, hashes.values(), sha256_of_files(files), strict=True)
    changed = (path for path, written, read in found if read != written)
    return next((f"{path} has changed since it was written" for path in changed), None)


def damage_on_disk(folder: Path, hashes: Mapping[str, str]) -> str | None:
    """As `damage_of`, of what the disk gives back, and not the system's memory of what was written."""
    for name in hashes:
        let_the_disk_have(folder / name)
    return damage_of(folder, hashes)

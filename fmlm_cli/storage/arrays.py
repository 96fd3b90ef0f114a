"""Named arrays in one file, with a hash of themselves; apart from the rest, as it needs numpy."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

from fmlm_cli.errors import UserError
from fmlm_cli.storage.files import complete_file

Arrays = Mapping[str, npt.NDArray[Any]]

_SEAL = "sha256"


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays as safetensors, whole or not at all."""
    with complete_file(path) as temporary:
        save_file(dict(arrays), temporary, metadata={_SEAL: _hash(arrays)})


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """What `write_arrays` wrote. Raises `UserError` for a file that is missing, damaged or was changed."""
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            seal = (file.metadata() or {}).get(_SEAL)
    except Exception as error:  # safetensors raises kinds of its own for damaged files
        raise UserError(f"{path} is missing or damaged") from error
    if seal != _hash(arrays):
        raise UserError(f"{path} has changed since it was written; the file is damaged")
    return arrays


def _hash(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

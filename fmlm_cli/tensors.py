"""Tensors of files: whole and finite, or refused in one line."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from fmlm_cli.errors import UserError, one_line


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or infinity; None if none does."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            ends = torch.stack(tensor.aminmax())  # NaN if any value is; ten times as fast as isfinite().all()
            if not ends.isfinite().all():
                return name
    return None


def read_own_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """A safetensors file of fmlm's own; `remedy`: what to do where it is damaged, which is a `UserError`."""
    try:
        with path.open("rb"):  # safetensors calls a file missing that may not be read
            tensors: dict[str, Tensor] = load_file(path)
    except PermissionError:
        raise
    except Exception as error:  # safetensors raises kinds of its own for damaged files
        raise UserError(f"{path} is missing or damaged ({one_line(error)}): {remedy}") from error
    if name := not_finite(tensors):
        raise UserError(f"{path}: {name} is not finite (NaN or infinity): {remedy}")
    return tensors

"""Files of the parts that processes hold, by `torch.distributed.checkpoint`, read by any number of processes.

Each is a safetensors file that says in its header where in the whole its parts begin; none holds a pickle.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import checkpoint
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor

from fmlm_cli.engine.ranks.sharding import own_part
from fmlm_cli.errors import UserError, one_line
from fmlm_cli.tensors import not_finite


def write_parts(tensors: Mapping[str, Tensor], folder: Path, *, rank: int) -> Path:
    """Write a process's parts of tensors, into a folder that is there; the file.

    What is not sharded the first process writes.
    """
    own = {name: t for name, t in tensors.items() if isinstance(t, DTensor) or rank == 0}
    apart = folder / f"{rank}"  # the writer names its files itself, as if there were no others
    with _alone():
        checkpoint.save(
            own, storage_writer=HuggingFaceStorageWriter(str(apart), save_distributed=True), no_dist=True
        )
    (written,) = apart.iterdir()
    file = written.rename(folder / f"part-{rank:05}.safetensors")
    apart.rmdir()
    return file


def read_parts(folder: Path, like: Callable[[str], Tensor | None], remedy: str) -> dict[str, Tensor]:
    """All tensors of a folder's files, each sharded as what `like` gives for its name, if anything.

    `remedy`: what to do where files are damaged, which is a `UserError`.
    """
    try:
        reader = HuggingFaceStorageReader(str(folder))
        stored = reader.read_metadata().state_dict_metadata
        tensors = {name: _room_for(kind, like(name)) for name, kind in stored.items()}
        with _alone():
            checkpoint.load(tensors, storage_reader=reader, no_dist=True)
    except Exception as error:  # torch and safetensors raise kinds of their own for damaged files
        raise UserError(f"{folder} is damaged ({one_line(error)}): {remedy}") from error
    if name := not_finite({name: own_part(tensor) for name, tensor in tensors.items()}):
        raise UserError(f"{folder}: {name} is not finite (NaN or infinity): {remedy}")
    return tensors


def _room_for(kind: Any, like: Tensor | None) -> Tensor:
    """Memory for a tensor of a `TensorStorageMetadata`."""
    dtype = kind.properties.dtype
    if like is not None and like.shape == kind.size:
        return torch.empty_like(like, dtype=dtype, requires_grad=False)
    return torch.empty(kind.size, dtype=dtype)


@contextmanager
def _alone() -> Iterator[None]:
    """Without torch's warning that a process does what it does without the others, as it is told to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield

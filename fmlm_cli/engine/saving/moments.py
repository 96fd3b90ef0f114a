"""An optimizer's state in a checkpoint: a file, or a folder with a file of each process's parts."""

from pathlib import Path

from torch import Tensor, nn

from fmlm_cli.engine.ranks.parts import read_parts
from fmlm_cli.engine.ranks.sharding import cut_as
from fmlm_cli.tensors import read_own_tensors

OPTIMIZER, PARTS = "optimizer.safetensors", "optimizer"


def is_of_optimizer(name: str) -> bool:
    """Whether a checkpoint's file, by its path in it, is of the optimizer's state."""
    return name == OPTIMIZER or name.startswith(f"{PARTS}/")


def read_moments(checkpoint: Path, model: nn.Module, remedy: str) -> dict[str, Tensor]:
    """The state by `<parameter>/<entry>`, sharded as the model's parameters are, however it was written.

    `remedy`: what to do where it is damaged, which is a `UserError`.
    """
    parameters = dict(model.named_parameters())

    def parameter_of(key: str) -> Tensor | None:
        return parameters.get(key.rpartition("/")[0])

    if (checkpoint / PARTS).is_dir():
        return read_parts(checkpoint / PARTS, parameter_of, remedy)
    tensors = read_own_tensors(checkpoint / OPTIMIZER, remedy)
    return {
        key: values if (parameter := parameter_of(key)) is None else cut_as(parameter, values)
        for key, values in tensors.items()
    }

"""A model of which each process holds a part, by FSDP2 (`torch.distributed.fsdp.fully_shard`).

Every parameter is cut along its first axis, and with it its gradient and what the optimizer keeps of it. A
module's parameters are gathered when it runs, forward and backward, and its gradients are summed into their
parts after each backward: nobody ever holds those of the whole model. So each forward and backward takes all
processes.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(
    model: nn.Module, layers: Sequence[nn.Module], mesh: DeviceMesh, low: torch.dtype | None = None
) -> None:
    """Leave this process its part of a model, in place, on the mesh's device; all have the same model before.

    `layers` are gathered one after the other. All else is whole from a forward's begin to its backward's end,
    as who computes a loss may use it: embeddings, head, and a decoder that is tied to them.
    `low`: the type of the weights that compute; the parts, their gradients and all sums stay as they are.
    """
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=low and torch.float32)
    for module in (*layers, model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    for module in _sharded_modules(model):
        module.set_gradient_divide_factor(1.0)  # gradients are summed, as in all of the house
        module.set_force_sum_reduction_for_comms(True)  # gloo cannot scale while it sums
    # Of an output changed in place, which no family's layer is after it has been returned.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)


def rest(model: nn.Module) -> None:
    """Free what a forward without a backward has left whole."""
    for module in _sharded_modules(model):
        module.reshard()


def own_part(tensor: Tensor) -> Tensor:
    """This process's part, in the same memory; of what is not sharded all."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, to which every process has to give its part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


@torch.no_grad()
def fill(tensor: Tensor, values: Tensor) -> None:
    """Set a tensor, or this process's part of it, to `values`, which are those of the whole."""
    if isinstance(tensor, DTensor):
        values = values.to(tensor.device)
        # No source: each process has all the values, and takes its own.
        values = distribute_tensor(values, tensor.device_mesh, tensor.placements, src_data_rank=None)
    tensor.copy_(values)


def _sharded_modules(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]

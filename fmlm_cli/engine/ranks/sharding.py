"""A model of which each process holds a part, by FSDP2 (`torch.distributed.fsdp.fully_shard`).

Every parameter is cut along its first axis, and with it its gradient and what the optimizer keeps of it. A
module's parameters are gathered when it runs, forward and backward, and its gradients are summed into their
parts after each backward: nobody ever holds those of the whole model. So each forward and backward takes all
processes.
"""

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
        sharded = fully_shard(module, mesh=mesh, mp_policy=policy)
        sharded.set_gradient_divide_factor(1.0)  # gradients are summed, as in all of the house
        sharded.set_force_sum_reduction_for_comms(True)  # gloo cannot scale while it sums


def rest(model: nn.Module) -> None:
    """Free what a forward without a backward has left whole."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def own_part(tensor: Tensor) -> Tensor:
    """This process's part, in the same memory; of what is not sharded all."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, to which every process has to give its part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def cut_as(tensor: Tensor, values: Tensor) -> Tensor:
    """All the values of a tensor like this one, which each process has; sharded as this one is."""
    if not isinstance(tensor, DTensor) or values.shape != tensor.shape:
        return values
    values = values.to(tensor.device)
    return distribute_tensor(values, tensor.device_mesh, tensor.placements, src_data_rank=None)


@torch.no_grad()
def fill(tensor: Tensor, values: Tensor) -> None:
    """Set a tensor, or this process's part of it, to `values`, which are those of the whole."""
    tensor.copy_(cut_as(tensor, values))

"""A model and its optimizer's state as they are at one moment, in the host's memory."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fmlm_cli.engine.optimizer import live_state


class HostCopy:
    """Memory for a copy of a model and of its optimizer's state, taken again and again.

    Of a GPU's tensors it is pinned, so that they are copied at the speed of the bus. A copy holds until the
    next one is taken: whoever reads it has to be done by then.
    """

    def __init__(self, model: nn.Module) -> None:
        tensors = [*model.parameters(), *model.buffers()]
        copies = {id(tensor): _room_for(tensor) for tensor in tensors}
        # What deepcopy finds in its memo it takes: so the twin has all of the model but its tensors' memory.
        self._model = copy.deepcopy(model, dict(copies))
        self._pairs = [(copies[id(tensor)], tensor) for tensor in tensors]
        self._state: dict[str, Tensor] = {}

    @torch.no_grad()
    def take(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """The model's twin, and the optimizer's state by `<parameter>/<entry>`, with the values of now.

        Waits until the device has done what it was given.
        """
        state = live_state(model, optimizer)
        for name, value in state.items():
            if name not in self._state:
                self._state[name] = _room_for(value)
        pairs = [*self._pairs, *((self._state[name], value) for name, value in state.items())]
        for room, tensor in pairs:
            room.copy_(tensor, non_blocking=True)
        for device in {tensor.device for _, tensor in pairs if tensor.is_cuda}:
            torch.cuda.current_stream(device).synchronize()
        return self._model, {name: self._state[name] for name in state}


def _room_for(tensor: Tensor) -> Tensor:
    """Memory of the host for a tensor's values; a parameter's is a parameter."""
    room = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return nn.Parameter(room, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else room


def bytes_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of a model's tensors and of its optimizer's state, as far as there is one."""
    tensors = [*model.parameters(), *model.buffers(), *live_state(model, optimizer).values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

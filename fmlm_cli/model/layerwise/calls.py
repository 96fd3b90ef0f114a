"""What a call of a layer does, in the layer's place."""

from collections.abc import Callable
from typing import Any

from torch import nn

Call = Callable[..., Any]


def wrap_call(layer: nn.Module, wrap: Callable[[Call], Call]) -> None:
    """Have a layer's calls go through `wrap(call)`, which is inside of hooks on the layer, as of sharding.

    Names of parameters stay. A layer without hooks is copied and saved as if it had not been wrapped.
    """
    if layer._forward_pre_hooks or layer._forward_hooks:
        layer.forward = wrap(layer.forward)
    else:
        layer._compiled_call_impl = wrap(layer._compiled_call_impl or layer._call_impl)


def unwrap_call(layer: nn.Module) -> None:
    """Have a layer's calls be its own again."""
    layer._compiled_call_impl = None
    vars(layer).pop("forward", None)

"""Compiling a model layer by layer."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from fmlm_cli.errors import one_line
from fmlm_cli.hub import quiet
from fmlm_cli.model.layers import layer_lists
from fmlm_cli.model.layerwise.calls import unwrap_call, wrap_call

# Kinds of layers, times shapes, times with and without gradients: beyond it torch gives up in mid-run.
_MOST_GRAPHS = 256


class NotCompiledError(Exception):
    """The layers cannot be compiled; the message says why. With a cause, it was found out by running them."""


def compile_layers(
    pretrained: PreTrainedModel, once: Callable[[], object], left_out: nn.Module | None = None
) -> int:
    """Have the encoder's layers compiled, each as one graph for each shape; how many there are.

    `left_out`: a layer that stays as it is, for its shapes are another in every batch. `once` runs the model
    forward and backward, which compiles it and shows whether it can be. Layers that are alike share a graph.
    Names of parameters stay, and copies and saved models know nothing of it. Raises `NotCompiledError`, and
    leaves the model as it was, where it cannot be compiled.
    """
    layers = [layer for alike in layer_lists(pretrained) for layer in alike]
    if not layers:
        raise NotCompiledError(f"the layers of '{pretrained.config.model_type}' cannot be told apart")
    layers = [layer for layer in layers if layer is not left_out]
    if not layers:
        raise NotCompiledError("its only layer runs on masked positions, whose number is never the same")
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, _MOST_GRAPHS)
    settings.accumulated_recompile_limit = max(settings.accumulated_recompile_limit, 4 * _MOST_GRAPHS)
    for layer in layers:
        wrap_call(layer, partial(torch.compile, fullgraph=True, dynamic=False))
    try:
        with quiet():
            once()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of a compiler, of what a family's code has in it, of a kernel
        leave_uncompiled(pretrained)
        raise NotCompiledError(one_line(error)) from error
    return len(layers)


def leave_uncompiled(pretrained: PreTrainedModel) -> None:
    """Have the layers be their own again."""
    for alike in layer_lists(pretrained):
        for layer in alike:
            unwrap_call(layer)


def compiled_graphs() -> int:
    """How many graphs this process has compiled; a run that goes well adds none after its first steps."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])

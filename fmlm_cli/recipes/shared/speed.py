"""What `speed.*` asks for: how a model attends on its device, and whether its layers are compiled."""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError, one_line
from fmlm_cli.events import Caution, Emit, Note, counted
from fmlm_cli.model.attention import BACKENDS, BY_NAME
from fmlm_cli.model.isolation import A, KeepsApart, try_backends
from fmlm_cli.model.layerwise.compiling import (
    NotCompiledError,
    compile_layers,
    compiled_graphs,
    leave_uncompiled,
)
from fmlm_cli.model.masked_lm import MaskedLM


def settle_attention(model: A, runtime: Runtime, length: int, asked: str, keeps_apart: KeepsApart[A]) -> str:
    """Have a model attend as asked, on rows of `length`; which way that is, in words.

    auto: by the first of the ways that are faster than its own and, as `keeps_apart` tries, right on this
    device.
    Raises `UserError` for one that is asked for and cannot be had.
    """
    device, precision = runtime.device, runtime.precision
    own = type(model.attention)
    if asked == "auto":
        wanted = tuple(itertools.takewhile(lambda backend: backend is not own, BACKENDS))
    else:
        wanted = () if BY_NAME[asked] is own else (BY_NAME[asked],)
    faults = []
    for backend, fault in try_backends(model, device, length, wanted, precision, keeps_apart):
        if fault is None:
            model.attend_by(backend)
            break
        if asked != "auto":
            raise UserError(f"speed.attention {asked}: {fault}; use auto")
        faults.append(f"not {backend.name}: {fault}")
    chosen = f"{model.attention.name}: {model.attention.meaning}"
    return f"{chosen} ({'; '.join(faults)})" if faults and device.type == "cuda" else chosen


def check_repeats(model: nn.Module, once: Callable[[], object]) -> None:
    """Refuse a model whose gradients are not the same bits when they are computed again: tried, not assumed.

    `once` runs it forward and backward, with nothing to begin from.
    """

    def gradients() -> list[Tensor]:
        torch.manual_seed(0)
        once()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    try:
        same = all(map(torch.equal, gradients(), gradients()))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # torch's, of an operation that has no way to be so
        raise UserError(f"deterministic: {one_line(error)}; set it to false") from error
    if not same:
        raise UserError(
            "deterministic: the same batch gave two different gradients on this device; try another "
            "speed.attention (mask), or set it to false"
        )


def compile_as_asked(
    asked: bool | Literal["auto"],
    model: MaskedLM,
    runtime: Runtime,
    once: Callable[[], object],
    emit: Emit,
    *,
    ragged: bool,
) -> None:
    """Have the layers compiled if that is asked for; auto: on a GPU, where it is known to pay.

    `once` runs the model forward and backward, as training will. `ragged`: rows differ in length. What cannot
    be compiled, on all of the processes that train together, is a caution where it was not asked for, else a
    `UserError`; so it is where they have parts of the model, and the others wait in the middle of `once`.
    """
    if asked is False or (asked == "auto" and runtime.device.type != "cuda"):
        return
    begin, before = time.perf_counter(), compiled_graphs()
    layers, fault = 0, None
    try:
        if ragged and model.attention.layout == "rows":
            raise NotCompiledError("rows differ in length, and each shape would be compiled for anew")
        layers = compile_layers(model.pretrained, once, model.narrowed_layer)
    except NotCompiledError as error:
        if runtime.shard and error.__cause__ is not None:
            raise UserError(f"speed.compile: {error}; set it to false") from error
        fault = str(error)
    fault = _first_fault(runtime.ranks.gather(fault))
    if fault is not None:
        leave_uncompiled(model.pretrained)
        if asked is True:
            raise UserError(f"speed.compile: {fault}; set it to auto or false")
        emit(Caution(f"the model's layers are not compiled: {fault}", "not-compiled"))
        return
    graphs = counted(compiled_graphs() - before, "graph")
    seconds = time.perf_counter() - begin
    emit(Note(f"{counted(layers, 'layer')} compiled as {graphs} in {seconds:.0f} s"))


def _first_fault(faults: Sequence[str | None]) -> str | None:
    """What the first process with a fault has met, by its number unless it is the one that tells."""
    for rank, fault in enumerate(faults):
        if fault is not None:
            return f"process {rank}: {fault}" if rank else fault
    return None

"""What `speed.*` asks for: how a model attends on its device, and whether its layers are compiled."""

import itertools
import time
from collections.abc import Callable
from typing import Literal

from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Note, counted
from fmlm_cli.model.attention import BACKENDS, BY_NAME
from fmlm_cli.model.compiling import NotCompiledError, compile_layers, compiled_graphs
from fmlm_cli.model.isolation import A, KeepsApart, try_backends
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
    be compiled is a caution where it was not asked for, else a `UserError`.
    """
    if asked is False or (asked == "auto" and runtime.device.type != "cuda"):
        return
    begin, before = time.perf_counter(), compiled_graphs()
    try:
        if ragged and model.attention.layout == "rows":
            raise NotCompiledError("rows differ in length, and each shape would be compiled for anew")
        layers = compile_layers(model.pretrained, once, model.narrowed_layer)
    except NotCompiledError as error:
        if asked is True:
            raise UserError(f"speed.compile: {error}; set it to auto or false") from error
        emit(Caution(f"the model's layers are not compiled: {error}", "not-compiled"))
        return
    graphs = counted(compiled_graphs() - before, "graph")
    seconds = time.perf_counter() - begin
    emit(Note(f"{counted(layers, 'layer')} compiled as {graphs} in {seconds:.0f} s"))

"""What a model can take: the length of its rows, and documents that share one."""

from collections.abc import Callable
from typing import Any

from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit
from fmlm_cli.model.isolation import choose_backend
from fmlm_cli.model.masked_lm import MaskedLM

DEFAULT_LENGTH = 128


def resolve_multiple(
    asked: int | None, default: int, multiple: int, refuse: Callable[[int, int], UserError]
) -> int:
    """What was asked for if it is a multiple, else the multiple nearest to `default`.

    `refuse`: the error for another number, from the multiples below (perhaps 0) and above it.
    """
    if asked is None:
        return max(1, round(default / multiple)) * multiple
    if asked % multiple:
        below = asked // multiple * multiple
        raise refuse(below, below + multiple)
    return asked


def resolve_length(
    length: int | None, limit: int | None, model: str, setting: str = "sequence_length"
) -> int:
    """Positions in a row: what was asked for if the model has them, else 128 or the model's limit."""
    if length is None:
        return min(DEFAULT_LENGTH, limit or DEFAULT_LENGTH)
    if limit is not None and length > limit:
        raise UserError(
            f"{setting} {length} is beyond the {limit} positions of {model}: set it to {limit} or less"
        )
    return length


def resolve_packing(packing: str, model: MaskedLM, length: int, emit: Emit) -> Any:
    """The packing asked for, or one that is right where the model cannot keep documents apart.

    Where documents are packed, the model attends from now on by the first backend that keeps them apart.
    """
    if packing != "documents":
        return packing
    backend = choose_backend(model, model.pretrained.device, length)
    if backend is not None:
        model.attend_by(backend)
        return packing
    family = model.pretrained.config.model_type
    emit(
        Caution(
            f"'{family}' cannot keep packed documents apart: data.packing is none (one document to a row) "
            "instead of documents"
        )
    )
    return "none"

"""What a way of attending has to say and to give."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from fmlm_cli.model.build import dropout_rates
from fmlm_cli.model.layouts import LayoutName


class AttentionBackend(Protocol):
    """One way of attending, bound to the model that it is made for.

    Making it may prepare that model, and for good: `MaskedLM.attend_by` takes nothing back.

    `meaning`: what it does, in words. `layout`: in which form it takes a batch. `sixteen_bit`: whether it
    computes in 16 bits even where all else is in 32. The tests hold every entry of `BACKENDS` to the
    isolation probe.
    """

    name: ClassVar[str]
    meaning: ClassVar[str]
    layout: ClassVar[LayoutName]
    sixteen_bit: ClassVar[bool]

    def __init__(self, pretrained: PreTrainedModel) -> None: ...

    @classmethod
    def obstacle(
        cls, pretrained: PreTrainedModel, device: torch.device, precision: torch.dtype
    ) -> str | None:
        """Why it cannot be had for this model there at all; None if it can.

        Whether it keeps documents apart is tried. `precision`: of the matrix products of a run.
        """
        ...

    @property
    def implementation(self) -> str | None:
        """What transformers calls the attention function of the next forward; None: the model's own."""
        ...

    def inputs(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the Hugging Face forward is given beside `input_ids`, made of what `layout` holds besides."""
        ...


@contextmanager
def attending_by(config: PreTrainedConfig, implementation: str | None) -> Iterator[None]:
    """Meanwhile the model of this configuration attends by the function of this name.

    Not longer: a configuration that is copied or saved says nothing of it.
    """
    if implementation is None:
        yield
        return
    before = config._attn_implementation
    config._attn_implementation = implementation
    try:
        yield
    finally:
        config._attn_implementation = before


def attention_dropout(config: PreTrainedConfig) -> float:
    """The largest rate at which attention's weights are dropped."""
    return max((rate for name, rate in dropout_rates(config).items() if "att" in name), default=0.0)


def gpu_obstacle(config: PreTrainedConfig, device: torch.device, *, takes_dropout: bool) -> str | None:
    """Why a function of a GPU, which may have no dropout, cannot be had there; None if it can."""
    if device.type != "cuda":
        return "it needs CUDA"
    if attention_dropout(config) and not takes_dropout:
        return "it has no dropout, and the model has some in its attention"
    return None

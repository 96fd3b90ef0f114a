"""Attention on one flat row of documents, without padding, by functions that are told where each begins."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from fmlm_cli.errors import one_line
from fmlm_cli.model.attention.backend import gpu_obstacle
from fmlm_cli.model.attention.kernels import Kernel, by_document, flash_kernel, kernel_fault, varlen_kernel
from fmlm_cli.model.build import position_offset
from fmlm_cli.model.layouts import LayoutName


class OnFlatRow:
    """What backends on the layout `flat` share: positions anew in each document, and where each begins."""

    layout: ClassVar[LayoutName] = "flat"

    def __init__(self, pretrained: PreTrainedModel) -> None:
        self._offset = position_offset(pretrained)
        self._takes_positions = "position_ids" in inspect.signature(pretrained.forward).parameters

    def inputs(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """What transformers calls the bounds of documents, and `position_ids` if the family takes them."""
        bounds, longest = batch["cu_seqlens"], batch["max_length"]
        inputs = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
        inputs |= {"max_length_q": longest, "max_length_k": longest}
        if self._takes_positions:
            inputs["position_ids"] = batch["position_ids"] + self._offset
        return inputs


class _ByKernel(OnFlatRow):
    """A kernel, registered with transformers under the name `implementation`."""

    implementation: ClassVar[str | None]

    def __init__(self, pretrained: PreTrainedModel) -> None:
        super().__init__(pretrained)
        assert self.implementation is not None
        AttentionInterface.register(self.implementation, attention_function(self.kernel()))

    @classmethod
    def kernel(cls) -> Kernel:
        raise NotImplementedError


class DocumentByDocument(_ByKernel):
    """The reference: each document by itself. Right on any device, and slow."""

    name: ClassVar[str] = "documents"
    meaning: ClassVar[str] = "documents end to end without padding, one after another, which is slow"
    implementation: ClassVar[str | None] = "fmlm_documents"
    sixteen_bit: ClassVar[bool] = False

    @classmethod
    def kernel(cls) -> Kernel:
        """The reference of the kernels."""
        return by_document

    @classmethod
    def obstacle(
        cls, pretrained: PreTrainedModel, device: torch.device, precision: torch.dtype
    ) -> str | None:
        """None, ever."""
        return None


class _SixteenBit(_ByKernel):
    """A kernel of a GPU for numbers in 16 bits."""

    sixteen_bit: ClassVar[bool] = True
    takes_dropout: ClassVar[bool]

    @classmethod
    def obstacle(
        cls, pretrained: PreTrainedModel, device: torch.device, precision: torch.dtype
    ) -> str | None:
        """Another device or precision, attention's dropout, or a kernel that is not there or not right."""
        if device.type == "cuda" and precision not in (torch.bfloat16, torch.float16):
            return f"it computes in 16 bits, and the precision is {str(precision).removeprefix('torch.')}"
        obstacle = gpu_obstacle(pretrained.config, device, takes_dropout=cls.takes_dropout)
        if obstacle is not None:
            return obstacle
        try:
            kernel = cls.kernel()
        except Exception as error:  # a package that is built for another torch raises anything
            return f"it cannot be imported ({one_line(error)})"
        heads = getattr(pretrained.config, "num_attention_heads", None)
        if not isinstance(heads, int):
            return "how many heads the model has cannot be told"
        width = getattr(pretrained.config, "head_dim", None) or pretrained.config.hidden_size // heads
        return kernel_fault(kernel, heads, int(width), device)


class VarlenAttention(_SixteenBit):
    """`torch.nn.attention.varlen`."""

    name: ClassVar[str] = "varlen"
    meaning: ClassVar[str] = "documents end to end without padding, by torch's variable-length kernel"
    implementation: ClassVar[str | None] = "fmlm_varlen"
    takes_dropout: ClassVar[bool] = False

    @classmethod
    def kernel(cls) -> Kernel:
        """torch's."""
        return varlen_kernel()


class FlashAttention(_SixteenBit):
    """The package flash-attn, where it is installed."""

    name: ClassVar[str] = "flash"
    meaning: ClassVar[str] = "documents end to end without padding, by the package flash-attn"
    implementation: ClassVar[str | None] = "fmlm_flash"
    takes_dropout: ClassVar[bool] = True

    @classmethod
    def kernel(cls) -> Kernel:
        """That of the package."""
        return flash_kernel()


@functools.cache  # the same function for the same kernel: what is compiled with it stays so
def attention_function(kernel: Kernel) -> Callable[..., tuple[Tensor, None]]:
    """A kernel as transformers calls attention: of one row, [1, heads, tokens, width] each."""

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        dropout: float = 0.0,
        scaling: float | None = None,
        sliding_window: int | None = None,
        cu_seq_lens_q: Tensor | None = None,
        max_length_q: int | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        if cu_seq_lens_q is None or max_length_q is None:
            raise ValueError("this family does not pass the bounds of documents on to its attention")
        groups = query.shape[1] // key.shape[1]
        if groups > 1:
            key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
        q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
        attended = kernel(
            q,
            k,
            v,
            cu_seq_lens_q,
            max_length_q,
            scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
            # transformers hands over one more than a position sees on either side.
            window=None if sliding_window is None else sliding_window - 1,
            dropout=dropout,
        )
        return attended[None], None

    return attention

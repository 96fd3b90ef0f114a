"""Attention on rows as they are, by a mask."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fmlm_cli.model.attention.dropping import dropping_implementation
from fmlm_cli.model.build import position_offset
from fmlm_cli.model.layouts import LayoutName


class MaskOnRows:
    """A mask of which position sees which, for each row, through whatever attention the model has.

    It takes length^2 values a row, and a GPU's flash kernel takes no such mask.
    """

    name: ClassVar[str] = "mask"
    meaning: ClassVar[str] = "in padded rows, with a mask that hides padding and other documents"
    layout: ClassVar[LayoutName] = "rows"
    sixteen_bit: ClassVar[bool] = False

    def __init__(self, pretrained: PreTrainedModel) -> None:
        self._pretrained = pretrained
        self._offset = position_offset(pretrained)
        self._takes_positions = "position_ids" in inspect.signature(pretrained.forward).parameters
        self._bool_mask = pretrained.config._attn_implementation != "eager"
        embeddings = getattr(pretrained.base_model, "embeddings", None)
        if embeddings is not None and "mask" in inspect.signature(embeddings.forward).parameters:
            # DeBERTa multiplies its embeddings by the mask, and its own attention takes a bool one.
            self._bool_mask = True
            embeddings.register_forward_pre_hook(_without_pairwise_mask, with_kwargs=True)

    @property
    def implementation(self) -> str | None:
        """That of the model, but for dropout on a CPU."""
        return dropping_implementation(self._pretrained)

    @classmethod
    def obstacle(
        cls, pretrained: PreTrainedModel, device: torch.device, precision: torch.dtype
    ) -> str | None:
        """None, ever: what a family makes of such a mask is seen when it is tried."""
        return None

    def inputs(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """`attention_mask`, and `position_ids` if the family takes them; nothing where nothing is hidden."""
        segments = batch["segments"]
        if segments is None:
            return {}
        return self._plain(segments) if batch["alone"] else self._isolated(batch["position_ids"], segments)

    def _plain(self, segments: Tensor) -> Mapping[str, Any]:
        return {"attention_mask": (segments > 0).long()}

    def _isolated(self, position_ids: Tensor, segments: Tensor) -> Mapping[str, Any]:
        """Attention only within a document, positions anew in each. Padding attends to padding: no NaN."""
        same = segments[:, None, :, None] == segments[:, None, None, :]
        config = self._pretrained.config
        mask: Any = self._as_expected(same)
        if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
            place = torch.arange(segments.shape[1], device=segments.device)
            near = (place[:, None] - place[None, :]).abs() <= int(config.sliding_window)
            mask = {"full_attention": mask, "sliding_attention": self._as_expected(same & near)}
        inputs = {"attention_mask": mask}
        if self._takes_positions:
            inputs["position_ids"] = position_ids + self._offset
        return inputs

    def _as_expected(self, allowed: Tensor) -> Tensor:
        """SDPA takes a bool mask; eager attention adds the mask to its scores."""
        if self._bool_mask:
            return allowed
        dtype = self._pretrained.dtype
        return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


def _without_pairwise_mask(
    module: nn.Module, args: Any, kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Pre-hook of embeddings: keep from them a mask [rows, 1, length, length], which is the attention's.

    Padding's embeddings then are not 0 as in the stock forward; nothing but padding attends to them.
    """
    mask = kwargs.get("mask")
    return args, {**kwargs, "mask": None} if mask is not None and mask.dim() > 2 else kwargs

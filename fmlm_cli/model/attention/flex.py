"""Attention on one flat row by flex attention, in blocks of which those between documents are left out."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import PreTrainedModel

from fmlm_cli.model.attention.backend import gpu_obstacle
from fmlm_cli.model.attention.flat import OnFlatRow

_BLOCK = 128  # positions a side, flex attention's own choice


class FlexAttention(OnFlatRow):
    """transformers' flex attention, which it compiles, with masks of blocks; in any precision."""

    name: ClassVar[str] = "flex"
    meaning: ClassVar[str] = "documents end to end without padding, by flex attention"
    implementation: ClassVar[str | None] = "flex_attention"
    sixteen_bit: ClassVar[bool] = False

    def __init__(self, pretrained: PreTrainedModel) -> None:
        super().__init__(pretrained)
        sliding = "sliding_attention" in (getattr(pretrained.config, "layer_types", None) or ())
        self._window = int(pretrained.config.sliding_window) if sliding else None

    @classmethod
    def obstacle(
        cls, pretrained: PreTrainedModel, device: torch.device, precision: torch.dtype
    ) -> str | None:
        """Another device, for which it is not compiled, or attention's dropout."""
        return gpu_obstacle(pretrained.config, device, takes_dropout=False)

    def inputs(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """`attention_mask`, one for each kind of layer, and `position_ids` if the family takes them."""
        bounds, length = batch["cu_seqlens"], batch["position_ids"].shape[1]
        documents = torch.bucketize(torch.arange(length, device=bounds.device), bounds[1:], right=True)
        mask: Any = document_blocks(documents, None)
        if self._window is not None:
            mask = {"full_attention": mask, "sliding_attention": document_blocks(documents, self._window)}
        positions = {"position_ids": batch["position_ids"] + self._offset} if self._takes_positions else {}
        return {"attention_mask": mask, **positions}


def document_blocks(documents: Tensor, window: int | None) -> BlockMask:
    """Which position sees which, by blocks, made without a look at all pairs of positions.

    `documents`: int64[length], the number of the document that each is in, never falling. `window`: how many
    positions on either side are seen, or all.
    """
    length = len(documents)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = documents[query] == documents[key]
        return same if window is None else same & ((query - key).abs() <= window)

    first = documents[::_BLOCK]
    begin = torch.arange(0, length, _BLOCK, device=documents.device)
    last = documents[(begin + _BLOCK - 1).clamp(max=length - 1)]
    share = (first[:, None] <= last[None, :]) & (first[None, :] <= last[:, None])
    if window is not None:
        apart = (begin[:, None] - begin[None, :]).abs() - _BLOCK + 1  # of their nearest positions
        share &= apart <= window
    counts = share.sum(dim=1, dtype=torch.int32)
    order = share.to(torch.int8).argsort(dim=1, descending=True, stable=True).to(torch.int32)
    return BlockMask.from_kv_blocks(
        counts[None, None], order[None, None], BLOCK_SIZE=_BLOCK, mask_mod=sees, seq_lengths=(length, length)
    )

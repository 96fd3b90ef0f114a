"""Attention backends that are wrong, each in one way, and some that stand in for those of a GPU."""

from typing import Any

import torch
from torch import Tensor

from fmlm_cli.model.attention import DocumentByDocument, MaskOnRows
from fmlm_cli.model.attention.kernels import Kernel, by_document


class Leaking(MaskOnRows):
    """Positions restart in each document, but the mask only hides padding."""

    name = "leaking"

    def _isolated(self, position_ids: Tensor, segments: Tensor) -> dict[str, Any]:
        inputs = {"attention_mask": (segments > 0).long()}
        if self._takes_positions:
            inputs["position_ids"] = position_ids + self._offset
        return inputs


class OnePositionOff(MaskOnRows):
    """Documents stay apart, but the second one's positions go on from the first's."""

    name = "one position off"

    def _isolated(self, position_ids: Tensor, segments: Tensor) -> dict[str, Any]:
        everywhere = torch.arange(position_ids.shape[1]).expand_as(position_ids)
        return dict(super()._isolated(everywhere, segments))


class WideWindow(MaskOnRows):
    """One mask for all layers, which drops the sliding window."""

    name = "wide window"

    def _isolated(self, position_ids: Tensor, segments: Tensor) -> dict[str, Any]:
        inputs = dict(super()._isolated(position_ids, segments))
        inputs["attention_mask"] = inputs["attention_mask"]["full_attention"]
        return inputs


def in_sixteen_bits(query: Tensor, key: Tensor, value: Tensor, *bounds: Any, **options: Any) -> Tensor:
    """What a kernel of a GPU gives: numbers of 16 bits, of such numbers."""
    q, k, v = (part.bfloat16().to(query.dtype) for part in (query, key, value))
    return by_document(q, k, v, *bounds, **options).bfloat16().to(query.dtype)


def leaking(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, longest: int, **options: Any
) -> Tensor:
    """The first two documents are one."""
    return in_sixteen_bits(query, key, value, cu_seqlens[cu_seqlens != cu_seqlens[1]], longest, **options)


class Rounded(DocumentByDocument):
    """In 16 bits, and right."""

    name = "rounded"
    implementation = "test_rounded"
    sixteen_bit = True

    @classmethod
    def kernel(cls) -> Kernel:
        return in_sixteen_bits


class RoundedLeaking(Rounded):
    """In 16 bits, and documents see each other."""

    name = "rounded, leaking"
    implementation = "test_rounded_leaking"

    @classmethod
    def kernel(cls) -> Kernel:
        return leaking


def without_window(*inputs: Any, window: int | None, **options: Any) -> Tensor:
    """Sliding layers see all positions."""
    return by_document(*inputs, window=None, **options)


class FlatWide(DocumentByDocument):
    """Documents stay apart, but the sliding window is lost on the way."""

    name = "flat, wide"
    implementation = "test_flat_wide"

    @classmethod
    def kernel(cls) -> Kernel:
        return without_window


class RoundedWide(FlatWide):
    """The same, seen as coarsely as one in 16 bits is."""

    name = "rounded, wide"
    implementation = "test_rounded_wide"
    sixteen_bit = True


def traceable(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens: Tensor,
    max_length: int,
    *,
    scale: float,
    window: int | None,
    dropout: float,
) -> Tensor:
    """By a mask that is made of the bounds without a look at their values."""
    place = torch.arange(len(query), device=query.device)
    document = torch.bucketize(place, cu_seqlens[1:], right=True)
    sees = document[:, None] == document[None, :]
    if window is not None:
        sees = sees & ((place[:, None] - place[None, :]).abs() <= window)
    q, k, v = (part.transpose(0, 1)[None] for part in (query, key, value))
    out = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=sees, dropout_p=dropout, scale=scale
    )
    return out[0].transpose(0, 1)


class Traceable(DocumentByDocument):
    """On a flat row, and can be compiled on any device."""

    name = "traceable"
    implementation = "test_traceable"

    @classmethod
    def kernel(cls) -> Kernel:
        return traceable

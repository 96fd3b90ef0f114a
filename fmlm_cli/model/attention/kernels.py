"""Attention functions over documents that lie end to end, and whether one of them is right on a device."""

import functools
import importlib
import inspect
import itertools
import math
from collections.abc import Hashable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fmlm_cli.errors import one_line

TOLERANCE = 0.03  # of the largest value: 16 bits keep eight of them after the first, and errors add up
_LENGTHS = (5, 70, 1, 0, 33)  # of a trial's documents: one shorter than a block of any kernel, one empty


class Kernel(Hashable, Protocol):
    """Attention of every document within itself."""

    def __call__(
        self,
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
        """What is attended to, [tokens, heads, width], as are `query`, `key`, `value`, and of their dtype.

        `cu_seqlens`: int32[documents + 1], where each begins, then where the last ends; some may be empty.
        `max_length`: no document is longer. `window`: how many positions on either side are seen, or all.
        """
        ...


def by_document(
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
    """The reference: one document after another, on any device, by the means for a single sequence."""
    attended = []
    for begin, end in itertools.pairwise(cu_seqlens.tolist()):
        if begin == end:
            continue
        q, k, v = (part[begin:end].transpose(0, 1)[None] for part in (query, key, value))
        near = None
        if window is not None:
            place = torch.arange(end - begin, device=query.device)
            near = (place[:, None] - place[None, :]).abs() <= window
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=near, dropout_p=dropout, scale=scale)
        attended.append(out[0].transpose(0, 1))
    return torch.cat(attended)


@functools.cache
def varlen_kernel() -> Kernel:
    """torch's, whatever its version takes. Raises `ImportError` where it has none."""
    function = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    accepted = inspect.signature(function).parameters
    takes_scale, takes_window = "scale" in accepted, "window_size" in accepted

    def varlen(
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
        options: dict[str, Any] = {"scale": scale} if takes_scale else {}
        if window is not None:
            if not takes_window:
                raise ValueError("this torch's varlen_attn has no windows")
            options["window_size"] = (window, window)
        if not takes_scale:  # then it is 1 / sqrt(width)
            query = query * (scale * math.sqrt(query.shape[-1]))
        short = (part.to(_sixteen_bit(query)) for part in (query, key, value))
        out: Tensor = function(*short, cu_seqlens, cu_seqlens, max_length, max_length, **options)
        return out.to(query.dtype)

    return varlen


@functools.cache
def flash_kernel() -> Kernel:
    """That of the package flash-attn. Raises anything where that was built for another torch."""
    function = importlib.import_module("flash_attn").flash_attn_varlen_func

    def flash(
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
        sides = (-1, -1) if window is None else (window, window)
        short = (part.to(_sixteen_bit(query)) for part in (query, key, value))
        options = {"dropout_p": dropout, "softmax_scale": scale, "window_size": sides}
        options["deterministic"] = torch.are_deterministic_algorithms_enabled()  # as torch's own kernels are
        out: Tensor = function(*short, cu_seqlens, cu_seqlens, max_length, max_length, **options)
        return out.to(query.dtype)

    return flash


def _sixteen_bit(query: Tensor) -> torch.dtype:
    """Of numbers in 32 bits, as a model has them that is tried: bfloat16."""
    return query.dtype if query.dtype == torch.float16 else torch.bfloat16


def kernel_fault(kernel: Kernel, heads: int, width: int, device: torch.device) -> str | None:
    """What is wrong with a kernel there, by random numbers: values and gradients, with a window and without.

    None where all are those of the reference, as exactly as 16 bits allow.
    """
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(4, sum(_LENGTHS), heads, width, generator=generator)
    query, key, value, out_gradient = numbers.bfloat16().to(device).unbind()
    bounds = torch.tensor([0, *itertools.accumulate(_LENGTHS)], dtype=torch.int32, device=device)

    def run(which: Kernel, window: int | None) -> list[Tensor]:
        q, k, v = (part.float().requires_grad_() for part in (query, key, value))
        scale = 0.7 * width**-0.5  # not the usual one
        out = which(q, k, v, bounds, max(_LENGTHS), scale=scale, window=window, dropout=0.0)
        return [out.detach(), *torch.autograd.grad(out, (q, k, v), out_gradient.float())]

    with torch.enable_grad():
        for window in (None, 3):
            try:
                found = run(kernel, window)
            except Exception as error:  # whatever a kernel says of a device or of numbers that it cannot take
                return f"it fails here ({one_line(error)})"
            for got, wanted in zip(found, run(by_document, window), strict=True):
                if not (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max():
                    return "it gives other numbers here than attention does"
    return None

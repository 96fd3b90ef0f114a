"""Attention kernels are held to the reference; the adapters give each version of a kernel what it takes."""

import importlib
import itertools
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from fmlm_cli.model.attention import FlashAttention, VarlenAttention
from fmlm_cli.model.attention.flex import document_blocks
from fmlm_cli.model.attention.kernels import Kernel, by_document, flash_kernel, kernel_fault, varlen_kernel
from tests.model.backends import in_sixteen_bits, leaking, without_window
from tests.model.families import small_config, small_model

CPU = torch.device("cpu")
GPU = torch.device("cuda")
varlen = importlib.import_module("torch.nn.attention.varlen")


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
    window=st.none() | st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_the_reference_is_attention_written_out(lengths: list[int], window: int | None, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, sum(lengths), 2, 4, generator=generator, dtype=torch.float64).unbind()
    bounds = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    got = by_document(q, k, v, bounds, max(lengths), scale=0.3, window=window, dropout=0.0)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    for head, at in itertools.product(range(2), range(sum(lengths))):
        near = [
            other
            for other in range(sum(lengths))
            if owner[other] == owner[at] and (window is None or abs(other - at) <= window)
        ]
        weights = torch.softmax(0.3 * k[near, head] @ q[at, head], dim=0)
        torch.testing.assert_close(got[at, head], weights @ v[near, head])


def narrower(*inputs: Any, window: int | None, **options: Any) -> Tensor:
    return in_sixteen_bits(*inputs, window=window and window - 1, **options)


def usual_scale(query: Tensor, *inputs: Any, scale: float, **options: Any) -> Tensor:
    return in_sixteen_bits(query, *inputs, scale=query.shape[-1] ** -0.5, **options)


def no_number(*inputs: Any, **options: Any) -> Tensor:
    """As attention of cuDNN was reported to be: right values, gradients of NaN."""
    out = in_sixteen_bits(*inputs, **options)
    out.register_hook(lambda gradient: gradient * float("nan"))
    return out


def failing(*inputs: Any, **options: Any) -> Tensor:
    raise RuntimeError("no kernel for this card\nand more")


@pytest.mark.parametrize("kernel", [by_document, in_sixteen_bits])
def test_a_kernel_that_is_right_is_taken(kernel: Kernel) -> None:
    assert kernel_fault(kernel, 3, 8, CPU) is None


@pytest.mark.parametrize("kernel", [leaking, without_window, narrower, usual_scale, no_number])
def test_a_kernel_that_is_wrong_is_found_out(kernel: Kernel) -> None:
    assert kernel_fault(kernel, 3, 8, CPU) == "it gives other numbers here than attention does"


def test_a_kernel_that_fails_says_why() -> None:
    assert kernel_fault(failing, 3, 8, CPU) == "it fails here (no kernel for this card)"


def varlen_of_2_10(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int,
    is_causal: bool = False, return_aux: Any = None,
) -> Tensor:  # fmt: skip
    assert not is_causal and cu_seq_q is cu_seq_k and max_q == max_k
    scale = query.shape[-1] ** -0.5
    return by_document(query, key, value, cu_seq_q, max_q, scale=scale, window=None, dropout=0.0)


def varlen_of_2_11(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int,
    *, return_aux: Any = None, scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
) -> Tensor:  # fmt: skip
    assert query.dtype == key.dtype == value.dtype == torch.bfloat16 and cu_seq_q.dtype == torch.int32
    assert scale is not None and window_size[0] == window_size[1]
    window = None if window_size == (-1, -1) else window_size[0]
    return by_document(query, key, value, cu_seq_q, max_q, scale=scale, window=window, dropout=0.0)


def test_varlen_is_given_what_its_version_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", varlen_of_2_11)
    assert kernel_fault(varlen_kernel.__wrapped__(), 3, 8, CPU) is None
    monkeypatch.setattr(varlen, "varlen_attn", varlen_of_2_10)
    old = varlen_kernel.__wrapped__()
    assert kernel_fault(old, 3, 8, CPU) == "it fails here (this torch's varlen_attn has no windows)"
    q, k, v = torch.randn(3, 9, 2, 8).unbind()
    bounds = torch.tensor([0, 4, 9], dtype=torch.int32)
    given = {"scale": 0.7, "window": None, "dropout": 0.0}
    wanted = by_document(q, k, v, bounds, 5, **given)
    torch.testing.assert_close(old(q, k, v, bounds, 5, **given), wanted, rtol=0.03, atol=0.03)


def test_flash_is_given_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(
        q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
        max_seqlen_k: int, dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False,
        window_size: tuple[int, int] = (-1, -1), deterministic: bool = False,
    ) -> Tensor:  # fmt: skip
        assert not causal and dropout_p == 0 and not deterministic
        options = {"scale": softmax_scale, "window_size": window_size}
        return varlen_of_2_11(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options)  # type: ignore[arg-type]

    package = types.ModuleType("flash_attn")
    package.flash_attn_varlen_func = function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    assert kernel_fault(flash_kernel.__wrapped__(), 3, 8, CPU) is None


def test_what_stands_against_a_kernel_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that has a GPU, as far as these look at it: a package may be built for another torch."""
    model = small_model(small_config("bert"))
    assert "precision is float32" in str(VarlenAttention.obstacle(model, GPU, torch.float32))

    def broken() -> Kernel:
        raise OSError("libcudart.so.11: cannot open\nmore")

    monkeypatch.setattr(FlashAttention, "kernel", broken)
    said = FlashAttention.obstacle(model, GPU, torch.bfloat16)
    assert said == "it cannot be imported (libcudart.so.11: cannot open)"
    model.config.attention_probs_dropout_prob = 0.1
    assert "has no dropout" in str(VarlenAttention.obstacle(model, GPU, torch.bfloat16))
    assert FlashAttention.obstacle(model, GPU, torch.bfloat16) == said  # it has


@pytest.mark.parametrize("window", [None, 0, 3, 128, 129, 200])
@pytest.mark.parametrize("lengths", [[640], [1, 127, 128, 384], [100, 30, 300, 5, 5, 80], [129, 2, 70]])
def test_blocks_of_documents_are_those_of_a_look_at_every_pair(
    lengths: list[int], window: int | None
) -> None:
    documents = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    total = len(documents)
    ours = document_blocks(documents, window)
    wanted = create_block_mask(ours.mask_mod, None, None, total, total, device="cpu")
    assert torch.equal(ours.to_dense(), wanted.to_dense())
    place = torch.arange(total)
    zero = torch.tensor(0)
    for query in range(0, total, 37):
        sees = ours.mask_mod(zero, zero, torch.tensor(query), place)
        near = (place - query).abs() <= (total if window is None else window)
        assert torch.equal(sees, (documents == documents[query]) & near)

"""Loss and gradients, by every attention backend and however a step is cut, are those of single documents."""

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedConfig

from fmlm_cli.corpus.rows.reading import Rows
from fmlm_cli.masking import get_strategy
from fmlm_cli.model.attention import BY_NAME, AttentionBackend, DocumentByDocument, MaskOnRows
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.objectives.masked_lm import MaskedLanguageModelling, view_of
from tests.model.families import VOCABULARY, small_config, small_model
from tests.objectives.made_rows import MASK, make_rows

LENGTH = 16  # of a row: five windows of ModernBERT
PADDING = 4  # an id that no row has otherwise: RoBERTa counts no position for it
FAMILIES = ["bert", "roberta", "modernbert"]
ORDINARY = np.arange(5, VOCABULARY)

rows_strategy = st.one_of(
    st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=3), min_size=1, max_size=5),
    st.lists(st.lists(st.integers(3, LENGTH), min_size=1, max_size=1), min_size=1, max_size=6),
)


def config_of(family: str) -> PreTrainedConfig:
    config = small_config(family)
    config.pad_token_id = PADDING
    return config


@functools.cache
def exact_model(family: str, backend: type[AttentionBackend]) -> MaskedLM:
    return MaskedLM(small_model(config_of(family)), backend).double().eval()


def objective(layout: Any, *, static: bool, masks: int) -> MaskedLanguageModelling:
    strategy = get_strategy("random", segments=3, masks_per_sequence=masks)
    return MaskedLanguageModelling(strategy, 7, MASK, ORDINARY, torch.zeros(VOCABULARY), static, layout)


def gradients(model: MaskedLM) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


def of_single_documents(model: MaskedLM, mlm: MaskedLanguageModelling, rows: Rows) -> tuple[Tensor, Any]:
    """The stock forward on one document after another."""
    view = view_of(rows)
    masks = mlm.strategy.masks(view, 2, mlm.seed)
    ids, _ = mlm.strategy.corrupt(
        view, masks, 2, mlm.seed, mask_id=mlm.mask_id, ordinary_ids=mlm.ordinary_ids
    )
    device = model.pretrained.device
    model.zero_grad()
    total = torch.zeros((), dtype=torch.float64, device=device)
    for row, mask in np.ndindex(*masks.shape[:2]):
        for document in range(1, rows.segments[row].max() + 1):
            own = rows.segments[row] == document
            masked = torch.from_numpy(masks[row, mask, own])
            if masked.any():
                shown = torch.from_numpy(ids.reshape(masks.shape)[row, mask, own]).to(device)
                logits = model.pretrained(input_ids=shown[None]).logits[0, masked]
                targets = torch.from_numpy(rows.input_ids[row, own])[masked].to(device)
                loss = F.cross_entropy(logits, targets, reduction="sum")
                loss.backward()
                total += loss.detach()
    return total, gradients(model)


def of_batches(
    model: MaskedLM, mlm: MaskedLanguageModelling, rows: Rows, micro_size: int, **autocast: Any
) -> Any:
    device = model.pretrained.device
    model.zero_grad()
    total = torch.zeros((), dtype=torch.float64, device=device)
    for batch in mlm.prepare(rows, 2, micro_size):
        with torch.autocast(device.type, enabled=bool(autocast), **autocast):
            loss = mlm.loss(model, batch.to(device))
        loss.backward()
        total += loss.detach()
    return total, gradients(model)


@settings(max_examples=20, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    backend=st.sampled_from([MaskOnRows, DocumentByDocument]),
    lengths=rows_strategy,
    micro=st.integers(1, 7),
    masks=st.integers(1, 2),
    static=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_cut_and_backend_has_the_gradient_of_single_documents(
    family: str,
    backend: type[AttentionBackend],
    lengths: list[list[int]],
    micro: int,
    masks: int,
    static: bool,
    seed: int,
) -> None:
    model = exact_model(family, backend)
    rows = make_rows(lengths, LENGTH, seed, pad=PADDING)
    mlm = objective(backend.layout, static=static, masks=masks)
    wanted_loss, wanted = of_single_documents(model, mlm, rows)
    loss, found = of_batches(model, mlm, rows, micro)
    torch.testing.assert_close(loss, wanted_loss, rtol=1e-6, atol=1e-9)  # the loss is summed in float32
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-6 * largest, msg=name)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.gpu) for n in ("varlen", "flash", "flex")]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_of_a_gpu_have_the_gradient_of_single_documents(family: str, name: str) -> None:
    backend, device = BY_NAME[name], torch.device("cuda")
    config = config_of(family)
    config.hidden_size, config.num_attention_heads = 64, 2  # flex attention takes no narrower heads
    config.initializer_range = 0.1
    stock = small_model(config).to(device)
    fault = backend.obstacle(stock, device, torch.bfloat16)
    if fault is not None:
        pytest.skip(f"{name}: {fault}")
    model = MaskedLM(stock, backend).eval()
    exact = MaskedLM(copy.deepcopy(stock).double()).eval()
    rows = make_rows([[5, 5, 5], [16], [3, 9], [7], [4, 4, 4]], LENGTH, 0, pad=PADDING)
    mlm = objective("flat", static=True, masks=2)
    wanted_loss, wanted = of_single_documents(exact, mlm, rows)
    loss, found = of_batches(model, mlm, rows, 3, dtype=torch.bfloat16)
    torch.testing.assert_close(loss, wanted_loss, rtol=0.01, atol=0)
    for part, gradient in wanted.items():
        apart = (found[part].double() - gradient).norm() / gradient.norm().clamp(min=1e-3)
        assert apart < 0.06, part


def test_full_rows_are_cut_as_they_ever_were() -> None:
    """Of one document each, and in order: nothing is sorted, trimmed or cut elsewhere."""
    rows = make_rows([[LENGTH]] * 7, LENGTH)
    mlm = objective("rows", static=False, masks=1)
    batches = mlm.prepare(rows, 0, 3)
    (whole,) = mlm.prepare(rows, 0, 7)
    assert [batch.rows for batch in batches] == [(100, 101, 102), (103, 104, 105), (106,)]
    assert torch.equal(torch.cat([b.inputs["input_ids"] for b in batches]), whole.inputs["input_ids"])
    assert all(batch.inputs["segments"] is None for batch in batches)


def test_padding_is_never_computed() -> None:
    """One document to a row: rows are as wide as the next eight columns, and share batches by width."""
    lengths = [3, 16, 5, 9, 4, 3, 8, 6, 3, 12]
    rows = make_rows([[n] for n in lengths], LENGTH)
    by_rows = objective("rows", static=False, masks=1).prepare(rows, 0, 2)
    shapes = [tuple(batch.inputs["input_ids"].shape) for batch in by_rows]
    assert shapes == [(2, 16), (2, 16), (4, 8), (2, 8)]
    assert [batch.tokens for batch in by_rows] == [25, 15, 20, 9]
    assert [row for batch in by_rows for row in batch.rows] == [
        101,
        103,
        109,
        100,
        102,
        104,
        105,
        106,
        107,
        108,
    ]
    flat = objective("flat", static=False, masks=1).prepare(rows, 0, 2)
    assert [batch.tokens for batch in flat] == [24, 30, 15]
    assert [batch.rows for batch in flat] == [(100, 101, 102), (103, 104, 105, 106, 107), (108, 109)]
    assert all(batch.inputs["input_ids"].shape == (1, 32) for batch in flat)


def test_single_gradients_are_of_masked_rows_in_their_order() -> None:
    rows = make_rows([[3], [16], [5, 5]], LENGTH)
    mlm = objective("rows", static=False, masks=2)
    batches = mlm.prepare_singly(rows, 4)
    assert [batch.rows for batch in batches] == [(100,), (100,), (101,), (101,), (102,), (102,)]
    assert all(batch.inputs["input_ids"].shape == (1, LENGTH) for batch in batches)
    masks = mlm.strategy.masks(view_of(rows), 4, mlm.seed).reshape(-1, LENGTH)
    for batch, mask in zip(batches, masks, strict=True):
        assert batch.inputs["masked_index"].tolist() == np.flatnonzero(mask).tolist()

"""The wrapped model against the stock forward of every family."""

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForMaskedLM, BertConfig, RobertaConfig

from fmlm_cli.model.attention import AttentionBackend, MaskOnRows
from fmlm_cli.model.build import VocabularyFacts, build_model, set_output_bias
from fmlm_cli.model.isolation import isolates_documents
from fmlm_cli.model.masked_lm import MaskedLM
from tests.model.backends import Leaking, OnePositionOff, WideWindow
from tests.model.families import (
    FAMILIES,
    LENGTH,
    MISSING,
    ROBERTA,
    VOCABULARY,
    WINDOW,
    masked_logits,
    small_model,
)

ISOLATING = list(FAMILIES)
EAGER_ONLY = ("mpnet", "deberta", "deberta-v2")
BY_NAME = [*FAMILIES, *(pytest.param(n, marks=pytest.mark.skip(f"transformers lacks {n}")) for n in MISSING)]


@functools.cache
def wrapped(
    family: str, attention: str | None = None, backend: type[AttentionBackend] = MaskOnRows
) -> MaskedLM:
    chosen = {"attn_implementation": attention} if attention else {}
    return MaskedLM(small_model(FAMILIES[family](), **chosen), backend).eval()


def stock(model: MaskedLM, ids: Tensor, **inputs: Any) -> Tensor:
    """Logits of the model as Hugging Face runs it: the wrapper's hook is idle outside the wrapper's forward."""
    assert model._masked_index is None
    return model.pretrained(input_ids=ids, **inputs).logits


def random_tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(5, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def single_documents(lengths: list[int], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of one document each: ids, positions, segments."""
    place = torch.arange(LENGTH).expand(len(lengths), -1)
    segments = (place < torch.tensor(lengths)[:, None]).long()
    return random_tokens(*place.shape).where(segments > 0, pad), place * segments, segments


def packed_documents(lengths: list[int], pad: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """One row of several documents, padded to LENGTH."""
    positions, segments = torch.zeros(2, 1, LENGTH, dtype=torch.long)
    begin = 0
    for number, length in enumerate(lengths, start=1):
        positions[0, begin : begin + length] = torch.arange(length)
        segments[0, begin : begin + length] = number
        begin += length
    return random_tokens(1, LENGTH, seed=seed).where(segments > 0, pad), positions, segments


def close(got: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    scale = max(1.0, float(wanted.detach().abs().max())) if wanted.numel() else 1.0
    assert got.shape == wanted.shape
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("family", BY_NAME)
def test_logits_at_masked_positions_are_the_stock_forwards(family: str) -> None:
    model = wrapped(family)
    ids, positions, segments = single_documents([LENGTH, 15, 4], model.pretrained.config.pad_token_id)
    index = torch.tensor([1, 5, 23, LENGTH, LENGTH + 14, 2 * LENGTH + 3])
    with torch.no_grad():
        got = masked_logits(model, ids, positions, segments, index, alone=True)
        wanted = stock(model, ids, attention_mask=segments).flatten(0, 1)[index]
    close(got, wanted)


@pytest.mark.parametrize("family", BY_NAME)
def test_loss_and_gradients_are_the_stock_ones(family: str) -> None:
    """Stock models average over the labels; the summed loss divided by their number is the same."""
    model = wrapped(family)
    ids, positions, segments = single_documents([LENGTH, 15, 4], model.pretrained.config.pad_token_id)
    index = torch.tensor([0, 7, LENGTH + 3, LENGTH + 9, 2 * LENGTH + 1])
    targets = random_tokens(len(index), seed=1)
    labels = torch.full(ids.shape, -100)
    labels.view(-1)[index] = targets

    def gradients(loss: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    mine = (
        F.cross_entropy(
            masked_logits(model, ids, positions, segments, index, alone=True), targets, reduction="sum"
        )
        / 5
    )
    got = gradients(mine)
    theirs = model.pretrained(input_ids=ids, attention_mask=segments, labels=labels).loss
    wanted = gradients(theirs)
    close(mine, theirs)
    assert got.keys() == wanted.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-4, atol=1e-5 * largest, msg=name)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", BY_NAME)
def test_packed_documents_are_as_alone(family: str, attention: str) -> None:
    if family in EAGER_ONLY and attention == "sdpa":
        pytest.skip(f"transformers has no sdpa attention for {family}")
    model = wrapped(family, attention)
    assert isolates_documents(model, LENGTH)
    lengths = [9, 4, 8]
    ids, positions, segments = packed_documents(lengths, model.pretrained.config.pad_token_id)
    begin = 0
    for length in lengths:
        span = torch.arange(begin, begin + length)
        with torch.no_grad():
            got = masked_logits(model, ids, positions, segments, span, alone=False)
            alone = stock(model, ids[:, span], attention_mask=torch.ones(1, length, dtype=torch.long))
            changed = ids.clone()
            outside = torch.ones(LENGTH, dtype=torch.bool)
            outside[span] = False
            changed[0, outside] = random_tokens(int(outside.sum()), seed=9)
            beside_others = masked_logits(model, changed, positions, segments, span, alone=False)
        close(got, alone[0])
        close(beside_others, got, 1e-6)
        begin += length


@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(ISOLATING),
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    seed=st.integers(0, 100),
)
def test_any_packing_is_as_alone(family: str, lengths: list[int], seed: int) -> None:
    model = wrapped(family)
    ids, positions, segments = packed_documents(lengths, model.pretrained.config.pad_token_id, seed)
    with torch.no_grad():
        got = masked_logits(model, ids, positions, segments, torch.arange(sum(lengths)), alone=False)
        wanted = [
            stock(model, part, attention_mask=torch.ones_like(part))[0]
            for part in ids[:, : sum(lengths)].split(lengths, dim=1)
        ]
    close(got, torch.cat(wanted))


@pytest.mark.parametrize("family", ["deberta", "deberta-v2"])
def test_deberta_without_the_mask_of_pairs_for_its_attention_alone_would_not_run(family: str) -> None:
    """Its embeddings are multiplied by the mask, so they must not see one of four dimensions."""
    model = MaskedLM(small_model(FAMILIES[family]())).eval()
    model.pretrained.base_model.embeddings._forward_pre_hooks.clear()
    ids, positions, segments = packed_documents([9, 12], 0)
    with pytest.raises(RuntimeError, match="size of tensor"):
        masked_logits(model, ids, positions, segments, torch.tensor([1]), alone=False)
    assert model._masked_index is None  # the failed try leaves nothing behind
    assert not isolates_documents(model, LENGTH)


def test_deberta_with_absolute_positions_restarts_them() -> None:
    config = FAMILIES["deberta-v2"]()
    config.position_biased_input = True
    model = MaskedLM(small_model(config)).eval()
    assert isolates_documents(model, LENGTH)
    assert not isolates_documents(MaskedLM(small_model(config), OnePositionOff).eval(), LENGTH)


def test_modernbert_documents_are_longer_than_its_window() -> None:
    """Two documents four windows long; without its window the model would give other logits."""
    model, wide = wrapped("modernbert"), wrapped("modernbert", backend=WideWindow)
    assert "sliding_attention" in model.pretrained.config.layer_types
    assert model.pretrained.config.sliding_window == WINDOW
    ids, positions, segments = packed_documents([12, 12], 0)
    span = torch.arange(12, 24)
    with torch.no_grad():
        alone = stock(model, ids[:, span], attention_mask=torch.ones(1, 12, dtype=torch.long))[0]
        close(masked_logits(model, ids, positions, segments, span, alone=False), alone)
        assert (masked_logits(wide, ids, positions, segments, span, alone=False) - alone).abs().max() > 0.01
    assert not isolates_documents(wide, LENGTH)


@pytest.mark.parametrize("pad", [1, 5, 19, 42])
def test_roberta_positions_begin_after_the_padding_id(pad: int) -> None:
    torch.manual_seed(0)
    config = RobertaConfig(**{**ROBERTA, "pad_token_id": pad, "max_position_embeddings": 80})
    model = MaskedLM(AutoModelForMaskedLM.from_config(config)).eval()
    ids, positions, segments = packed_documents([10, 12], pad)
    ids[ids == pad] = pad + 1
    ids[segments == 0] = pad
    seen = []
    embedding = model.pretrained.roberta.embeddings.position_embeddings
    handle = embedding.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        got = masked_logits(model, ids, positions, segments, torch.arange(10, 22), alone=False)
        alone = stock(model, ids[:, 10:22], attention_mask=torch.ones(1, 12, dtype=torch.long))
    handle.remove()
    assert seen[0][0, :10].tolist() == list(range(pad + 1, pad + 11))
    assert seen[0][0, 10:22].tolist() == list(range(pad + 1, pad + 13))
    assert seen[1][0].tolist() == list(range(pad + 1, pad + 13))
    close(got, alone[0])
    assert isolates_documents(model, LENGTH)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("family", BY_NAME)
def test_rows_of_padding_give_no_nan(family: str, alone: bool) -> None:
    model = wrapped(family)
    ids, positions, segments = single_documents([LENGTH, 0], model.pretrained.config.pad_token_id)
    model.zero_grad()
    logits = masked_logits(model, ids, positions, segments, torch.tensor([0, 3, LENGTH - 1]), alone)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert any(p.grad.abs().max() > 0 for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("family", BY_NAME)
def test_no_masked_position_is_a_loss_of_zero(family: str) -> None:
    model = wrapped(family)
    ids, positions, segments = single_documents([LENGTH, 9], model.pretrained.config.pad_token_id)
    nothing = torch.tensor([], dtype=torch.long)
    model.zero_grad()
    logits = masked_logits(model, ids, positions, segments, nothing, alone=True)
    loss = F.cross_entropy(logits, nothing, reduction="sum")
    loss.backward()
    assert logits.shape == (0, VOCABULARY)
    assert loss.item() == 0
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("backend", [Leaking, OnePositionOff])
@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_a_leaking_model_is_found_out(family: str, backend: type[AttentionBackend]) -> None:
    if family == "modernbert" and backend is OnePositionOff:
        pytest.skip("rotary positions are relative: where they begin does not matter")
    assert not isolates_documents(wrapped(family, backend=backend), LENGTH)


@pytest.mark.parametrize("length", [4, 5, 24, 48])
def test_isolation_is_judged_at_any_length(length: int) -> None:
    for family in ISOLATING:
        assert isolates_documents(wrapped(family), length), family
    assert not isolates_documents(wrapped("bert", backend=Leaking), length)


@pytest.mark.parametrize("hidden", [16, 32, 128])
@pytest.mark.parametrize("bias", [False, True])
def test_a_leak_is_found_in_a_model_as_pre_training_starts_it(hidden: int, bias: bool, tmp_path: Any) -> None:
    """Small initial weights and a head's bias of up to 15 must not hide a leak behind the logits' size."""
    shape = {"hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertConfig(**shape, max_position_embeddings=128).save_pretrained(tmp_path)
    model = build_model(str(tmp_path), VocabularyFacts(4096, 0, 2, 3), dropout=0.0, seed=0)
    if bias:
        frequencies = 1 / torch.arange(1.0, 4097.0).square()
        assert set_output_bias(model, (frequencies / frequencies.sum()).log())
    assert isolates_documents(MaskedLM(model), 128)
    model.base_model._forward_hooks.clear()
    assert not isolates_documents(MaskedLM(model, Leaking), 128)


def test_probing_keeps_the_mode_and_the_weights() -> None:
    model = MaskedLM(AutoModelForMaskedLM.from_config(FAMILIES["bert"]()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for training in (True, False):
        model.train(training)
        state = torch.random.get_rng_state()
        assert isolates_documents(model, LENGTH)
        assert model.training is training
        assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

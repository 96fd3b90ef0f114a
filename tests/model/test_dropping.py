"""Attention with dropout on a CPU: transformers' own, but for what draws the weights to drop."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from fmlm_cli.hub import quiet
from fmlm_cli.model.attention import dropping
from fmlm_cli.model.attention.dropping import attend_dropping_by_bits
from fmlm_cli.model.masked_lm import MaskedLM
from tests.model.families import FAMILIES, LENGTH, small_model

SEGMENTS = torch.tensor([[1] * 9 + [2] * (LENGTH - 9), [1] * (LENGTH - 4) + [0] * 4])
INDEX = torch.tensor([1, 8, LENGTH - 2, LENGTH, 2 * LENGTH - 6])


@pytest.fixture
def keeping_all(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nothing is dropped; the rates that were asked for."""
    rates: list[float] = []

    def keep(like: Tensor, rate: float) -> Tensor:
        rates.append(rate)
        return torch.ones_like(like)

    monkeypatch.setattr(dropping, "scaled_keep", keep)
    return rates


@pytest.mark.parametrize("mask", [None, "bool", "added"])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_but_for_what_is_dropped_it_is_transformers_attention(
    mask: str | None, scaling: float | None, keeping_all: list[float]
) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 7, 5, dtype=torch.float64)
    seen = torch.rand(2, 1, 7, 7) < 0.6
    seen |= torch.eye(7, dtype=torch.bool)
    added = torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, -1e9)
    given: Any = {None: None, "bool": seen, "added": added}[mask]
    module = nn.Module()
    wanted, _ = sdpa_attention_forward(module, query, key, value, given, scaling=scaling, is_causal=False)
    got, _ = attend_dropping_by_bits(module, query, key, value, given, dropout=0.2, scaling=scaling)
    torch.testing.assert_close(got, wanted)
    assert keeping_all == [0.2]


def bert(dropout: float) -> MaskedLM:
    config = FAMILIES["bert"]()
    config.attention_probs_dropout_prob, config.hidden_dropout_prob = dropout, 0.0
    with quiet():
        return MaskedLM(small_model(config))


@pytest.mark.parametrize("alone", [True, False])
def test_a_model_in_training_drops_by_bits_and_sees_what_it_is_to_see(
    alone: bool, keeping_all: list[float]
) -> None:
    model, ids = bert(0.4), torch.arange(5, 5 + 2 * LENGTH).view(2, LENGTH)
    segments = SEGMENTS.clamp(max=1) if alone else SEGMENTS
    batch = {"position_ids": torch.arange(LENGTH).expand(2, -1), "segments": segments, "alone": alone}
    with torch.no_grad():
        wanted = model.eval()(ids, INDEX, **batch).hidden
        assert keeping_all == []
        got = model.train()(ids, INDEX, **batch).hidden
    assert keeping_all == [0.4] * model.pretrained.config.num_hidden_layers
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert model.pretrained.config._attn_implementation == "sdpa"


def test_without_attention_dropout_a_model_attends_as_it_does(keeping_all: list[float]) -> None:
    model, ids = bert(0.0), torch.arange(5, 5 + LENGTH)[None]
    assert model.train().attention.implementation is None
    model(ids, INDEX[:2], position_ids=ids, segments=None, alone=True)
    assert keeping_all == []

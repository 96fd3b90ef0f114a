"""Dropout from bits has the law of `nn.Dropout`, and is that where there is nothing to draw."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from fmlm_cli.model.adapting.dropout import BitDropout, draw_dropout_by_bits


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_each_value_is_dropped_with_the_rate_and_kept_ones_are_scaled(rate):
    torch.manual_seed(0)
    size = 400_000
    out = BitDropout(rate)(torch.ones(size))
    kept = out[out != 0]
    assert stats.binomtest(size - len(kept), size, rate).pvalue > 1e-4
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)), rtol=2e-5 / (1 - rate), atol=0)


def test_draws_are_independent_of_each_other_and_of_their_place():
    torch.manual_seed(1)
    dropped = (BitDropout(0.3)(torch.ones(100_000, 8)) == 0).double()
    for lag in range(1, 9):  # four values share a draw
        flat = dropped.flatten()
        assert abs(torch.corrcoef(torch.stack([flat[:-lag], flat[lag:]]))[0, 1]) < 0.005
    torch.testing.assert_close(dropped.mean(0), torch.full((8,), 0.3).double(), atol=0.008, rtol=0)


@given(shape=st.lists(st.integers(0, 5), max_size=3), rate=st.sampled_from([0.1, 0.5, 1.0]))
def test_any_shape_is_taken_and_gradients_go_where_values_went(shape, rate):
    values = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    out = BitDropout(rate)(values)
    assert out.shape == values.shape and out.dtype == values.dtype
    out.sum().backward()
    torch.testing.assert_close(values.grad, out.detach())  # of ones, each value is its own factor


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_without_training_or_a_rate_nothing_changes_and_nothing_is_drawn(rate):
    before, values = torch.get_rng_state(), torch.randn(5)
    before = torch.get_rng_state()
    assert torch.equal(BitDropout(rate).train(rate == 0)(values), values)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_seed_gives_the_same_draws():
    draws = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        draws.append(BitDropout(0.5)(torch.ones(64)))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_every_plain_dropout_of_a_model_is_replaced_and_no_other():
    class Own(nn.Dropout):
        """Somebody's own."""

    model = nn.ModuleDict(
        {"a": nn.Dropout(0.2), "b": nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3)), "c": Own()}
    )
    model["a"].eval()
    names = [name for name, _ in model.named_modules()]
    draw_dropout_by_bits(model)
    assert [name for name, _ in model.named_modules()] == names
    assert [(type(m), m.p, m.training) for m in model.modules() if isinstance(m, nn.Dropout)] == [
        (BitDropout, 0.2, False),
        (BitDropout, 0.3, True),
        (Own, 0.5, True),
    ]
    assert type(copy.deepcopy(model)["a"]) is BitDropout

"""The cross-entropy that never holds all logits, against decoder and cross-entropy one after the other."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fmlm_cli.objectives import linear_cross_entropy
from fmlm_cli.objectives.linear_cross_entropy import summed_cross_entropy

IGNORED = -100


def reference(hidden, decoder, targets):
    """The loss, and its gradients by hidden states and the decoder's parameters, by autograd alone."""
    inputs = [hidden, *decoder.parameters()]
    loss = F.cross_entropy(decoder(hidden), targets, reduction="sum", ignore_index=IGNORED)
    return loss.detach(), torch.autograd.grad(loss * 0.25, inputs)


def make(rows, width, vocabulary, bias, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=generator, dtype=dtype).requires_grad_()
    decoder = nn.Linear(width, vocabulary, bias=bias, dtype=dtype)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    targets = torch.randint(0, vocabulary, (rows,), generator=generator)
    targets[torch.rand(rows, generator=generator) < 0.3] = IGNORED
    return hidden, decoder, targets


@given(
    rows=st.integers(0, 12),
    width=st.integers(1, 5),
    vocabulary=st.integers(2, 9),
    bias=st.booleans(),
    held=st.integers(1, 40),
    block=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_loss_and_gradients_are_those_of_autograd_whatever_is_held(
    rows, width, vocabulary, bias, held, block, seed
):
    hidden, decoder, targets = make(rows, width, vocabulary, bias, seed)
    loss, gradients = reference(hidden, decoder, targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_cross_entropy, "HELD", held)
        patch.setattr(linear_cross_entropy, "_BLOCK_ON_CPU", block)
        ours = summed_cross_entropy(hidden, decoder, targets, IGNORED)
        ours_by = torch.autograd.grad(ours * 0.25, [hidden, *decoder.parameters()])
    torch.testing.assert_close(ours.detach(), loss)
    for own, theirs in zip(ours_by, gradients, strict=True):
        torch.testing.assert_close(own, theirs)


def test_logits_that_would_overflow_and_probabilities_that_underflow_keep_their_loss():
    hidden = torch.tensor([[300.0], [-300.0]], requires_grad=True)
    decoder = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        decoder.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    loss = summed_cross_entropy(hidden, decoder, torch.tensor([1, 1]), IGNORED)
    assert loss.item() == pytest.approx(600)
    loss.backward()
    torch.testing.assert_close(hidden.grad, torch.tensor([[2.0], [0.0]]))


def test_what_is_not_wanted_is_not_made():
    hidden, decoder, targets = make(6, 3, 5, True, 0)
    decoder.weight.requires_grad_(False)
    summed_cross_entropy(hidden, decoder, targets, IGNORED).backward()
    assert decoder.weight.grad is None and hidden.grad is not None and decoder.bias.grad is not None
    with torch.no_grad():
        assert not summed_cross_entropy(hidden, decoder, targets, IGNORED).requires_grad


def test_it_can_be_gone_back_through_once():
    hidden, decoder, targets = make(6, 3, 5, True, 0)
    loss = summed_cross_entropy(hidden, decoder, targets, IGNORED)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="given away"):
        loss.backward()


class Shifted(nn.Linear):
    """A linear map, and then something."""

    def forward(self, hidden):
        return super().forward(hidden) + torch.arange(self.out_features)


@pytest.mark.parametrize("kind", ["class", "hook"])
def test_a_decoder_that_is_more_than_a_linear_map_is_called(kind):
    hidden, plain, targets = make(6, 3, 5, True, 0)
    decoder = Shifted(3, 5, dtype=torch.float64) if kind == "class" else nn.Linear(3, 5, dtype=torch.float64)
    decoder.load_state_dict(plain.state_dict())
    if kind == "hook":
        decoder.register_forward_hook(lambda module, inputs, output: output + torch.arange(5))
    loss, gradients = reference(hidden, decoder, targets)
    ours = summed_cross_entropy(hidden, decoder, targets, IGNORED)
    torch.testing.assert_close(ours.detach(), loss)
    for own, theirs in zip(
        torch.autograd.grad(ours * 0.25, [hidden, *decoder.parameters()]), gradients, strict=True
    ):
        torch.testing.assert_close(own, theirs)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["autocast", "weights"])
def test_in_bfloat16_the_loss_and_the_sums_of_gradients_are_float32s(weights, monkeypatch):
    hidden, decoder, targets = make(64, 16, 40, True, 0, torch.float32)
    loss, gradients = reference(hidden, decoder, targets)
    decoder.to(weights)
    monkeypatch.setattr(linear_cross_entropy, "HELD", 40)  # a position at a time: 64 sums
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=weights == torch.float32):
        ours = summed_cross_entropy(hidden.to(weights), decoder, targets, IGNORED)
    assert ours.dtype == torch.float32 and ours.item() == pytest.approx(loss.item(), rel=5e-3)
    for own, theirs in zip(
        torch.autograd.grad(ours * 0.25, [hidden, *decoder.parameters()]), gradients, strict=True
    ):
        assert own.dtype == (torch.float32 if own.shape == hidden.shape else weights)
        assert (own - theirs).norm() < 2e-2 * theirs.norm()

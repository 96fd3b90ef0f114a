"""Weights in bfloat16 that compute, beside float32 ones that are optimized."""

import torch
from torch import Tensor, nn

from fmlm_cli.engine.device.working_copy import WorkingCopy
from fmlm_cli.engine.optimizer import make_optimizer, named_state
from fmlm_cli.engine.ranks.protocol import OneProcess
from fmlm_cli.engine.step import compute_gradient, train_step
from tests.engine.small_run import ADAMW, Squares, batches_of, net, runtime

CPU = runtime(OneProcess())


class Low(Squares):
    """In the precision of the model."""

    def loss(self, model: nn.Module, batch: object) -> Tensor:
        dtype = next(model.parameters()).dtype
        x, y = (batch.inputs[name].to(dtype) for name in ("x", "y"))  # type: ignore[attr-defined]
        return (model(x).float() - y.float()).square().sum()


def float_net() -> nn.Module:
    return net().float()


def gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_the_copy_follows_and_the_original_is_left_as_it_was() -> None:
    model = float_net().eval()
    names = [name for name, _ in model.named_parameters()]
    working = WorkingCopy(model)
    weight = model[0].weight
    weight.requires_grad_(False)
    weight.data.fill_(1.0 + 2**-12)  # which bfloat16 cannot tell from 1
    low = working.catch_up()
    assert [name for name, _ in low.named_parameters()] == names
    assert {p.dtype for p in low.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not low.training and (low[0].weight == 1).all() and (weight != 1).all()
    assert [p.requires_grad for p in low.parameters()] == [p.requires_grad for p in model.parameters()]
    assert WorkingCopy(model.train()).catch_up().training


def test_tied_weights_stay_tied_and_buffers_keep_their_precision() -> None:
    model = nn.Module()
    model.embedding = nn.Embedding(5, 3)
    model.decoder = nn.Linear(3, 5, bias=False)
    model.decoder.weight = model.embedding.weight
    model.register_buffer("frequencies", torch.rand(3))
    low = WorkingCopy(model).catch_up()
    assert low.decoder.weight is low.embedding.weight
    assert low.frequencies.dtype == torch.float32


def test_gradients_of_many_batches_are_summed_in_float32() -> None:
    """In bfloat16 the sum of many small ones would stand still."""
    model, exact = float_net(), float_net()
    for parameter in exact.parameters():  # what the copy computes with, as exactly as can be
        parameter.data = parameter.data.bfloat16().float()
    working = WorkingCopy(model)
    batches = batches_of(1, [1] * 400)
    loss, count, _ = compute_gradient(model, Low(), batches, runtime=CPU, working=working)
    wanted, _, _ = compute_gradient(exact, Low(), batches, runtime=CPU)
    assert count == 400
    assert abs(float(loss) / float(wanted) - 1) < 0.02
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    assert all(p.grad is None for p in working.model.parameters())
    assert (gradient(model) - gradient(exact)).norm() < 0.01 * gradient(exact).norm()


def test_what_is_at_rest_gets_no_gradient() -> None:
    model = float_net()
    working = WorkingCopy(model)
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    compute_gradient(model, Low(), batches_of(1, [2, 3]), runtime=CPU, working=working)
    assert all(p.grad is None for p in model[0].parameters())
    assert all(p.grad is not None for p in model[2].parameters())


def test_steps_too_small_for_bfloat16_are_taken() -> None:
    model = float_net()
    working, optimizer = WorkingCopy(model), make_optimizer(ADAMW, model)
    before = [p.detach().clone() for p in model.parameters()]
    low = [p.clone() for p in working.catch_up().parameters()]
    for step in range(1, 4):
        train_step(
            model,
            optimizer,
            Low(),
            batches_of(step, [4]),
            step=step,
            seed=0,
            learning_rate=1e-6,
            clip=1.0,
            runtime=CPU,
            working=working,
        )
    assert all((p != b).any() for p, b in zip(model.parameters(), before, strict=True))
    same = [torch.equal(p, b) for p, b in zip(working.catch_up().parameters(), low, strict=True)]
    assert any(same)  # so here nothing would have been learnt
    assert {value.dtype for value in named_state(model, optimizer).values()} == {torch.float32}

"""One optimizer step: exact however it is cut, checked before it is taken, reproducible."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, BertConfig

from fmlm_cli.config.schema import OptimizerSettings
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.device.arrivals import Arrivals
from fmlm_cli.engine.device.working_copy import WorkingCopy
from fmlm_cli.engine.optimizer import make_optimizer
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.step import DivergedError, StepResult, compute_gradient, train_step
from fmlm_cli.errors import UserError
from fmlm_cli.model.masked_lm import MaskedLM

CPU = Runtime.resolve("cpu")
ROWS, LENGTH, VOCABULARY = 8, 24, 60
MASKED_PER_ROW = [1, 20, 0, 3, 11, 0, 7, 2]


class MaskedTokens:
    """Summed cross-entropy of a masked LM; `poison` makes the loss of batches that hold this row NaN."""

    def __init__(self, poison: int | None = None, factor: float = 1.0) -> None:
        self.poison, self.factor = poison, factor

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs = {name: value for name, value in batch.inputs.items() if name != "targets"}
        loss = (
            F.cross_entropy(model(**inputs).logits(), batch.inputs["targets"], reduction="sum") * self.factor
        )
        return loss * float("nan") if self.poison in batch.rows else loss

    def score(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        raise NotImplementedError


def tiny_bert(dropout: float = 0.0) -> MaskedLM:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH,
        initializer_range=0.2,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return MaskedLM(AutoModelForMaskedLM.from_config(config)).train()


def make_batches(micro: int, masked_per_row: Sequence[int] = MASKED_PER_ROW) -> list[Batch]:
    """The same rows, with very different numbers of masked tokens, cut into parts of `micro`."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCABULARY, (len(masked_per_row), LENGTH), generator=generator)
    targets = torch.randint(0, VOCABULARY, ids.shape, generator=generator)
    chosen = [torch.randperm(LENGTH, generator=generator)[:count] for count in masked_per_row]
    batches = []
    for begin in range(0, len(ids), micro):
        part = range(begin, min(begin + micro, len(ids)))
        index = torch.cat([chosen[row] + (row - begin) * LENGTH for row in part])
        inputs: dict[str, Any] = {
            "input_ids": ids[part.start : part.stop],
            "position_ids": torch.arange(LENGTH).expand(len(part), -1),
            "segments": torch.ones(len(part), LENGTH, dtype=torch.long),
            "masked_index": index,
            "targets": targets[part.start : part.stop].flatten()[index],
            "alone": True,
        }
        batches.append(Batch(inputs, len(index), len(part) * LENGTH, tuple(500 + row for row in part)))
    return batches


def step(model: nn.Module, batches: Sequence[Batch], optimizer: Any = None, **changed: Any) -> StepResult:
    optimizer = optimizer or make_optimizer(
        OptimizerSettings(weight_decay=0.01, betas=(0.9, 0.98), epsilon=1e-6), model
    )
    given_settings: dict[str, Any] = {
        "step": 3,
        "seed": 0,
        "learning_rate": 1e-3,
        "clip": None,
        "runtime": CPU,
    }
    objective = changed.pop("objective", MaskedTokens())
    taken = train_step(model, optimizer, objective, batches, **{**given_settings, **changed})
    return taken.result(taken.values.tolist())


def gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


def stock_gradient(model: MaskedLM, batches: Sequence[Batch]) -> tuple[float, Tensor]:
    """The mean loss over all targets in one stock forward."""
    ids = torch.cat([batch.inputs["input_ids"] for batch in batches])
    labels = torch.full(ids.shape, -100)
    begin = 0
    for batch in batches:
        rows = len(batch.inputs["input_ids"])
        labels[begin : begin + rows].view(-1)[batch.inputs["masked_index"]] = batch.inputs["targets"]
        begin += rows
    model.zero_grad()
    loss = model.pretrained(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
    loss.backward()
    return float(loss.detach()), gradient(model)


@pytest.mark.parametrize("micro", [8, 4, 2, 1, 3])
def test_the_gradient_does_not_depend_on_the_cut(micro: int) -> None:
    model = tiny_bert()
    loss, wanted = stock_gradient(model, make_batches(8))
    result = step(copy.deepcopy(model), make_batches(micro))
    assert result.count == sum(MASKED_PER_ROW)
    assert result.loss_sum / result.count == pytest.approx(loss, rel=1e-5)
    assert result.grad_norm == pytest.approx(float(wanted.norm()), rel=1e-5)
    model.zero_grad()
    compute_gradient(model, MaskedTokens(), make_batches(micro), runtime=CPU)
    assert relative(gradient(model), wanted) < 1e-5


def test_the_usual_average_of_averages_would_differ() -> None:
    """The test above can fail: what it guards against is not small on these rows."""
    model = tiny_bert()
    _, wanted = stock_gradient(model, make_batches(8))
    model.zero_grad()
    batches = [batch for batch in make_batches(1) if batch.count]
    for batch in batches:
        (MaskedTokens().loss(model, batch) / batch.count / len(batches)).backward()
    assert relative(gradient(model), wanted) > 0.3


@settings(max_examples=15)
@given(
    counts=st.lists(st.integers(0, LENGTH), min_size=1, max_size=9).filter(any),
    micro=st.integers(1, 9),
)
def test_any_cut_of_any_rows(counts: list[int], micro: int) -> None:
    model = tiny_bert()
    _, wanted = stock_gradient(model, make_batches(len(counts), counts))
    model.zero_grad()
    total, count, _ = compute_gradient(model, MaskedTokens(), make_batches(micro, counts), runtime=CPU)
    assert count == sum(counts)
    assert not total.requires_grad
    assert relative(gradient(model), wanted) < 1e-5


@pytest.mark.parametrize("micro", [1, 2])
def test_a_step_without_any_target_moves_nothing_but_decay(micro: int) -> None:
    model = tiny_bert()
    before = weights(model)
    optimizer = make_optimizer(OptimizerSettings(weight_decay=0.0, betas=(0.9, 0.98), epsilon=1e-6), model)
    result = step(model, make_batches(micro, [0, 0]), optimizer)
    assert (result.loss_sum, result.count, result.grad_norm) == (0.0, 0, 0.0)
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize(("poison", "factor"), [(503, 1.0), (None, float("inf")), (None, 1e38)])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_divergence_is_refused_before_the_step(poison: int | None, factor: float, clip: float | None) -> None:
    model = tiny_bert()
    optimizer = make_optimizer(OptimizerSettings(weight_decay=0.01, betas=(0.9, 0.98), epsilon=1e-6), model)
    step(model, make_batches(2), optimizer)
    before, state = weights(model), copy.deepcopy(optimizer.state_dict()["state"])
    with pytest.raises(DivergedError) as caught:
        step(
            model,
            make_batches(2),
            optimizer,
            objective=MaskedTokens(poison, factor),
            step=17,
            clip=clip,
        )
    assert isinstance(caught.value, UserError)
    assert "step 17" in str(caught.value)
    assert "500, 501, 502, 503" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert torch.equal(weights(model), before)
    for number, entries in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, state[number][name]) for name, value in entries.items())


def test_many_rows_are_named_in_few_words() -> None:
    model = tiny_bert()
    with pytest.raises(DivergedError, match=r"rows 500, .*507 and 12 more;"):
        step(model, make_batches(5, [1] * 20), objective=MaskedTokens(poison=519))


def test_a_bad_gradient_of_a_finite_loss_is_refused_too() -> None:
    class Kinked(MaskedTokens):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            return (
                super().loss(model, batch)
                + next(model.parameters()).sub(1e9).clamp(max=0).mul(0).sqrt().sum()
            )

    model = tiny_bert()
    before = weights(model)
    with pytest.raises(DivergedError, match="gradient norm"):
        step(model, make_batches(4), objective=Kinked())
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize("clip", [0.05, 1e6, None])
def test_clipping_bounds_the_gradient_and_reports_the_norm_before(clip: float | None) -> None:
    model = tiny_bert()
    _, wanted = stock_gradient(model, make_batches(8))
    result = step(model, make_batches(4), clip=clip)
    assert result.grad_norm == pytest.approx(float(wanted.norm()), rel=1e-5)
    assert result.grad_norm > 0.05
    factor = min(1.0, clip / result.grad_norm) if clip else 1.0
    assert relative(gradient(model), wanted * factor) < 1e-4


def test_the_update_is_adamws() -> None:
    """First step of AdamW: every weight moves by the learning rate, against its gradient's sign."""
    model = tiny_bert()
    before = weights(model)
    optimizer = make_optimizer(OptimizerSettings(weight_decay=0.0, betas=(0.9, 0.98), epsilon=1e-12), model)
    step(model, make_batches(4), optimizer, learning_rate=0.01)
    full = torch.cat([p.grad.flatten() for p in model.parameters()])
    moved = full.abs() > 1e-7
    torch.testing.assert_close(
        (weights(model) - before)[moved], -0.01 * full.sign()[moved], rtol=1e-3, atol=1e-5
    )


def test_dropout_is_a_function_of_seed_step_and_batch() -> None:
    def norm(seed: int, number: int, micro: int = 4) -> float:
        torch.rand(int(torch.randint(1, 50, ())))  # whatever ran before must not matter
        return step(tiny_bert(dropout=0.2), make_batches(micro), seed=seed, step=number).grad_norm

    assert norm(0, 1) == norm(0, 1)
    assert len({norm(0, 1), norm(0, 2), norm(1, 1), norm(1, 2)}) == 4


def test_each_batch_of_a_step_has_dropout_of_its_own() -> None:
    seen: list[Tensor] = []

    class Recording(MaskedTokens):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            seen.append(torch.rand(8))
            return super().loss(model, batch)

    step(tiny_bert(), make_batches(2), objective=Recording())
    assert len({tuple(draw.tolist()) for draw in seen}) == 4


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "bfloat16-weights"])
def test_on_a_gpu_no_step_waits_for_the_device(precision: str) -> None:
    gpu = Runtime.resolve("cuda", precision)
    model = tiny_bert(dropout=0.1).to(gpu.device)
    working = WorkingCopy(model) if gpu.low_weights else None
    optimizer = make_optimizer(OptimizerSettings(), model)
    arrivals: Arrivals[int] = Arrivals()
    batches = [batch.to(gpu.device) for batch in make_batches(4)]

    def take(number: int) -> None:
        taken = train_step(
            model,
            optimizer,
            MaskedTokens(),
            batches,
            step=number,
            seed=0,
            learning_rate=1e-3,
            clip=1.0,
            runtime=gpu,
            working=working,
        )
        arrivals.send(number, taken.values)

    take(1)  # what is made once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in (2, 3, 4):
            take(number)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    received = list(arrivals.receive(wait=True))
    assert [number for number, _ in received] == [1, 2, 3, 4]
    assert all(0 < loss < 1e4 and 0 < norm < 1e4 for _, (loss, norm) in received)


def test_bfloat16_autocast_is_close_and_leaves_float32_weights() -> None:
    model = tiny_bert()
    _, wanted = stock_gradient(model, make_batches(8))
    model.zero_grad()
    compute_gradient(model, MaskedTokens(), make_batches(4), runtime=Runtime(CPU.device, torch.bfloat16))
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)
    assert 1e-5 < relative(gradient(model), wanted) < 0.1

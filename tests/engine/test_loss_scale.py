"""float16's loss scale: that of torch's scaler, and training with it that learns what float32 learns."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.device.loss_scale import FIRST, LEAST, LossScale
from fmlm_cli.engine.loop import train
from fmlm_cli.engine.ranks.protocol import OneProcess
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.signals import NEVER
from fmlm_cli.engine.step import DivergedError, train_step
from tests.engine.small_run import ADAMW, Run, Squares
from tests.engine.test_step import MaskedTokens, gradient, make_batches, relative, tiny_bert, weights

CPU = torch.device("cpu")
HALF = Runtime(CPU, torch.float16)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5))
def test_the_scale_is_that_of_torchs_own_scaler(overflows: list[bool], interval: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fmlm_cli.engine.device.loss_scale.GROWTH_STEPS", interval)
        patch.setattr("fmlm_cli.engine.device.loss_scale.LEAST", 0.0)
        own, weight = LossScale(CPU), nn.Parameter(torch.ones(2))
        optimizer = torch.optim.SGD([weight])
        scaler = torch.amp.GradScaler("cpu", growth_interval=interval)
        scaler.scale(torch.ones(()))  # which makes its scale
        for overflow in overflows:
            weight.grad = torch.full((2,), float("inf") if overflow else 1.0)
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            said = own.move(torch.tensor(1.0), torch.tensor(overflow))
            assert bool(said) == overflow
            state = scaler.state_dict()
            assert (float(own.scale), int(own.good_steps)) == (state["scale"], state["_growth_tracker"])


def test_what_a_scale_cannot_mend_is_not_its_business() -> None:
    scale, bad = LossScale(CPU), torch.tensor(True)
    assert not scale.move(torch.tensor(float("nan")), bad)
    assert float(scale.scale) == FIRST
    scale.restore(2.0, 7)
    assert scale.move(torch.tensor(1.0), bad)
    assert float(scale.scale) == LEAST and not scale.good_steps
    assert not scale.move(torch.tensor(1.0), bad)
    assert float(scale.scale) == LEAST


class Steep(Squares):
    """Gradients that float16 can hold up to a scale of 2^10, as its largest number is 65,504."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return _Steep.apply(super().loss(model, batch))


class _Steep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: object, scaled: Tensor) -> Tensor:
        return (scaled * 6 * 60).half().double() / 60  # the six targets of a step


def test_overflows_halve_the_scale_until_it_fits_and_change_nothing_else(tmp_path: Path) -> None:
    run = begin(tmp_path)
    seen: list[Tensor] = []
    run.run = replace(run.run, before_step=lambda step: seen.append(weights(run.model).clone()))
    state = train(run.run, TrainState(0), NEVER)
    # 2^16 * 60 is too much for float16, and so are the halves down to 2^11.
    assert state.loss_scale == 2.0**12 / 4 and state.good_steps == 2
    assert (state.skipped, state.step) == (0, 8)
    assert [float(r["loss_scale"]) for r in run.log.records if "loss" in r] == [1024.0]
    assert all(torch.equal(w, seen[0]) for w in seen[:7]) and not torch.equal(seen[7], seen[6])


def begin(folder: Path) -> Run:
    run = Run(folder, OneProcess(), checkpoint=4)
    run.log.rewind(0, 0)
    schedule = replace(run.run.schedule, total_steps=8)
    run.run = replace(run.run, objective=Steep(), scale=LossScale(CPU), schedule=schedule)
    return run


def test_a_resumed_run_has_the_scale_that_the_uninterrupted_one_has(tmp_path: Path) -> None:
    whole = begin(tmp_path)
    wanted = train(whole.run, TrainState(0), NEVER)
    again = begin(tmp_path)
    again.checkpoints.folder(8).rename(tmp_path / "aside")
    state, _ = again.checkpoints.restore(again.model, again.run.optimizer)
    assert state.step == 4 and state.loss_scale == 2.0**12
    got = train(again.run, state, NEVER)
    assert replace(got, seconds=0.0, records="") == replace(wanted, seconds=0.0, records="")
    assert torch.equal(weights(again.model), weights(whole.model))


@pytest.mark.parametrize("clip", [None, 0.05])
def test_gradients_are_unscaled_before_they_are_clipped(clip: float | None) -> None:
    scaled, plain = tiny_bert(), tiny_bert()
    norms = []
    for model, scale in ((scaled, LossScale(CPU)), (plain, None)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        given_settings = {"step": 1, "seed": 0, "learning_rate": 0.0, "clip": clip}
        runtime = Runtime(CPU, torch.float32)
        taken = train_step(
            model, optimizer, MaskedTokens(), make_batches(4), runtime=runtime, scale=scale, **given_settings
        )
        norms.append(taken.result(taken.values.tolist()).grad_norm)
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)
    assert relative(gradient(scaled), gradient(plain)) < 1e-6


def test_the_losses_of_50_steps_are_float32s() -> None:
    """And without a scale they are not, where gradients are small: that is what it is for."""
    start, batches = tiny_bert(dropout=0.1), make_batches(4)[:1]

    def losses(runtime: Runtime, scale: LossScale | None, factor: float = 1.0) -> list[float]:
        model, found = copy.deepcopy(start), []
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True, eps=1e-12 * factor)
        for step in range(1, 51):
            taken = train_step(
                model,
                optimizer,
                MaskedTokens(factor=factor),
                batches,
                step=step,
                seed=0,
                learning_rate=2e-3,
                clip=None,
                runtime=runtime,
                scale=scale,
            )
            result = taken.result(taken.values.tolist())
            found.append(result.loss / factor)
        return found

    full = losses(Runtime(CPU, torch.float32), None)
    assert full[-1] < 0.8 * full[0]
    assert losses(HALF, LossScale(CPU)) == pytest.approx(full, rel=0.02)
    small = 1e-5
    assert losses(HALF, LossScale(CPU), small) == pytest.approx(full, rel=0.02)
    assert losses(HALF, None, small) != pytest.approx(full, rel=0.02)


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_a_loss_that_is_not_finite_is_for_on_nonfinite(on_nonfinite: str) -> None:
    model, scale = tiny_bert(), LossScale(CPU)
    before = weights(model).clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)

    def take(poison: int | None) -> str:
        taken = train_step(
            model,
            optimizer,
            MaskedTokens(poison),
            make_batches(4),
            step=3,
            seed=0,
            learning_rate=1e-3,
            clip=1.0,
            runtime=HALF,
            scale=scale,
            on_nonfinite=on_nonfinite,  # type: ignore[arg-type]
        )
        return taken.result(taken.values.tolist()).outcome

    if on_nonfinite == "stop":
        with pytest.raises(DivergedError):
            take(503)
        assert take(None) == "taken"  # says what it would have been, and
        assert torch.equal(weights(model), before)  # changes nothing any more
    else:
        assert take(503) == "skipped"
        assert torch.equal(weights(model), before)
        assert take(None) == "taken"
        assert not torch.equal(weights(model), before)
    assert float(scale.scale) == FIRST
    assert ADAMW.on_nonfinite == "stop"

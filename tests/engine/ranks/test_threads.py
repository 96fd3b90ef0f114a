"""A step, an evaluation and a run are the same on any number of processes, which threads play here."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.evaluation import evaluate, outputs_of
from fmlm_cli.engine.loop import train
from fmlm_cli.engine.optimizer import make_optimizer
from fmlm_cli.engine.ranks.protocol import OneProcess, Ranks
from fmlm_cli.engine.signals import StoppedError, StopRequest
from fmlm_cli.engine.step import DivergedError, StepResult, compute_gradient, train_step
from fmlm_cli.errors import Interrupted
from tests.engine.ranks.fake_ranks import FakeRanks, on_ranks
from tests.engine.small_run import ADAMW, TIMING_FIELDS, Run, Squares, batches_of, net, runtime


def gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any), world=st.integers(1, 4))
def test_the_gradient_is_that_of_one_process(sizes: list[int], world: int) -> None:
    """Also where a process has no batch, or none with a target."""
    alone = net()
    loss, count, tokens = compute_gradient(
        alone, Squares(), batches_of(1, sizes), runtime=runtime(OneProcess())
    )
    models = [net() for _ in range(world)]

    def act(ranks: FakeRanks) -> tuple[float, int, int]:
        own = list(ranks.mine(batches_of(1, sizes)))
        total, *numbers = compute_gradient(models[ranks.rank], Squares(), own, runtime=runtime(ranks))
        return float(total), *numbers

    for total, *numbers in on_ranks(world, act):
        assert numbers == [count, tokens] == [sum(sizes), 3 * sum(sizes)]
        assert total == pytest.approx(float(loss), rel=1e-12)
    for model in models:
        torch.testing.assert_close(gradient(model), gradient(alone), rtol=1e-12, atol=1e-12)


def test_a_step_is_that_of_one_process_on_every_rank() -> None:
    sizes = [3, 1, 4, 2, 5]

    def take(model: nn.Module, ranks: Ranks) -> StepResult:
        optimizer = make_optimizer(ADAMW, model)
        given: dict[str, Any] = {"step": 1, "seed": 0, "learning_rate": 0.01, "clip": 0.5}
        batches = list(ranks.mine(batches_of(1, sizes)))
        taken = train_step(model, optimizer, Squares(), batches, **given, runtime=runtime(ranks))
        return taken.result(taken.values.tolist())

    alone = net()
    wanted = take(alone, OneProcess())
    models = [net() for _ in range(3)]
    for found in on_ranks(3, lambda ranks: take(models[ranks.rank], ranks)):
        assert found.outcome == wanted.outcome == "taken"
        assert (found.loss, found.grad_norm) == pytest.approx((wanted.loss, wanted.grad_norm), rel=1e-12)
        assert found.count == wanted.count
    assert torch.equal(weights(models[0]), weights(models[1]))
    torch.testing.assert_close(weights(models[0]), weights(alone), rtol=1e-9, atol=1e-12)


class Talkative(FakeRanks):
    """Counts how often it waits for the others."""

    waits = 0

    def gather(self, value: Any) -> list[Any]:
        self.waits += 1
        return super().gather(value)


@pytest.mark.parametrize("sizes", [[2, 2], [2] * 9, [2]])
def test_a_step_waits_for_the_others_as_often_however_it_is_accumulated(sizes: list[int]) -> None:
    """For counts, tokens and a stop at once; a stop in the middle; the gradient; the loss."""

    def act(ranks: FakeRanks) -> int:
        talkative = Talkative(ranks.group, ranks.rank)
        own = list(ranks.mine(batches_of(1, sizes)))
        compute_gradient(net(), Squares(), own, runtime=runtime(talkative))
        return talkative.waits

    assert on_ranks(2, act) == [4, 4]


def test_a_stop_is_asked_for_before_the_first_batch() -> None:
    """Nobody begins a step that is left."""

    def act(ranks: FakeRanks) -> bool:
        model, stop = net(), StopRequest(signal=15 if ranks.rank else None)
        with pytest.raises(StoppedError):
            compute_gradient(model, Squares(), batches_of(1, [2]), runtime=runtime(ranks), stop=stop)
        return all(p.grad is None for p in model.parameters())

    assert on_ranks(2, act) == [True, True]


def test_dropout_goes_by_a_batchs_place_in_the_whole_step() -> None:
    def numbers(ranks: Ranks) -> list[int]:
        seen: list[int] = []
        own = list(ranks.mine(batches_of(1, [1] * 5)))
        compute_gradient(net(), Squares(), own, runtime=runtime(ranks), reseed=seen.append)
        return seen

    assert numbers(OneProcess()) == [0, 1, 2, 3, 4]
    assert on_ranks(2, numbers) == [[0, 2, 4], [1, 3]]


def test_what_is_not_finite_on_one_rank_stops_all() -> None:
    batches = batches_of(7, [2, 2, 2])
    batches[1].inputs["x"].fill_(float("nan"))

    def act(ranks: FakeRanks) -> str:
        model = net()
        optimizer = make_optimizer(ADAMW, model)
        given: dict[str, Any] = {"step": 7, "seed": 0, "learning_rate": 0.01, "clip": None}
        own = list(ranks.mine(batches))
        taken = train_step(model, optimizer, Squares(), own, **given, runtime=runtime(ranks))
        with pytest.raises(DivergedError) as caught:
            taken.result(taken.values.tolist())
        assert torch.equal(weights(model), weights(net()))
        return str(caught.value)

    (said, other) = on_ranks(2, act)
    assert said == other
    assert "step 7" in said and "rows 700, 701, 702, 703, 704, 705;" in said


@pytest.mark.parametrize("sizes", [[3, 1, 4], [2], [5, 1]])
def test_an_evaluation_is_that_of_one_process(sizes: list[int]) -> None:
    sums, count = evaluate(net(), Squares(), batches_of(1, sizes), runtime(OneProcess()))
    wanted = outputs_of(net(), Squares(), batches_of(1, sizes), runtime(OneProcess()))

    def act(ranks: FakeRanks) -> tuple[dict[str, Tensor], int, Any]:
        found = evaluate(net(), Squares(), batches_of(1, sizes), runtime(ranks))
        return *found, outputs_of(net(), Squares(), batches_of(1, sizes), runtime(ranks))

    for found, number, outputs in on_ranks(3, act):
        assert number == count
        assert float(found["loss"]) == pytest.approx(float(sums["loss"]), rel=1e-12)
        assert outputs == pytest.approx(wanted)


# ---------------------------------------------------------------- whole runs


def to_the_end(run: Run, stop: StopRequest | None = None) -> TrainState:
    state, _ = run.checkpoints.restore(run.model, run.run.optimizer)
    if run.run.runtime.ranks.is_writer:
        run.log.rewind(state.step, state.evaluated)
    return train(run.run, state, stop or StopRequest())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    monkeypatch.setattr("fmlm_cli.engine.loop.count_flops", lambda forward: 1)


def lasting(path: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in TIMING_FIELDS} for r in records]


def test_a_run_writes_once_and_what_one_process_writes(tmp_path: Path) -> None:
    alone = Run(tmp_path / "alone", OneProcess())
    (tmp_path / "alone").mkdir()
    (tmp_path / "ranks").mkdir()
    wanted = to_the_end(alone)
    states = on_ranks(2, lambda ranks: to_the_end(Run(tmp_path / "ranks", ranks)))
    assert [(state.step, state.tokens) for state in states] == [(wanted.step, wanted.tokens)] * 2
    mine, theirs = (lasting(tmp_path / name / "metrics.jsonl") for name in ("ranks", "alone"))
    assert [r["step"] for r in mine] == [0, 2, 3, 4, 6, 6]
    for record, other in zip(mine, theirs, strict=True):
        assert record.pop("evaluation", None) == other.pop("evaluation", None)
        assert record == pytest.approx(other, rel=1e-12)
    names = {path.name for path in (tmp_path / "ranks" / "checkpoints").iterdir()}
    assert names == {"step-5", "step-6"}


def test_a_stop_on_one_rank_stops_all_and_another_number_goes_on(tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole", OneProcess())
    (tmp_path / "whole").mkdir()
    (tmp_path / "moved").mkdir()
    to_the_end(whole)

    def begin(ranks: FakeRanks) -> str:
        run, stop = Run(tmp_path / "moved", ranks), StopRequest()

        def ask(step: int) -> None:
            if step == 4 and not ranks.is_writer:
                stop.signal = 15

        object.__setattr__(run.run, "before_step", ask)
        with pytest.raises(Interrupted) as caught:
            to_the_end(run, stop)
        return str(caught.value)

    (said, other) = on_ranks(2, begin)
    assert said == other and "stopped by SIGTERM at step 3 of 6; saved in" in said
    models = on_ranks(3, lambda ranks: (run := Run(tmp_path / "moved", ranks), to_the_end(run))[0].model)
    for model in models:
        torch.testing.assert_close(weights(model), weights(whole.model), rtol=1e-9, atol=1e-12)
    steps = [record["step"] for record in lasting(tmp_path / "moved" / "metrics.jsonl")]
    assert steps == [0, 2, 3, 4, 6, 6]


@pytest.mark.parametrize("every", [1, 2, 100])
def test_steps_that_are_asked_for_are_saved_and_stay(tmp_path: Path, every: int) -> None:
    to_the_end(Run(tmp_path, OneProcess(), stays=lambda step: step in (1, 3), checkpoint=every))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    newest = {1: ["step-5", "step-6"], 2: ["step-4", "step-6"], 100: ["step-6"]}[every]
    assert names == ["step-1", "step-3", *newest]


def test_checkpoints_that_do_not_outlive_the_run(tmp_path: Path) -> None:
    to_the_end(Run(tmp_path, OneProcess(), keeps_checkpoints=False, checkpoint=4))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-4"]


def test_a_record_goes_once_to_each_sink(tmp_path: Path) -> None:
    told: list[Any] = []
    sink = SimpleNamespace(write=told.append, rewind=lambda step: None)
    run = Run(tmp_path, OneProcess())
    object.__setattr__(run.run, "sinks", (run.log, sink))
    to_the_end(run)
    assert [record.record for record in told] == run.log.records

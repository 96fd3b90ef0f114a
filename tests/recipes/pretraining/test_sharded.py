"""A sharded run (`speed.shard`) is the run of one process that holds the whole model."""

import itertools
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.engine.checkpoint import TrainState, check_optimizer
from fmlm_cli.engine.loop import train
from fmlm_cli.engine.ranks.endings import LostRankError
from fmlm_cli.engine.ranks.protocol import OneProcess, Ranks
from fmlm_cli.engine.records import MetricsLog
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.signals import NEVER
from fmlm_cli.errors import UserError
from fmlm_cli.events import Event, Note, ignore
from fmlm_cli.model.checkpoints.pretrained import load_model
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from fmlm_cli.recipes.pretraining.planning.plan import plan_run
from fmlm_cli.recipes.pretraining.run import pretrain
from fmlm_cli.recipes.shared.checkpoints import find_checkpoint
from tests.engine.ranks.processes import Ended, Gone, on_processes, rank_of, results
from tests.recipes.pretraining.test_together import _pretrain
from tests.recipes.runs import RHYTHM, TINY, without_pictures

LAYERS = {**TINY, "num_hidden_layers": 2}
# Each with dropout, and several micro-batches a step.
QUICK: dict[str, dict[str, Any]] = {
    "ragged rows, fewer batches than processes": {"data.packing": "none", "batch.micro_size": 8},
    "a head that is trained alone, and frozen embeddings": {
        "model.freeze": ["embeddings"],
        "optimizer.head_warmup_steps": 1,
        "batch.micro_size": 5,  # three batches: the second process takes part in one without targets
    },
}
LONG: dict[str, dict[str, Any]] = {
    "documents share rows": {"budget.steps": 50},
    "adapters": {"model.lora.rank": 2, "optimizer.learning_rate": 0.01, "budget.steps": 12},
    "recomputed": {"speed.recompute": True, "budget.steps": 12},
}


@dataclass(frozen=True)
class Found:
    """What a run came to. `part`: the share of the parameters that this process held."""

    losses: list[float]
    evaluated: list[float]
    weights: dict[str, torch.Tensor]
    part: float


def _run(ranks: Ranks, tree: dict[str, Any]) -> Found:
    plan = plan_run(build(PretrainSettings, tree), ignore)
    object.__setattr__(plan, "model", plan.model.double())
    runtime = Runtime(torch.device("cpu"), torch.float64, ranks, shard=ranks.world > 1)
    with without_pictures():
        folder = Path(str(plan.settings.out)) / str(ranks.world)
        live = LiveRun(plan, storage.RunDirectory(folder), runtime, ignore)
        log = MetricsLog(folder / "metrics")
        if ranks.is_writer:
            log.rewind(0, 0)
        train(replace(live.training_run(log), keeps_checkpoints=False), TrainState(0), NEVER)
        # After an evaluation, whose forwards no backward follows.
        held = [getattr(p, "_local_tensor", p).numel() / p.numel() for p in live.model.parameters()]
        live.goes_on_alone()
    state = live.model.state_dict() if ranks.is_writer else {}
    weights = {name: value.detach().clone() for name, value in state.items()}
    losses, evaluated = (
        [record[name] for record in log.records if name in record] for name in ("loss", "eval_loss")
    )
    return Found(losses, evaluated, weights, sum(held) / len(held))


def _runs(ranks: Ranks, trees: dict[str, dict[str, Any]]) -> dict[str, Found]:
    return {kind: _run(ranks, tree) for kind, tree in trees.items()}


@pytest.fixture
def trees(tiny_store: Path, small_encoder: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    (tmp_path / "config.json").write_text(json.dumps(LAYERS))

    def tree(name: str, asked: dict[str, Any]) -> dict[str, Any]:
        from_checkpoint = "model.freeze" in asked or "model.lora.rank" in asked
        start = {"model.checkpoint": str(small_encoder)} if from_checkpoint else {}
        given = {
            **RHYTHM,
            "data.stores": [str(tiny_store)],
            "model.name": str(tmp_path / "config.json"),
            "out": str(tmp_path / name),
            "budget.steps": 3,
            "model.dropout": 0.1,
            "batch.size": 12,
            "batch.micro_size": 4,
            "logging.every_steps": 1,
            "checkpoint.every_steps": 1000,
            **start,
            **asked,
        }
        for world in (1, 2, 4):
            (tmp_path / name / str(world)).mkdir(parents=True)
        return nested(given)

    return lambda kinds: {kind: tree(kind, asked) for kind, asked in kinds.items()}


def _assert_same(alone: Found, first: Found) -> None:
    assert first.losses == pytest.approx(alone.losses, rel=1e-9)
    assert first.evaluated == pytest.approx(alone.evaluated, rel=1e-9) and first.evaluated
    for name, value in alone.weights.items():
        torch.testing.assert_close(first.weights[name], value, rtol=1e-9, atol=1e-9)


def test_losses_and_weights_are_those_of_one_process(trees: Any) -> None:
    asked = trees(QUICK)
    alone, (first, second) = _runs(OneProcess(), asked), results(on_processes(2, _runs, asked))
    for kind in QUICK:
        _assert_same(alone[kind], first[kind])
        assert first[kind].part + second[kind].part == pytest.approx(1) and second[kind].part > 0.4


def _lose(ranks: Ranks, tree: dict[str, Any]) -> None:
    """One process is killed between two forwards of a step, where the others wait for its parts."""
    plain, calls = MaskedLM.forward, itertools.count()

    def forward(*given: Any, **named: Any) -> Any:
        if next(calls) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        if rank_of(ranks) == 1:
            patch.setattr(MaskedLM, "forward", forward)
        _run(ranks, tree)


@pytest.mark.slow
def test_one_that_is_lost_in_the_middle_is_told_in_words(trees: Any) -> None:
    (tree,) = trees({"lost": {}}).values()
    first, second = on_processes(2, _lose, tree)
    assert (
        second == Gone(-signal.SIGKILL)
        and first.kind is LostRankError
        and "has ended without a word" in first.words
    )


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_losses_and_weights_of_many_steps_are_those_of_one_process(trees: Any, world: int) -> None:
    asked = trees(LONG)
    alone, (first, *_) = _runs(OneProcess(), asked), results(on_processes(world, _runs, asked, limit=600))
    assert len(alone["documents share rows"].losses) == 50
    for kind in LONG:
        _assert_same(alone[kind], first[kind])


# ---------------------------------------------------------------- checkpoints


def _move(
    settings: Callable[..., PretrainSettings], moves: list[tuple[int, bool, int | None]]
) -> storage.RunDirectory:
    """A run of 8 steps by so many processes, sharded or not, up to a step: and the next goes on.

    It ends where a run of one process does.
    """
    chosen = {
        "budget.steps": 8,
        "checkpoint.every_steps": 8,
        "logging.every_steps": 1,
        "model.dropout": 0.1,
        "batch.micro_size": 2,
    }
    with without_pictures():
        whole = pretrain(settings("whole", **chosen))
    for world, sharded, stop_after in moves:
        moved = settings("moved", **chosen, **{"speed.shard": sharded})
        told = Path(str(moved.out)).with_name("told")
        ended = (
            [_pretrain(OneProcess(), moved, stop_after, told)]
            if world == 1
            else results(on_processes(world, _pretrain, moved, stop_after, told))
        )
        assert ended == [stop_after is None] * world
    run = storage.RunDirectory(Path(str(moved.out)))
    wanted = load_file(whole.run.final / "model.safetensors")
    for name, value in load_file(run.final / "model.safetensors").items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-6)
    return run


def test_a_sharded_run_is_gone_on_with_by_one_process(settings: Callable[..., PretrainSettings]) -> None:
    run = _move(settings, [(2, True, 4), (1, False, None)])
    checkpoint = run.checkpoints / "step-4"
    parts = [path.name for path in sorted((checkpoint / "optimizer").iterdir())]
    assert parts == ["part-00000.safetensors", "part-00001.safetensors"]
    assert not (checkpoint / "optimizer.safetensors").exists()
    # Its weights are those of any model.
    origin = find_checkpoint(f"{run.root}@step-4")
    assert load_model(origin.folder, name="it").config.model_type == "bert"
    damaged = checkpoint / "optimizer" / "part-00001.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    find_checkpoint(f"{run.root}@step-4")
    with pytest.raises(UserError, match=r"part-00001\.safetensors has changed"):
        check_optimizer(checkpoint)


@pytest.mark.slow
def test_a_run_that_moves_between_parts_and_wholes(settings: Callable[..., PretrainSettings]) -> None:
    """1 -> 2 in parts -> 4 in parts -> 2 whole -> 1."""
    _move(settings, [(1, False, 2), (2, True, 3), (4, True, 5), (2, False, 6), (1, True, None)])


def _pretrain_sharded(ranks: Ranks, settings: PretrainSettings) -> None:
    with without_pictures():
        pretrain(settings, ranks=ranks)


def test_what_does_not_go_with_parts_is_refused(settings: Callable[..., PretrainSettings]) -> None:
    asked = settings(**{"speed.shard": True, "checkpoint.background": True, "budget.steps": 1})
    first, second = sorted(on_processes(2, _pretrain_sharded, asked), key=lambda ended: not ended.words)
    assert first.kind is UserError and "checkpoint.background=true" in first.words
    assert isinstance(second, Ended) and not second.words
    assert not Path(str(asked.out)).exists()


def test_one_process_is_told_that_it_holds_all(settings: Callable[..., PretrainSettings]) -> None:
    told: list[Event] = []
    with without_pictures():
        pretrain(settings(**{"speed.shard": True, "budget.steps": 1}), emit=told.append)
    assert any(isinstance(event, Note) and "one process" in event.text for event in told)

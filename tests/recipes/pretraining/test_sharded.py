"""A sharded run (`speed.shard`) is the run of one process that holds the whole model."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.loop import train
from fmlm_cli.engine.ranks.protocol import OneProcess, Ranks
from fmlm_cli.engine.records import MetricsLog
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.signals import NEVER
from fmlm_cli.events import ignore
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from fmlm_cli.recipes.pretraining.planning.plan import plan_run
from tests.engine.ranks.processes import on_processes, results
from tests.recipes.runs import RHYTHM, TINY, without_pictures

STEPS, FEWER = 50, 12
LAYERS = {**TINY, "num_hidden_layers": 3}
KINDS: dict[str, dict[str, Any]] = {
    "documents share rows": {"budget.steps": STEPS},
    "ragged rows, fewer batches than processes": {"data.packing": "none", "batch.micro_size": 6},
    "a head that is trained alone, and frozen embeddings": {
        "model.freeze": ["embeddings"],
        "optimizer.head_warmup_steps": 4,
    },
    "adapters": {"model.lora.rank": 2, "optimizer.learning_rate": 0.01},
    "recomputed": {"speed.recompute": True},
}
ON_FOUR = ("documents share rows", "ragged rows, fewer batches than processes")
CASES = [*((kind, 2) for kind in KINDS), *((kind, 4) for kind in ON_FOUR)]


@dataclass(frozen=True)
class Found:
    """What a run came to."""

    losses: list[float]
    evaluated: list[float]
    weights: dict[str, torch.Tensor]


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
        live.goes_on_alone()
    weights = (
        {name: v.detach().clone() for name, v in live.model.state_dict().items()} if ranks.is_writer else {}
    )
    losses = [record["loss"] for record in log.records if "loss" in record]
    evaluated = [record["eval_loss"] for record in log.records if "eval_loss" in record]
    return Found(losses, evaluated, weights)


def _runs(ranks: Ranks, trees: dict[str, dict[str, Any]]) -> dict[str, Found]:
    return {kind: _run(ranks, trees[kind]) for kind in KINDS if ranks.world < 4 or kind in ON_FOUR}


@pytest.fixture(scope="module")
def trees(
    tiny_store: Path, small_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "config.json").write_text(json.dumps(LAYERS))

    def tree(kind: str) -> dict[str, Any]:
        from_checkpoint = "model.freeze" in KINDS[kind] or "model.lora.rank" in KINDS[kind]
        start = (
            {"model.checkpoint": str(small_encoder)}
            if from_checkpoint
            else {"model.name": str(folder / "config.json")}
        )
        given = {
            **RHYTHM,
            "data.stores": [str(tiny_store)],
            **start,
            "out": str(folder / kind),
            "budget.steps": FEWER,
            "model.dropout": 0.1,
            "batch.size": 12,
            "batch.micro_size": 3,
            "logging.every_steps": 1,
            "checkpoint.every_steps": 1000,
            **KINDS[kind],
        }
        for world in (1, 2, 4):
            (folder / kind / str(world)).mkdir(parents=True)
        return nested(given)

    return {kind: tree(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def by_world(trees: dict[str, dict[str, Any]]) -> dict[int, list[dict[str, Found]]]:
    """What each process found, by the number of processes."""
    together = {world: results(on_processes(world, _runs, trees)) for world in (2, 4)}
    return {1: [_runs(OneProcess(), trees)], **together}


@pytest.mark.parametrize(("kind", "world"), CASES)
def test_losses_and_weights_are_those_of_one_process(by_world: Any, kind: str, world: int) -> None:
    alone, (first, *_) = by_world[1][0][kind], [found[kind] for found in by_world[world]]
    assert first.losses == pytest.approx(alone.losses, rel=1e-9)
    assert first.evaluated == pytest.approx(alone.evaluated, rel=1e-9)
    for name, value in alone.weights.items():
        torch.testing.assert_close(first.weights[name], value, rtol=1e-9, atol=1e-9)

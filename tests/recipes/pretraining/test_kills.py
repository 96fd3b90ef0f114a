"""A run that is killed, at any stage and again and again, ends where the uninterrupted one does.

What is killed, and when, is drawn from a seed, which a failure shows. Who draws is the process that is to be
killed: SIGKILL comes from a clock beside its work, so that it also falls into a write, a flush or a kernel.
"""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings
from fmlm_cli.engine.checkpoint import Checkpoints
from fmlm_cli.engine.ranks.protocol import OneProcess, Ranks
from fmlm_cli.recipes.pretraining import run as recipe
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from fmlm_cli.recipes.pretraining.run import pretrain
from tests.engine.ranks.processes import Ended, Gone, on_processes, results
from tests.engine.small_run import TIMING_FIELDS
from tests.recipes.runs import Settings, without_pictures

# Where a stage begins, how many seconds it may take, and which of two processes go through it.
STAGES: dict[str, tuple[Any, str, float, Sequence[int]]] = {
    "start-up": (recipe, "check_same_software", 0.1, (0, 1)),
    "step": (LiveRun, "before_step", 0.006, (0, 1)),
    "evaluation": (LiveRun, "evaluate", 0.02, (0, 1)),
    "checkpoint": (Checkpoints, "_write", 0.04, (0,)),
    "export": (recipe, "finish_run", 0.04, (0,)),
}
# Which time, from and to: late enough for a checkpoint to go on from, and for records after it.
NTH = {"step": (5, 8), "evaluation": (1, 2), "checkpoint": (1, 2)}
LONG = {"budget.steps": 60, "checkpoint.every_steps": 4, "evaluation.every_steps": 5, "model.dropout": 0.1}


@dataclass(frozen=True)
class Kill:
    """SIGKILL to process `rank`, `after` seconds into the n-th time that it comes to a stage."""

    stage: str
    nth: int
    after: float
    rank: int


def drawn(seed: str, world: int, stages: Sequence[str]) -> list[Kill]:
    """A kill in each of these stages, in a drawn order but for the export, which is the end."""
    draw = random.Random(seed)
    order = sorted(draw.sample(stages, len(stages)), key=lambda stage: stage == "export")
    return [
        Kill(
            stage,
            draw.randint(*NTH.get(stage, (1, 1))),
            draw.uniform(0, STAGES[stage][2]),
            draw.choice([rank for rank in STAGES[stage][3] if rank < world]),
        )
        for stage in order
    ]


def arm(kill: Kill, patch: pytest.MonkeyPatch) -> None:
    """Have this process killed so."""
    owner, name, longest, _ = STAGES[kill.stage]
    stage, times = getattr(owner, name), Counter[str]()

    def act(*arguments: Any, **named: Any) -> Any:
        times[name] += 1
        if times[name] != kill.nth:
            return stage(*arguments, **named)
        threading.Timer(kill.after, os.kill, (os.getpid(), signal.SIGKILL)).start()
        done = stage(*arguments, **named)
        if kill.stage != "start-up":
            time.sleep(longest + 10)  # at the latest at its end
        return done

    patch.setattr(owner, name, act)


def _pretrain(ranks: Ranks, settings: PretrainSettings, kill: Kill | None) -> None:
    with without_pictures() as patch:
        if kill is not None and ranks.place(0) == kill.rank:
            arm(kill, patch)
        pretrain(settings, resume=True, ranks=ranks if ranks.world > 1 else OneProcess())


def run_killed(settings: PretrainSettings, world: int, kills: Sequence[Kill]) -> storage.RunDirectory:
    """A run that is killed so and resumed each time, at its end."""
    run = storage.RunDirectory(Path(str(settings.out)))
    for kill in kills:
        if run.is_finished:  # it was killed in the export, but after its model had its name
            storage.remove(run.final)
        outcomes = on_processes(world, _pretrain, settings, kill)
        assert outcomes[kill.rank] == Gone(-signal.SIGKILL), (
            kill,
            outcomes,
        )  # it was killed, and said nothing
        if kill.stage != "export":  # of which the other process has no part
            others = [outcome for rank, outcome in enumerate(outcomes) if rank != kill.rank]
            assert all(isinstance(outcome, Ended) for outcome in others), (kill, outcomes)
        assert not run.is_finished or kill.stage == "export"
    results(on_processes(world, _pretrain, settings, None))
    return run


def records(run: storage.RunDirectory) -> list[dict[str, Any]]:
    lines = map(json.loads, run.metrics.read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in TIMING_FIELDS} for line in lines]


def assert_ends_alike(run: storage.RunDirectory, whole: storage.RunDirectory, world: int) -> None:
    """To the byte on one process; with several, as sums round."""
    names = {path.name for path in whole.final.iterdir()}
    assert {path.name for path in run.final.iterdir()} == names
    assert not [path for path in run.root.rglob(".*") if path.name not in (storage.MARKER, ".lock")]
    if world == 1:
        for name in names - {"README.md", storage.HASHES}:  # which say how long it took
            assert (run.final / name).read_bytes() == (whole.final / name).read_bytes(), name
        assert records(run) == records(whole)
        return
    for name, value in load_file(whole.final / "model.safetensors").items():
        mine = load_file(run.final / "model.safetensors")[name]
        torch.testing.assert_close(mine, value, rtol=1e-4, atol=1e-6)
    mine, theirs = ([r["loss"] for r in records(one) if "loss" in r] for one in (run, whole))
    assert mine == pytest.approx(theirs, rel=1e-4)


@pytest.fixture
def whole(settings: Settings) -> Callable[..., storage.RunDirectory]:
    """The same run, uninterrupted and on one process."""

    def make(**chosen: Any) -> storage.RunDirectory:
        with without_pictures():
            return pretrain(settings("whole", **chosen)).run

    return make


# Processes, whether checkpoints are written in the background, and the stages.
FEW = [
    (1, True, ["step", "checkpoint", "export"]),
    (2, False, ["step"]),
]
MANY = [
    (world, background, [*STAGES, *STAGES, "step", "checkpoint"]) for world in (1, 2) for background in (0, 1)
]


@pytest.mark.parametrize(("world", "background", "stages"), FEW)
def test_a_killed_run_ends_where_it_would_have(
    settings: Settings, whole: Any, world: int, background: bool, stages: list[str]
) -> None:
    chosen = {**LONG, "budget.steps": 20, "checkpoint.background": background}
    kills = drawn("quick", world, stages)
    assert_ends_alike(run_killed(settings("killed", **chosen), world, kills), whole(**chosen), world)


@pytest.mark.slow
@pytest.mark.parametrize(("world", "background", "stages"), MANY)
def test_48_kills(
    settings: Settings,
    whole: Any,
    world: int,
    background: bool,
    stages: list[str],
    record_property: Callable[[str, object], None],
) -> None:
    """A dozen in each run, by a seed of today: `kills` in a report or a failure says which they were."""
    seed = os.environ.get("PYTEST_KILLS", str(time.time_ns()))
    kills = drawn(seed, world, stages)
    print(f"PYTEST_KILLS={seed}:", *kills, sep="\n")
    record_property("kills", kills)
    chosen = {**LONG, "checkpoint.background": bool(background)}
    assert_ends_alike(run_killed(settings("killed", **chosen), world, kills), whole(**chosen), world)

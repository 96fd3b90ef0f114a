"""A run on several processes is the run of one: the same rows, masks and dropout, and so the same weights."""

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.loop import train
from fmlm_cli.engine.ranks.protocol import OneProcess, Ranks
from fmlm_cli.engine.records import MetricsLog
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.signals import NEVER
from fmlm_cli.errors import AnotherEndedError, Interrupted, UserError
from fmlm_cli.events import ignore
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from fmlm_cli.recipes.pretraining.planning.agreement import (
    check_same_plan,
    check_same_software,
    plan_as_told,
)
from fmlm_cli.recipes.pretraining.planning.plan import plan_run
from fmlm_cli.recipes.pretraining.run import pretrain
from tests.engine.ranks.fake_ranks import FakeRanks, Group, on_ranks
from tests.engine.ranks.processes import Ended, on_processes, results
from tests.engine.small_run import TIMING_FIELDS
from tests.recipes.runs import RHYTHM, TINY, at_step, without_pictures

STEPS, FEWER = 50, 12
FEWER_THAN_PROCESSES = "ragged rows, fewer batches than processes"
# Each with dropout, and several micro-batches a step.
KINDS: dict[str, dict[str, Any]] = {
    "documents share rows": {"budget.steps": STEPS},
    FEWER_THAN_PROCESSES: {"data.packing": "none", "batch.micro_size": 6},
    "rates that change within a step": {
        "masking.segments": 4,
        "masking.scope": "epoch",
        "masking.schedule": {"shape": "linear", "final_rate": 0.5},
    },
    "all masks in one step": {"masking.scope": "batch", "masking.segments": 4, "data.packing": "none"},
    "frozen parameters, and a head that is trained alone": {
        "model.freeze": ["embeddings"],
        "optimizer.head_warmup_steps": 4,
    },
}


FOUR = ("documents share rows", FEWER_THAN_PROCESSES)
QUICK = (("documents share rows", 2), (FEWER_THAN_PROCESSES, 4))
CASES = [
    pytest.param(kind, world, marks=[] if (kind, world) in QUICK else [pytest.mark.slow])
    for kind, world in [*((kind, 2) for kind in (*KINDS, "float32")), *((kind, 4) for kind in FOUR)]
]


@dataclass(frozen=True)
class Found:
    """What a run came to: a hash of each batch by (step, place), losses by step, the weights."""

    batches: dict[tuple[int, int], str]
    losses: list[float]
    weights: dict[str, torch.Tensor]


def _hash(batch: Batch) -> str:
    values = [(name, v.tolist() if isinstance(v, torch.Tensor) else v) for name, v in batch.inputs.items()]
    return hashlib.sha256(repr((batch.rows, batch.count, batch.tokens, values)).encode()).hexdigest()


def _run(ranks: Ranks, tree: dict[str, Any], dtype: torch.dtype) -> Found:
    plan = plan_run(build(PretrainSettings, tree), ignore)
    object.__setattr__(plan, "model", plan.model.to(dtype))
    runtime = Runtime(torch.device("cpu"), dtype, ranks)
    with without_pictures():
        folder = Path(str(plan.settings.out)) / str(ranks.world)
        live, log = (
            LiveRun(plan, storage.RunDirectory(folder), runtime, ignore),
            MetricsLog(folder / "metrics"),
        )
        own: dict[tuple[int, int], str] = {}

        def prepare(step: int) -> list[Batch]:
            batches = live.prepare(step)
            own.update({(step, ranks.place(i)): _hash(batch) for i, batch in enumerate(batches)})
            return batches

        if ranks.is_writer:
            log.rewind(0, 0)
        run = replace(
            live.training_run(log), prepare=prepare, keeps_checkpoints=False, evaluate=lambda *_: []
        )
        train(run, TrainState(0), NEVER)
    together = {key: value for part in ranks.gather(own) for key, value in part.items()}
    weights = {name: value.detach().clone() for name, value in plan.model.state_dict().items()}
    return Found(together, [record["loss"] for record in log.records], weights)


@pytest.fixture(scope="module")
def trees(
    tiny_store: Path, small_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("together")
    (folder / "config.json").write_text(json.dumps(TINY))

    def tree(kind: str) -> dict[str, Any]:
        start = "model.checkpoint" if "model.freeze" in KINDS[kind] else "model.name"
        given = {
            **RHYTHM,
            "data.stores": [str(tiny_store)],
            start: str(small_encoder if start == "model.checkpoint" else folder / "config.json"),
            "out": str(folder / kind),
            "budget.steps": FEWER,
            "model.dropout": 0.1,
            "batch.size": 12,
            "batch.micro_size": 3,
            "logging.every_steps": 1,
            "checkpoint.every_steps": 1000,
            **KINDS[kind],
        }
        (folder / kind).mkdir()
        for world in (1, 2, 4):
            (folder / kind / str(world)).mkdir()
        return nested(given)

    return {kind: tree(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def found(trees: dict[str, dict[str, Any]]) -> Callable[[str, int], list[Found]]:
    """What each of so many processes found of a kind; it is run when it is asked for."""

    @cache
    def of(kind: str, world: int) -> list[Found]:
        which, dtype = ("documents share rows", torch.float32) if kind == "float32" else (kind, torch.float64)
        if world == 1:
            return [_run(OneProcess(), trees[which], dtype)]
        return results(on_processes(world, _run, trees[which], dtype))

    return of


@pytest.mark.parametrize(("kind", "world"), CASES)
def test_every_step_has_the_batches_of_one_process(found: Any, kind: str, world: int) -> None:
    """To the byte: rows, masks, corruption, and how they are cut."""
    (alone,), (first, *_) = found(kind, 1), found(kind, world)
    assert first.batches == alone.batches
    assert {step for step, _ in first.batches} == set(range(1, len(alone.losses) + 1))


@pytest.mark.parametrize(("kind", "world"), CASES)
def test_losses_and_weights_are_those_of_one_process(found: Any, kind: str, world: int) -> None:
    tolerance = 1e-4 if kind == "float32" else 1e-9
    (alone,), (first, *others) = found(kind, 1), found(kind, world)
    assert first.losses == pytest.approx(alone.losses, rel=tolerance)
    for name, value in alone.weights.items():
        torch.testing.assert_close(first.weights[name], value, rtol=tolerance, atol=tolerance)
        for other in others:
            assert torch.equal(other.weights[name], first.weights[name])


@pytest.mark.slow
def test_the_kinds_are_what_they_say(found: Any) -> None:
    """Dropout, accumulation, a process without work: or the tests above would hold of less."""

    def batches_of_a_step(kind: str) -> int:
        return max(place for step, place in found(kind, 1)[0].batches if step == 1) + 1

    assert batches_of_a_step("documents share rows") == 4 and batches_of_a_step("all masks in one step") > 2
    assert batches_of_a_step(FEWER_THAN_PROCESSES) < 4
    for kind in ("documents share rows", "float32"):
        assert len(set(found(kind, 1)[0].losses)) == STEPS


# ---------------------------------------------------------------- the recipe: one writer


def _pretrain(ranks: Ranks, settings: PretrainSettings, stop_after: int | None, told: Path) -> bool:
    """Train on until a step; whether it came to its end."""

    def say(event: Any) -> None:
        with told.open("a") as file:
            file.write(f"{ranks.place(0)} {type(event).__name__}\n")

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = at_step(stop_after, stop) if stop_after is not None else ignore
    with without_pictures():
        try:
            pretrain(settings, resume=True, emit=lambda event: (say(event), stopping(event))[1], ranks=ranks)
        except Interrupted:
            return False
    return True


def _timeless(path: Path) -> list[dict[str, Any]]:
    records = map(json.loads, path.read_text().splitlines())
    return [{k: v for k, v in record.items() if k not in TIMING_FIELDS} for record in records]


@pytest.mark.slow
def test_a_run_that_moves_between_numbers_of_processes(settings: Callable[..., PretrainSettings]) -> None:
    """1 -> 2 -> 4 -> 1: each is stopped in the middle, and the next goes on."""
    chosen = {"budget.steps": 16, "model.dropout": 0.1, "batch.size": 8, "batch.micro_size": 2}
    with without_pictures():
        whole = pretrain(settings("whole", **chosen))
    moved = settings("moved", **chosen)
    told = Path(str(moved.out)).with_name("told")
    for world, stop_after in ((1, 4), (2, 8), (4, 12)):
        if world == 1:
            assert not _pretrain(OneProcess(), moved, stop_after, told)
        else:
            assert results(on_processes(world, _pretrain, moved, stop_after, told)) == [False] * world
    assert _pretrain(OneProcess(), moved, None, told)
    run = storage.RunDirectory(Path(str(moved.out)))
    wanted = load_file(whole.run.final / "model.safetensors")
    for name, value in load_file(run.final / "model.safetensors").items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-6)
    mine, theirs = (_timeless(path) for path in (run.metrics, whole.run.metrics))
    assert len(mine) == len(theirs)
    for record, other in zip(mine, theirs, strict=True):
        assert record.pop("evaluation", None) == other.pop("evaluation", None)
        assert record == pytest.approx(other, rel=1e-4)
    assert {line.split()[0] for line in told.read_text().splitlines()} == {"0"}


# ---------------------------------------------------------------- who differs is refused


def refusals(act: Callable[[FakeRanks], None]) -> list[str]:
    """What two processes say, each of which has to refuse."""

    def one(ranks: FakeRanks) -> str:
        with pytest.raises(UserError) as caught:
            act(ranks)
        return str(caught.value)

    return on_ranks(2, one)


class _Installed(threading.local):
    """A version for each thread, which plays a process."""

    version = "0.1"

    def __str__(self) -> str:
        return self.version


def test_processes_of_other_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = _Installed()
    monkeypatch.setattr(
        "fmlm_cli.recipes.pretraining.planning.agreement.versions", lambda: {"fmlm": str(installed)}
    )

    def act(ranks: FakeRanks) -> None:
        installed.version = "9.9" if ranks.rank else "0.1"
        check_same_software(ranks)

    (said, other) = refusals(act)
    assert said == other and "process 1 (" in said
    assert "another fmlm than process 0" in said and "9.9, not 0.1" in said


def test_processes_with_another_plan_are_refused(
    settings: Callable[..., PretrainSettings], make_store: Any, documents: list[str], tmp_path: Path
) -> None:
    """By what differs: the first of what the others follow from."""
    store = str(make_store(tmp_path / "other", documents[20:], documents[:20]))
    (tmp_path / "wider.json").write_text(json.dumps({**TINY, "intermediate_size": 96}))
    others = {
        "data": {"data.stores": [store]},
        "held-out data": {"evaluation.stores": {"other": store}},
        "model": {"model.name": str(tmp_path / "wider.json")},
        "initial weights": {"seed": 5},
        "plan": {"optimizer.clip": 0.5},
    }
    plan = plan_run(settings(**{"budget.steps": 1}), ignore)
    on_ranks(2, lambda ranks: check_same_plan(plan, ranks))
    for name, changed in others.items():
        other = plan_run(settings(**{"budget.steps": 1, **changed}), ignore)
        (said, again) = refusals(lambda ranks: check_same_plan(other if ranks.rank else plan, ranks))  # noqa: B023
        assert said == again and f"another {name} than process 0" in said


def test_one_process_of_a_machine_checks_what_the_stores_hold(
    settings: Callable[..., PretrainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[int] = []
    monkeypatch.setattr(
        "fmlm_cli.recipes.pretraining.planning.plan.verify_stores", lambda _: verified.append(1)
    )
    told = settings(**{"budget.steps": 1})
    for local_rank, times in ((0, 1), (1, 0), (2, 0)):
        verified.clear()
        plan_as_told(told, FakeRanks(Group(4), local_rank))
        assert len(verified) == times


def _pretrain_where(ranks: Ranks, settings: PretrainSettings) -> None:
    with without_pictures():
        pretrain(settings, ranks=ranks)


def test_what_the_writer_refuses_ends_all_and_nothing_is_written(
    settings: Callable[..., PretrainSettings],
) -> None:
    asked = settings(**{"budget.steps": None})
    first, *others = on_processes(2, _pretrain_where, asked)
    assert first.kind is UserError and "no budget" in first.words
    assert others == [Ended(AnotherEndedError, "", 2)]
    assert not Path(str(asked.out)).exists()


def test_text_is_tokenized_once_and_all_read_that(
    settings: Callable[..., PretrainSettings], small_encoder: Path, documents: list[str], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(documents[:60]))
    given = {"data.stores": [], "text.sources": [str(tmp_path / "text.txt")], "model.name": "bert-mini"}
    asked = settings(
        **given, **{"model.checkpoint": str(small_encoder), "budget.steps": 2, "data.max_rows": 8}
    )
    assert results(on_processes(2, _pretrain_where, asked)) == [None, None]
    run = storage.RunDirectory(Path(str(asked.out)))
    assert run.is_finished and run.root.with_name("run.store").is_dir()
    assert results(on_processes(2, _resume_again, asked)) == [None, None]


def _resume_again(ranks: Ranks, settings: PretrainSettings) -> None:
    """There is nothing left to do, on any of them."""
    pretrain(settings, resume=True, ranks=ranks)

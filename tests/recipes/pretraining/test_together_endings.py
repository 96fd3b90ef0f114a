"""Whatever one of several processes meets, and wherever: all end, told once, and the run goes on on fewer."""

import os
import pkgutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings
from fmlm_cli.engine import signals
from fmlm_cli.engine.checkpoint import complete_checkpoints
from fmlm_cli.engine.ranks import watch
from fmlm_cli.engine.ranks.endings import LostRankError
from fmlm_cli.engine.ranks.protocol import Ranks
from fmlm_cli.errors import AnotherEndedError, Interrupted
from fmlm_cli.recipes.pretraining import run as pretraining
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from tests.engine.ranks.processes import Ended, Gone, on_processes, rank_of
from tests.recipes.runs import without_pictures

LIMIT = 30.0  # seconds for all to end
CHOSEN = {"budget.steps": 12, "batch.size": 8, "batch.micro_size": 2, "checkpoint.every_steps": 4}


def _fail() -> None:
    raise RuntimeError("a fault of a library")


def _run_out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def _be_asked() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# Where: a function, and at which call of it in the process.
_LIVE = "fmlm_cli.recipes.pretraining.live_run:LiveRun"
PLANNING = ("fmlm_cli.recipes.pretraining.run:with_micro_size", 1)
STEP = (f"{_LIVE}.before_step", 7)
ACCUMULATION = ("fmlm_cli.objectives.masked_lm:MaskedLanguageModelling.loss", 14)  # two to a step
EVALUATION = (f"{_LIVE}.evaluate", 2)
BEFORE_SAVING = ("fmlm_cli.engine.loop:_is_over", 5)  # four before steps, and one after the evaluation
CHECKPOINT = (f"{_LIVE}.save_model", 2)
EXPORT = (f"{_LIVE}.save_model", 4)
Where = tuple[str, int]


def _pretrain(
    ranks: Ranks, settings: PretrainSettings, rank: int, where: Where, act: Callable[[], None]
) -> None:
    """Train, and have a process meet something as it calls a function."""
    (path, times), called = where, 0
    place, _, name = path.replace(":", ".").rpartition(".")
    owner = pkgutil.resolve_name(place)
    wrapped = getattr(owner, name)

    def meet(*arguments: Any, **named: Any) -> Any:
        nonlocal called
        called += 1
        if called == times and rank_of(ranks) == rank:
            Path(f"{settings.out}-met").touch()
            act()
        return wrapped(*arguments, **named)

    with without_pictures() as patch, signals.stoppable():
        patch.setattr(owner, name, meet)
        pretraining.pretrain(settings, ranks=ranks)


def damaged(settings: PretrainSettings, rank: int, where: Where, act: Callable[[], None]) -> list[Any]:
    """How two processes end."""
    outcomes = on_processes(2, _pretrain, settings, rank, where, act)
    assert time.time() - Path(f"{settings.out}-met").stat().st_mtime < LIMIT
    return outcomes


def check_that_it_goes_on(settings: PretrainSettings, step: int | None) -> None:
    """There is a checkpoint of this step, nothing holds the folder, and one process comes to the end."""
    run = storage.RunDirectory(Path(str(settings.out)))
    assert [saved for saved, _ in complete_checkpoints(run.checkpoints)][-1:] == [step] * (step is not None)
    with without_pictures():
        pretraining.pretrain(settings, resume=True)
    assert run.is_finished
    assert {path.name for path in run.root.rglob(".*")} <= {storage.MARKER}


def case(*values: Any, slow: bool = False, name: str) -> Any:
    return pytest.param(*values, id=name, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(
    ("rank", "where", "act", "step"),
    [
        case(1, PLANNING, _fail, None, name="planning", slow=True),
        case(1, STEP, _run_out_of_memory, 4, name="a step"),
        case(0, EVALUATION, _fail, None, name="an evaluation", slow=True),
        case(0, CHECKPOINT, _fail, 4, name="a checkpoint"),
    ],
)
def test_what_one_process_raises_ends_both(
    settings: Callable[..., PretrainSettings],
    rank: int,
    where: Where,
    act: Callable[[], None],
    step: int | None,
) -> None:
    asked = settings(**CHOSEN)
    outcomes = damaged(asked, rank, where, act)
    code = 2 if act is _run_out_of_memory else 1
    assert outcomes[1 - rank] == Ended(AnotherEndedError, "", code)
    assert outcomes[rank].kind in (RuntimeError, torch.OutOfMemoryError)
    assert outcomes[rank].named is (rank != 0)
    check_that_it_goes_on(asked, step)


@pytest.mark.parametrize(
    ("where", "step", "shard"),
    [
        case(PLANNING, None, False, name="planning", slow=True),
        case(STEP, 6, False, name="a step", slow=True),
        case(ACCUMULATION, 6, False, name="between two micro-batches"),
        case(EVALUATION, 4, False, name="an evaluation"),
        # Where each has a part, all of them are in each forward.
        case(ACCUMULATION, 6, True, name="between two micro-batches, sharded"),
        case(EVALUATION, 4, True, name="an evaluation, sharded", slow=True),
        case(BEFORE_SAVING, 4, True, name="before saving, sharded", slow=True),
    ],
)
def test_a_signal_to_one_process_ends_both(
    settings: Callable[..., PretrainSettings], where: Where, step: int | None, shard: bool
) -> None:
    """One checkpoint, and the code of the signal."""
    asked = settings(**CHOSEN, **{"speed.shard": shard})
    outcomes = damaged(asked, 1, where, _be_asked)
    assert {outcome.code for outcome in outcomes} == {128 + signal.SIGTERM}
    assert [outcome.kind for outcome in outcomes].count(Interrupted) == 1
    check_that_it_goes_on(asked, step)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("where", [PLANNING, STEP, EVALUATION], ids=["planning", "a step", "an evaluation"])
def test_a_process_that_is_killed_ends_both(
    settings: Callable[..., PretrainSettings], rank: int, where: Where
) -> None:
    asked = settings(**CHOSEN)
    outcomes = damaged(asked, rank, where, _be_killed)
    assert outcomes[rank] == Gone(-signal.SIGKILL)
    assert outcomes[1 - rank].kind is LostRankError and f"rank {rank} of 2 (" in outcomes[1 - rank].words
    with without_pictures():
        pretraining.pretrain(asked, resume=True)


@pytest.mark.slow
def test_the_export_fails_and_the_others_wait_no_longer(settings: Callable[..., PretrainSettings]) -> None:
    asked = settings(**CHOSEN)
    first, second = damaged(asked, 0, EXPORT, _fail)
    assert first.kind is RuntimeError and second == Ended(AnotherEndedError, "", 1)
    check_that_it_goes_on(asked, 12)


def _save_slowly(ranks: Ranks, settings: PretrainSettings) -> None:
    """The second process is asked to stop, and the first takes longer to save than who is lost is waited for."""
    save = LiveRun.save_model

    def slowly(self: LiveRun, *given: Any) -> None:
        time.sleep(2)
        save(self, *given)

    def ask(self: LiveRun, step: int) -> None:
        if step == 3 and rank_of(ranks) == 1:
            _be_asked()

    with without_pictures() as patch, signals.stoppable():
        patch.setattr(watch, "_TO_COME_OUT", 0.3)
        patch.setattr(LiveRun, "save_model", slowly)
        patch.setattr(LiveRun, "before_step", ask)
        pretraining.pretrain(settings, ranks=ranks)


def test_nobody_leaves_before_it_is_saved(settings: Callable[..., PretrainSettings]) -> None:
    asked = settings(**{**CHOSEN, "checkpoint.every_steps": 100})
    outcomes = on_processes(2, _save_slowly, asked)
    assert {outcome.code for outcome in outcomes} == {128 + signal.SIGTERM}
    assert [outcome.kind for outcome in outcomes].count(Interrupted) == 1
    check_that_it_goes_on(asked, 2)

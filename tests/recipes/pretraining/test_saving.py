"""What a run's checkpoints hold and which stay, however and whenever they are written."""

from pathlib import Path
from typing import Any

import pytest

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings
from fmlm_cli.engine.checkpoint import complete_checkpoints, read_state
from fmlm_cli.errors import OutOfSpaceError, UserError
from fmlm_cli.events import Caution, Event
from fmlm_cli.recipes import pretraining
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from tests.recipes.runs import KINDS, Settings, assert_same, at_step, raise_error

pytestmark = pytest.mark.usefixtures("quick")
LONG = KINDS["dropout"]


def files_of(settings: PretrainSettings) -> dict[int, Any]:
    """The hash of every file but state.json, by step."""
    run = storage.RunDirectory(Path(str(settings.out)))
    kept = complete_checkpoints(run.checkpoints)
    assert all(storage.damage_of(path, read_state(path)["files"]) is None for _, path in kept)
    return {step: read_state(path)["files"] for step, path in kept}


@pytest.mark.parametrize("lora", [False, True])
def test_a_thread_writes_what_the_run_would(settings: Settings, small_encoder: Path, lora: bool) -> None:
    """The merged model and the adapters alike; and it is gone on from."""
    if lora:
        pytest.importorskip("peft")
    start = {"model.checkpoint": str(small_encoder), "model.lora.rank": 2}
    changed = {**LONG, "checkpoint.keep": 9, "checkpoint.every_steps": 1, **(start if lora else {})}
    at_once = settings("at_once", **changed, **{"checkpoint.background": False})
    thread = settings("thread", **changed, **{"checkpoint.background": True})
    whole = pretraining.pretrain(at_once)
    with pytest.raises(RuntimeError):
        pretraining.pretrain(thread, emit=at_step(4, raise_error))
    resumed = pretraining.pretrain(thread, resume=True)
    found, wanted = files_of(thread), files_of(at_once)
    assert list(found) == [1, 2, 3, 4, 5, 6, 7, 8] and "optimizer.safetensors" in found[3]
    assert found == wanted
    if not lora:
        assert_same(resumed, whole)


def test_some_stay_for_good(settings: Settings) -> None:
    """Also where no other checkpoint is due, and beside those that a recipe has asked for."""
    changed = settings(**LONG, **{"checkpoint.keep": 1, "checkpoint.keep_every": 4})
    with pytest.raises(RuntimeError):
        pretraining.pretrain(changed, emit=at_step(8, raise_error), keep_steps=(1,))
    assert list(files_of(changed)) == [1, 4, 6]
    pretraining.pretrain(changed, resume=True)
    assert list(files_of(changed)) == [4, 6, 8]  # 6 is the newest that does not stay anyhow


@pytest.fixture
def full_at_step_6(monkeypatch: pytest.MonkeyPatch) -> None:
    save = LiveRun.save_model

    def full(self: LiveRun, of: Any, folder: Path) -> None:
        save(self, of, folder)
        if "step-6" in folder.name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(LiveRun, "save_model", full)


@pytest.mark.usefixtures("full_at_step_6")
@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_is_no_end_if_so_set(settings: Settings, background: bool) -> None:
    told: list[Event] = []
    changed = settings(
        "a", **LONG, **{"checkpoint.on_error": "continue", "checkpoint.background": background}
    )
    result = pretraining.pretrain(changed, emit=told.append)
    cautions = [event.text for event in told if isinstance(event, Caution) and "step-6" in event.text]
    assert len(cautions) == 1 and cautions[0].startswith("no space left on the disk while writing")
    assert cautions[0].endswith("training goes on, and the next checkpoint is tried (checkpoint.on_error)")
    assert list(files_of(changed)) == [3, 8] and result.run.is_finished
    stopping = settings("b", **LONG, **{"checkpoint.background": background})
    with pytest.raises(OutOfSpaceError, match=r"while writing .*step-6"):
        pretraining.pretrain(stopping)
    assert list(files_of(stopping)) == [3]


def test_a_final_model_that_cannot_be_written_is_no_success(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = settings(**LONG, **{"checkpoint.on_error": "continue"})
    with monkeypatch.context() as full:
        save = LiveRun.save_model

        def act(self: LiveRun, of: Any, folder: Path) -> None:
            save(self, of, folder)
            if "final" in folder.name:
                raise OSError(28, "No space left on device")

        full.setattr(LiveRun, "save_model", act)
        with pytest.raises(UserError, match=r"no space left on the disk while writing .*final.*: free some"):
            pretraining.pretrain(changed)
    assert list(files_of(changed)) == [6, 8]
    assert pretraining.pretrain(changed, resume=True).run.is_finished

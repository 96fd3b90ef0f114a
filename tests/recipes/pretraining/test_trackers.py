"""A run whose records go to trackers too: the same ones, each step once, whatever happens in between."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli.config import build, nested
from fmlm_cli.config.schema import PretrainSettings
from fmlm_cli.errors import Interrupted, UserError
from fmlm_cli.events import Caution, Event
from fmlm_cli.recipes.pretraining.run import pretrain
from tests.engine.trackers.events import read_events
from tests.recipes.pretraining.test_kills import drawn, run_killed
from tests.recipes.runs import Settings, at_step, weights

pytest.importorskip("tensorboard")
pytestmark = pytest.mark.usefixtures("quick")

BOARD = {"logging.to": ["tensorboard"], "budget.steps": 20}


def assert_as_in_the_metrics(run: Path) -> None:
    """TensorBoard shows what metrics.jsonl holds, figure by figure and each step once."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    events = read_events(run)
    for field in ("loss", "learning_rate", "grad_norm", "tokens"):
        wanted = [(r["step"], pytest.approx(r[field], rel=1e-6)) for r in records if field in r]
        assert events[f"train/{field}"] == wanted
    held_out = [(r["step"], pytest.approx(r["eval_loss"], rel=1e-6)) for r in records if "eval_loss" in r]
    [name] = {r["evaluation"] for r in records if "evaluation" in r}
    assert events[f"eval/{name}/loss"] == held_out and len(held_out) > 2


def test_tensorboard_has_the_records_and_the_settings(settings: Settings) -> None:
    plain = pretrain(settings("plain", **{"budget.steps": 20})).run
    logged = pretrain(settings("logged", **BOARD)).run
    assert_as_in_the_metrics(logged.root)
    assert weights(plain) == weights(logged)  # it decides no result
    [(_, content)] = read_events(logged.root)["_hparams_/session_start_info"]
    for part in (
        b"optimizer.learning_rate",
        b"system.device",
        b"system.torch",
        b"parameters",
        b"total_steps",
    ):
        assert part in content


@pytest.mark.parametrize(
    "stages", [["step"], pytest.param(["step", "evaluation", "checkpoint", "step"], marks=pytest.mark.slow)]
)
def test_one_that_is_killed_and_resumed_has_each_step_once(settings: Settings, stages: list[str]) -> None:
    """By SIGKILL, after steps that a checkpoint does not hold."""
    chosen = {**BOARD, "checkpoint.every_steps": 4, "evaluation.every_steps": 5}
    kills = drawn("trackers", 1, stages)
    assert_as_in_the_metrics(run_killed(settings("killed", **chosen), 1, kills).root)


def test_a_tracker_may_come_later(settings: Settings) -> None:
    def stop() -> None:
        raise Interrupted("", 1)

    with pytest.raises(Interrupted):
        pretrain(settings("run", **{"budget.steps": 20}), emit=at_step(10, stop))
    result = pretrain(settings("run", **BOARD), resume=True)
    assert_as_in_the_metrics(result.run.root)


def test_a_tracker_that_fails_is_no_end(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmlm_cli.engine.trackers import tensorboard

    def fail(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(tensorboard.TensorBoard, "log", fail)
    told: list[Event] = []
    run = pretrain(settings("run", **BOARD), emit=told.append).run
    assert run.is_finished
    [caution] = [event for event in told if isinstance(event, Caution) and "TensorBoard" in event.text]
    assert "broken" in caution.text


def test_a_missing_package_is_told_before_anything_is_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "fmlm_cli.engine.trackers.wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "fmlm_cli.engine.trackers.wandb")
    with pytest.raises(UserError, match=r"pip install 'fmlm\[wandb\]'"):
        pretrain(settings("run", **{"logging.to": ["wandb"], "budget.steps": 2}))
    assert not (tmp_path / "run").exists()


def test_trackers_are_named_with_commas_or_one_by_one() -> None:
    for given in ("tensorboard,wandb", ["tensorboard", "wandb"], ["tensorboard, wandb", "wandb"]):
        settings = build(PretrainSettings, nested({"logging.to": given}))
        assert settings.logging.to == ("tensorboard", "wandb")
    with pytest.raises(UserError, match="tensorbord"):
        build(PretrainSettings, nested({"logging.to": "tensorbord"}))

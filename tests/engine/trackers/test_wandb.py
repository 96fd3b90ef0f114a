"""W&B: against a stand-in that keeps what it is called with and, where it is installed, itself, offline."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fmlm_cli.engine.records import MetricsLog
from fmlm_cli.engine.trackers.sink import Tracked, check_trackers, tracked
from fmlm_cli.engine.trackers.tracker import RunFacts
from fmlm_cli.errors import UserError
from fmlm_cli.events import Evaluated, Event, Trained

OURS = "fmlm_cli.engine.trackers.wandb"


class StandIn(ModuleType):
    """The part of `wandb` that is used. `unreachable`: what initializing online raises."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.begun: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.endings: list[int] = []
        self.unreachable: Exception | None = None
        self.Run = object
        self.server = SimpleNamespace(mode="online", api_key=None, base_url="https://api.example.org")
        self.Settings = type(
            "Settings",
            (SimpleNamespace,),
            {"model_fields": dict.fromkeys(("console", "silent", "init_timeout"))},
        )

    def setup(self, settings: Any) -> Any:
        return SimpleNamespace(settings=self.server)

    def init(self, **asked: Any) -> Any:
        if self.unreachable and asked["mode"] != "offline":
            raise self.unreachable
        self.begun.append(asked)
        return SimpleNamespace(
            log=lambda values, step: self.rows.append((step, values)),
            finish=lambda *, exit_code: self.endings.append(exit_code),
            offline=asked["mode"] == "offline",
            disabled=False,
            url="https://example.org/run",
            dir=f"{asked['dir']}/wandb/run/files",
        )

    def teardown(self) -> None:
        pass


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.delitem(sys.modules, OURS, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith(("WANDB_", "NETRC"))]:
        monkeypatch.delenv(name)
    yield stand_in
    del sys.modules[OURS]  # which has the stand-in


@contextlib.contextmanager
def begun(folder: Path, step: int = 0, seen: int = -1) -> Iterator[tuple[MetricsLog, Tracked, list[Event]]]:
    told: list[Event] = []
    folder.mkdir(exist_ok=True)
    log = MetricsLog(folder / "metrics.jsonl")
    with tracked(["wandb"], RunFacts(folder, "masks", {"seed": 3}), log, told.append) as [sink]:
        for each in (log, sink):
            each.rewind(step, seen)
        yield log, sink, told


def write(log: MetricsLog, sink: Tracked, *records: Any) -> None:
    for record in records:
        log.write(record)
        sink.write(record)


def trained(step: int) -> Trained:
    return Trained({"step": step, "loss": float(step)}, 9, 1.0)


def test_a_resumed_run_sends_what_is_new_to_the_same_run(wandb: StandIn, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with begun(run) as (log, sink, _):
        write(log, sink, Evaluated({"step": 0, "eval_loss": 9.0}), *map(trained, range(1, 7)))
    for _ in range(2):  # the second time too, with less in metrics.jsonl than was sent
        with begun(run, 4, 0) as (log, sink, _):
            write(log, sink, trained(5))
    with begun(run, 4, 0) as (log, sink, _):
        write(log, sink, Evaluated({"step": 4, "eval_loss": 8.0}), *map(trained, range(5, 9)))
    assert [step for step, values in wandb.rows if "train/loss" in values] == list(range(1, 9))
    assert [step for step, values in wandb.rows if "eval/loss" in values] == [0, 4]
    assert len({asked["id"] for asked in wandb.begun}) == 1
    assert wandb.begun[0]["config"] == {"seed": 3} and wandb.begun[0]["project"] == "masks"


def test_one_that_begins_anew_is_another_run(wandb: StandIn, tmp_path: Path) -> None:
    for _ in range(2):
        with begun(tmp_path / "run") as (log, sink, _):
            write(log, sink, trained(1))
    assert len({asked["id"] for asked in wandb.begun}) == 2
    assert [step for step, _ in wandb.rows] == [1, 1]


@pytest.mark.parametrize("damage", ["", "{", '{"id": "x"}', "\x00" * 128])
def test_without_a_trace_of_what_was_sent_all_is_sent_to_a_new_run(
    wandb: StandIn, tmp_path: Path, damage: str
) -> None:
    run = tmp_path / "run"
    with begun(run) as (log, sink, _):
        write(log, sink, *map(trained, range(1, 5)))
    (run / "trackers" / "wandb.json").write_text(damage)
    with begun(run, 4, -1):
        pass
    assert [step for step, _ in wandb.rows] == [1, 2, 3, 4] * 2
    assert len({asked["id"] for asked in wandb.begun}) == 2


def test_who_has_not_logged_in_is_not_asked(
    wandb: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with begun(run) as (_, _, told):
        assert wandb.begun[-1]["mode"] == "offline"
    assert "wandb sync" in told[-1].text
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text("machine api.example.org login user password " + "k" * 40 + "\n")
    with begun(run) as (_, _, told):
        assert wandb.begun[-1]["mode"] is None
    assert "https://example.org/run" in told[-1].text
    (home / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    with begun(run):
        assert wandb.begun[-1]["mode"] is None  # W&B's own settings decide
    monkeypatch.delenv("WANDB_API_KEY")
    wandb.server.mode = "disabled"
    with begun(run):
        assert wandb.begun[-1]["mode"] is None


def test_a_server_that_cannot_be_reached_is_told_of(wandb: StandIn, tmp_path: Path) -> None:
    wandb.server.api_key = "k" * 40
    wandb.unreachable = OSError("connection refused")
    with begun(tmp_path / "run") as (log, sink, told):
        write(log, sink, trained(1))
    assert "cannot be reached (connection refused)" in told[0].text
    assert wandb.begun[-1]["mode"] == "offline" and wandb.rows == [(1, {"train/loss": 1.0})]


def test_what_becomes_of_a_run_is_told(wandb: StandIn, tmp_path: Path) -> None:
    with begun(tmp_path / "run"):
        pass
    with pytest.raises(KeyboardInterrupt), begun(tmp_path / "run"):
        raise KeyboardInterrupt
    assert wandb.endings == [0, 1]


def test_what_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, OURS, raising=False)
    with pytest.raises(UserError, match=r"--log wandb: wandb is not installed: pip install 'fmlm\[wandb\]'"):
        check_trackers(["wandb"])


def test_wandb_itself_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    for step in (0, 1):
        with begun(run, step, -1) as (log, sink, told):
            write(log, sink, trained(step + 1))
        assert not [event for event in told if "no more records" in event.text]
        time.sleep(1.1)  # before 0.23 or so, a folder is named by the second, and no second one is made in it
    assert len(list(run.glob("wandb/offline-run-*/*.wandb"))) == 2  # of one run, to be synced in turn
    assert json.loads((run / "trackers" / "wandb.json").read_text())["trained"] == 2

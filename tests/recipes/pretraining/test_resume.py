"""Runs that were stopped, killed or damaged, and went on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli import storage
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.records import read_metrics
from fmlm_cli.errors import Interrupted, UserError
from fmlm_cli.events import Caution, Evaluated, Event, Note, Trained
from fmlm_cli.objectives.masked_lm import MaskedLanguageModelling
from fmlm_cli.recipes import pretraining
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from fmlm_cli.recipes.shared.checkpoints import find_checkpoint
from fmlm_cli.recipes.shared.held_out import HeldOut
from tests.conftest import MakeStore
from tests.recipes.runs import KINDS, TINY, Settings, assert_close, assert_same, at_step, raise_error

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_ends_as_if_it_never_was(settings: Settings, kind: str) -> None:
    whole = pretraining.pretrain(settings("whole", **KINDS[kind]))
    parts = settings("parts", **KINDS[kind])
    with pytest.raises(RuntimeError):
        pretraining.pretrain(parts, emit=at_step(4, raise_error))
    run = storage.RunDirectory(Path(str(parts.out)))
    assert not run.is_finished
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-3"]
    with pytest.raises(RuntimeError):
        pretraining.pretrain(parts, resume=True, emit=at_step(6, raise_error))
    resumed = pretraining.pretrain(parts, resume=True)
    assert_same(resumed, whole)


@pytest.mark.parametrize("before", [2, 8])
def test_interrupted_before_the_first_checkpoint_or_after_the_last(settings: Settings, before: int) -> None:
    whole = pretraining.pretrain(settings("whole", **KINDS["dropout"]))
    parts = settings("parts", **KINDS["dropout"])
    with pytest.raises(RuntimeError):
        pretraining.pretrain(parts, emit=at_step(before, raise_error))
    assert_same(pretraining.pretrain(parts, resume=True), whole)


# ---------------------------------------------------------------- requests to stop

CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129, "SIGUSR1": 138, "SIGUSR2": 140, "SIGXCPU": 152}


@pytest.mark.parametrize("name", CODES)
def test_a_signal_saves_and_stops(settings: Settings, name: str) -> None:
    """The step is saved first: resuming goes on from there, not from the last checkpoint."""
    number = signal.Signals[name]
    before = signal.getsignal(number)
    parts = settings("parts", **KINDS["dropout"])
    cause = "Ctrl-C" if name == "SIGINT" else name
    with pytest.raises(Interrupted, match=f"stopped by {cause} at step 4 of 8; saved in .*step-4$") as caught:
        pretraining.pretrain(parts, emit=at_step(4, lambda: os.kill(os.getpid(), number)))
    assert caught.value.exit_code == CODES[name]
    assert signal.getsignal(number) is before
    notes: list[Event] = []
    resumed = pretraining.pretrain(parts, resume=True, emit=notes.append)
    assert Note("resuming after step 4 of 8") in notes
    assert_same(resumed, pretraining.pretrain(settings("whole", **KINDS["dropout"])))


def test_many_signals_are_one_and_an_ignored_one_is_none(settings: Settings) -> None:
    def ask() -> None:
        signal.raise_signal(signal.SIGHUP)
        asked.append(1)
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)

    asked: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with pytest.raises(Interrupted, match="stopped by SIGUSR1 at step 4 of 8"):
            pretraining.pretrain(settings(**KINDS["steps"]), emit=at_step(4, ask))
        assert asked and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_only_a_second_ctrl_c_leaves_at_once(settings: Settings) -> None:
    def ask() -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        asked.append(1)
        signal.raise_signal(signal.SIGINT)

    asked: list[int] = []
    parts = settings(**KINDS["steps"])
    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(parts, emit=at_step(4, ask))
    assert asked
    assert [path.name for path in (Path(str(parts.out)) / "checkpoints").iterdir()] == ["step-3"]


@pytest.fixture(scope="module")
def other_store(
    make_store: MakeStore, documents: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "other", documents[:5], documents[5:30])


# An evaluation is on two stores, and of two batches on each.
@pytest.mark.parametrize(("step", "batch"), [(0, 1), (0, 3), (4, 1), (4, 2), (4, 4), (8, 2), (8, 4)])
def test_a_stop_during_an_evaluation(
    settings: Settings,
    other_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    batch: int,
) -> None:
    """It is left between two batches, and done again on resuming: nothing tells of the interruption."""
    kind = {**KINDS["dropout"], "evaluation.stores": {"other": str(other_store)}}
    parts, made = settings("parts", **kind), -1000
    evaluate, batches = LiveRun.evaluate, HeldOut.batches

    def counting(self: LiveRun, at: int, *more: Any) -> Any:
        nonlocal made
        made = 0 if at == step else -1000
        return evaluate(self, at, *more)

    def asking(self: HeldOut, *layout: Any) -> Iterator[Batch]:
        nonlocal made
        for each in batches(self, *layout):
            made += 1
            if made == batch:
                signal.raise_signal(signal.SIGTERM)
            yield each

    with monkeypatch.context() as patch:
        patch.setattr(LiveRun, "evaluate", counting)
        patch.setattr(HeldOut, "batches", asking)
        with pytest.raises(Interrupted, match=f"stopped by SIGTERM at step {step} of 8; ") as caught:
            pretraining.pretrain(parts)
        assert made == batch  # none was begun after it
    assert caught.value.exit_code == 143
    checkpoints = storage.RunDirectory(Path(str(parts.out))).checkpoints
    assert (checkpoints / f"step-{step}").is_dir() == (step > 0)
    # However often it is resumed, and killed before its next checkpoint.
    with pytest.raises(RuntimeError), monkeypatch.context() as patch:
        patch.setattr("fmlm_cli.engine.loop.Clock", lambda *_: raise_error())
        pretraining.pretrain(parts, resume=True)
    resumed = pretraining.pretrain(parts, resume=True)
    assert_same(resumed, pretraining.pretrain(settings("whole", **kind)))


def test_a_stop_during_a_step_of_many_batches(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is not taken: one of minutes is not waited for."""
    parts, calls = settings("parts", **KINDS["dropout"]), 0
    loss = MaskedLanguageModelling.loss

    def asking(self: MaskedLanguageModelling, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 10:  # a step has two batches; one was forwarded before, to count its operations
            signal.raise_signal(signal.SIGTERM)
        return loss(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedLanguageModelling, "loss", asking)
        with pytest.raises(Interrupted, match="stopped by SIGTERM at step 4 of 8; saved in "):
            pretraining.pretrain(parts)
        assert calls == 10
    assert_same(
        pretraining.pretrain(parts, resume=True), pretraining.pretrain(settings("whole", **KINDS["dropout"]))
    )


def test_a_stop_after_the_last_evaluation_leaves_only_the_end_to_do(settings: Settings) -> None:
    parts = settings("parts", **KINDS["steps"])

    def emit(event: Event) -> None:
        if isinstance(event, Evaluated) and event.record["step"] == 8:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match=r"at step 8 of 8; saved in .*step-8$"):
        pretraining.pretrain(parts, emit=emit)
    told: list[Event] = []
    resumed = pretraining.pretrain(parts, resume=True, emit=told.append)
    assert not any(isinstance(event, Evaluated | Trained) for event in told)
    assert_same(resumed, pretraining.pretrain(settings("whole", **KINDS["steps"])))


_KILLED = """
import os, signal, sys
import torch
from fmlm_cli.recipes import pretraining
from fmlm_cli.config import PretrainSettings, read_yaml, build
from fmlm_cli.events import Trained
torch.set_num_threads(1)
def emit(event):
    if isinstance(event, Trained) and event.record["step"] == 4:
        os.kill(os.getpid(), signal.SIGKILL)
pretraining.pretrain(build(PretrainSettings, read_yaml(sys.argv[1], PretrainSettings)), emit=emit)
"""


def test_a_killed_process_is_resumed_from_its_checkpoint(settings: Settings, tmp_path: Path) -> None:
    whole = pretraining.pretrain(settings("whole", **KINDS["dropout"]))
    parts = settings("parts", **KINDS["dropout"])
    asked = tmp_path / "asked.yaml"
    asked.write_text(json.dumps(parts.model_dump(mode="json")))  # JSON is YAML
    died = subprocess.run([sys.executable, "-c", _KILLED, asked], capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    notes: list[Event] = []
    resumed = pretraining.pretrain(parts, resume=True, emit=notes.append)
    assert Note("resuming after step 3 of 8") in notes
    assert_same(resumed, whole)


def test_sigterm_every_50_ms_ends_the_command_in_order(settings: Settings, tmp_path: Path) -> None:
    """None of them hurries what the first one began, from the step that is left to the interpreter's end."""
    chosen = {"budget.steps": 80, "checkpoint.every_steps": 5, "evaluation.every_steps": 80}
    parts = settings("parts", **chosen)
    asked = tmp_path / "asked.yaml"
    asked.write_text(json.dumps(parts.model_dump(mode="json")))
    command = [sys.executable, "-m", "fmlm_cli", "pretrain", str(asked)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        checkpoints = storage.RunDirectory(Path(str(parts.out))).checkpoints
        while process.poll() is None and not list(checkpoints.glob("step-*")):
            time.sleep(0.01)
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors.count("\n") == 1, errors
    assert errors.startswith("stopped by SIGTERM at step ")
    assert errors.endswith("the same command with --resume keeps what is finished\n")
    assert not [path for path in Path(str(parts.out)).rglob("*") if "partial" in path.name]
    assert_same(pretraining.pretrain(parts, resume=True), pretraining.pretrain(settings("whole", **chosen)))


def test_a_damaged_checkpoint_and_a_cut_metrics_file_change_nothing(settings: Settings) -> None:
    whole = pretraining.pretrain(settings("whole", **KINDS["dropout"]))
    parts = settings("parts", **KINDS["dropout"])
    with pytest.raises(RuntimeError):
        pretraining.pretrain(parts, emit=at_step(8, raise_error))
    run = storage.RunDirectory(Path(str(parts.out)))
    newest = run.checkpoints / "step-6" / "optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    run.metrics.write_bytes(run.metrics.read_bytes()[:-7])
    events: list[Event] = []
    resumed = pretraining.pretrain(parts, resume=True, emit=events.append)
    cautions = [event.text for event in events if isinstance(event, Caution)]
    assert any(str(newest) in text and "older checkpoint" in text for text in cautions)
    assert_same(resumed, whole)


def test_resume_starts_where_there_is_nothing_and_ends_where_all_is_done(settings: Settings) -> None:
    first = pretraining.pretrain(settings(**KINDS["steps"]), resume=True)
    stamp = (first.run.final / "model.safetensors").stat().st_mtime_ns
    notes: list[Event] = []
    again = pretraining.pretrain(settings(**KINDS["steps"]), resume=True, emit=notes.append)
    assert any(isinstance(note, Note) and "is finished: nothing to resume" in note.text for note in notes)
    assert (first.run.final / "model.safetensors").stat().st_mtime_ns == stamp
    assert again.records == first.records


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", 1), ("budget.steps", 9), ("optimizer.learning_rate", 0.5), ("masking.segments", 4)],
)
def test_another_run_is_not_resumed(settings: Settings, name: str, value: Any) -> None:
    with pytest.raises(RuntimeError):
        pretraining.pretrain(settings(**KINDS["steps"]), emit=at_step(4, raise_error))
    with pytest.raises(UserError, match=f"was started with {name} .*, not {value}: "):
        pretraining.pretrain(settings(**{**KINDS["steps"], name: value}), resume=True)


def test_another_model_under_the_same_name_is_not_resumed(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        pretraining.pretrain(settings(**KINDS["steps"]), emit=at_step(4, raise_error))
    (tmp_path / "model" / "config.json").write_text(json.dumps({**TINY, "hidden_act": "relu"}))
    with pytest.raises(UserError, match="belongs to another run"):
        pretraining.pretrain(settings(**KINDS["steps"]), resume=True)


@pytest.mark.parametrize(
    "changed", [{"batch.micro_size": 8}, {"logging.every_steps": 1}, {"checkpoint.every_steps": 1}]
)
def test_what_does_not_change_results_may_change(settings: Settings, changed: dict[str, Any]) -> None:
    whole = pretraining.pretrain(settings("whole", **KINDS["steps"]))
    parts = settings("parts", **KINDS["steps"])
    with pytest.raises(RuntimeError):
        pretraining.pretrain(parts, emit=at_step(4, raise_error))
    resumed = pretraining.pretrain(settings("parts", **{**KINDS["steps"], **changed}), resume=True)
    assert_close(resumed, whole)


# ---------------------------------------------------------------- whose folder, and where from


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize("left", [(), (storage.MARKER,), (storage.MARKER, ".config.yaml.77.partial")])
def test_a_kill_before_the_settings_were_written(
    settings: Settings, flags: dict[str, bool], left: tuple[str, ...]
) -> None:
    asked = settings(**KINDS["steps"])
    root = Path(str(asked.out))
    with storage.owned_folder(root, storage.RUN):
        (root / "config.yaml").touch()
    for path in root.iterdir():
        if path.name not in left:
            path.unlink()
    for name in left[1:]:
        (root / name).touch()
    run = pretraining.pretrain(asked, **flags).run
    assert run.is_finished
    storage.check_claim(run.root, storage.RUN, overwrite=True, resume=False)  # with nothing foreign in it


def test_what_a_kill_left_is_swept_away_and_changes_nothing(settings: Settings) -> None:
    whole = pretraining.pretrain(settings("whole", **KINDS["dropout"]))
    parts = settings("parts", **KINDS["dropout"])
    with pytest.raises(RuntimeError):
        pretraining.pretrain(parts, emit=at_step(8, raise_error))
    run = storage.RunDirectory(Path(str(parts.out)))
    shutil.copytree(run.checkpoints / "step-6", run.checkpoints / "step-5")
    (run.checkpoints / "step-5" / "state.json").unlink()
    left = [
        run.checkpoints / "step-5",
        run.checkpoints / ".step-9.partial",
        run.root / ".config.yaml.7.partial",
    ]
    for path in left[1:]:
        path.mkdir()
    (run.checkpoints / "step-6-of-mine").mkdir()
    assert_same(pretraining.pretrain(parts, resume=True), whole)
    assert not any(path.exists() for path in left)
    assert (run.checkpoints / "step-6-of-mine").is_dir()


def test_a_store_may_be_renamed_and_moved(settings: Settings, tiny_store: Path, tmp_path: Path) -> None:
    store = shutil.copytree(tiny_store, tmp_path / "store")
    changed = {**KINDS["dropout"], "data.stores": [str(store)]}
    whole = pretraining.pretrain(settings("whole", **changed))
    parts = settings("parts", **changed)
    with pytest.raises(RuntimeError):
        pretraining.pretrain(parts, emit=at_step(8, raise_error))
    moved = store.rename(tmp_path / "elsewhere")
    resumed = pretraining.pretrain(settings("parts", **{**changed, "data.stores": [str(moved)]}), resume=True)
    assert_same(resumed, whole)


def test_going_on_where_there_is_nothing_is_said_first(settings: Settings) -> None:
    events: list[Event] = []
    run = pretraining.pretrain(settings("typo", **KINDS["steps"]), resume=True, emit=events.append).run
    assert events[0] == Note(f"nothing in {run.root} to go on from: starting anew")
    events.clear()
    pretraining.pretrain(settings("other", **KINDS["steps"]), emit=events.append)
    assert not any(isinstance(event, Note) and "starting anew" in event.text for event in events)


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "tokenizer.json", "fmlm_hashes.json"])
def test_a_finished_run_that_lost_its_model_makes_it_again(settings: Settings, lost: str) -> None:
    asked = settings(**KINDS["steps"])
    done = pretraining.pretrain(asked)
    whole = {path.name: path.read_bytes() for path in done.run.final.iterdir()}
    (done.run.final / lost).unlink()
    if lost == "fmlm_hashes.json":
        (done.run.final / "model.safetensors").unlink()
    told: list[Event] = []
    again = pretraining.pretrain(asked, resume=True, emit=told.append)
    assert any(isinstance(event, Caution) and "the model is made again" in event.text for event in told)
    assert {path.name: path.read_bytes() for path in again.run.final.iterdir()} == whole
    assert again.records == done.records


def test_what_others_put_beside_a_model_that_is_made_again(settings: Settings, tmp_path: Path) -> None:
    asked = settings(**KINDS["steps"])
    final = pretraining.pretrain(asked).run.final
    (final / "model.safetensors").unlink()
    (final / "README.md").write_text("my words")
    (final / "onnx").mkdir()
    (final / "onnx" / "model.onnx").write_bytes(b"mine")
    (final / "convert.sh").write_text("mine")
    (final / "convert.sh").chmod(0o755)
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "secret").chmod(0o600)
    (final / "linked").symlink_to(tmp_path / "secret")
    pretraining.pretrain(asked, resume=True)
    find_checkpoint(str(final))
    assert (final / "README.md").read_text() == "my words"
    assert (final / "onnx" / "model.onnx").read_bytes() == b"mine"
    assert (final / "convert.sh").stat().st_mode & 0o111
    assert (final / "linked").readlink() == tmp_path / "secret"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_final_folder_without_a_model_is_a_damaged_one_to_all(settings: Settings) -> None:
    """What resumes a run and what begins from it say the same of whether it is finished."""
    asked = settings(**KINDS["steps"])
    run = pretraining.pretrain(asked).run
    (run.final / "config.json").unlink()
    assert run.is_finished
    with pytest.raises(
        UserError, match=r"config\.json is missing: remove .*final, and --resume makes it again"
    ):
        find_checkpoint(str(run.root))
    shutil.rmtree(run.checkpoints)
    told: list[Event] = []
    with pytest.raises(UserError, match=r"has lost its config\.json"):
        pretraining.pretrain(asked, resume=True, emit=told.append)
    assert not any(isinstance(event, Note) and "starting anew" in event.text for event in told)


def test_a_lost_model_that_cannot_be_made_again(settings: Settings) -> None:
    asked = settings(**KINDS["steps"])
    run = pretraining.pretrain(asked).run
    (run.final / "model.safetensors").unlink()
    shutil.rmtree(run.checkpoints)
    with pytest.raises(
        UserError,
        match=r"final has lost its model\.safetensors.*no checkpoint.*: put the file back, or remove .*final, and",
    ):
        pretraining.pretrain(asked, resume=True)
    shutil.rmtree(run.final)
    assert pretraining.pretrain(asked, resume=True).run.is_finished


def test_a_finished_run_whose_model_was_changed_is_not_called_finished(settings: Settings) -> None:
    asked = settings(**KINDS["steps"])
    run = pretraining.pretrain(asked).run
    path = run.final / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\0\0\0\0")
    with pytest.raises(
        UserError, match=r"model\.safetensors has changed since it was written: remove .*; or .*fmlm_hashes"
    ) as caught:
        pretraining.pretrain(asked, resume=True)
    records = run.metrics.read_bytes()
    shutil.rmtree(str(caught.value).partition(": remove ")[2].partition(", and --resume makes it again")[0])
    pretraining.pretrain(asked, resume=True)
    assert path.read_bytes() == whole
    assert run.metrics.read_bytes() == records  # nothing was trained again


def test_a_run_without_its_settings_is_not_cleared(settings: Settings) -> None:
    run = pretraining.pretrain(settings(**KINDS["steps"])).run
    run.config.unlink()
    before = sorted(run.root.rglob("*"))
    with pytest.raises(UserError, match=r"has lost its config\.yaml: put it back, or pass --overwrite"):
        pretraining.pretrain(settings(**KINDS["steps"]), resume=True)
    assert sorted(run.root.rglob("*")) == before
    (run.root / "notes.md").write_text("precious")
    with pytest.raises(UserError, match=r"notes\.md"):
        pretraining.pretrain(settings(**KINDS["steps"]), overwrite=True)
    assert sorted(run.root.rglob("*")) == sorted([*before, run.root / "notes.md"])


def test_why_a_run_ended_is_in_its_records_until_it_goes_on(settings: Settings, tmp_path: Path) -> None:
    """Behind all that a checkpoint holds, so that its records are the same afterwards."""
    chosen = {"budget.steps": 8, "logging.every_steps": 3, "checkpoint.every_steps": 5}
    whole = pretraining.pretrain(settings("whole", **chosen))
    with pytest.raises(RuntimeError):
        pretraining.pretrain(settings("run", **chosen), emit=at_step(6, raise_error))
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert last == {"step": 7, "remark": "failed", "error": "the power went out"}
    assert_same(pretraining.pretrain(settings("run", **chosen), resume=True), whole)

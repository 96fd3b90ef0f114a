"""Checkpoints written by a thread: what a synchronous save writes, whatever ends the run, and errors in time."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fmlm_cli import storage
from fmlm_cli.engine.checkpoint import STATE, read_state
from fmlm_cli.engine.ranks.protocol import OneProcess
from fmlm_cli.engine.saving.background import Background
from fmlm_cli.engine.saving.host_copy import HostCopy
from fmlm_cli.errors import Interrupted, OutOfSpaceError, UserError
from fmlm_cli.events import ignore
from fmlm_cli.recipes.shared.training import train_to_the_end
from tests.engine.small_run import Run
from tests.environment import python_path

FULL = OSError(28, "No space left on device")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    monkeypatch.setattr("fmlm_cli.engine.loop.count_flops", lambda forward: 1)


def made(folder: Path, **changed: Any) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(folder, OneProcess(), **changed)


def before_each_step(run: Run, act: Callable[[int], None]) -> None:
    object.__setattr__(run.run, "before_step", act)


def lasting(checkpoint: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """The hashes of a checkpoint's files, and its state but for what is timed."""
    saved = read_state(checkpoint)
    assert storage.damage_of(checkpoint, saved["files"]) is None
    state = {name: value for name, value in saved["state"].items() if name not in ("seconds", "records")}
    return dict(saved["files"]), state


def names(run: Run) -> list[str]:
    return sorted(path.name for path in run.checkpoints.root.iterdir())


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix(".step-").removesuffix(".partial"))


class Held:
    """A way of saving that writes half, and goes on once the run is some steps further."""

    def __init__(self, run: Run, steps: int = 2) -> None:
        self.run, self.steps, self.step = run, steps, 0
        self.moved, self.further = threading.Condition(), 0
        self.save = run.save
        object.__setattr__(run.checkpoints, "save_model", self)
        before_each_step(run, self.note)

    def note(self, step: int) -> None:
        with self.moved:
            self.step = step
            self.moved.notify_all()

    def __call__(self, model: nn.Module, folder: Path) -> None:
        (folder / "half").write_bytes(b"half")
        with self.moved:
            if threading.current_thread() is not threading.main_thread():
                saved = step_of(folder)
                assert self.moved.wait_for(lambda: self.step >= saved + self.steps, 10)
                self.further = max(self.further, self.step - saved)
        self.save(model, folder)


@pytest.mark.parametrize("after", [1, 2])
def test_it_is_what_a_synchronous_save_writes(tmp_path: Path, after: int) -> None:
    """While the thread writes a step, the run goes on to others, which change all weights and moments."""
    at_once = made(tmp_path / "at_once", checkpoint=3, stays=lambda step: True)
    train_to_the_end(at_once.run, ignore)
    run = made(tmp_path / "run", checkpoint=3, background=True, stays=lambda step: step == 3)
    held = Held(run, after)
    train_to_the_end(run.run, ignore)
    assert held.further >= after and names(run) == ["step-3", "step-6"]
    for name in names(run):
        files, state = lasting(run.checkpoints.root / name)
        assert files.pop("half")
        assert (files, state) == lasting(at_once.checkpoints.root / name)


def test_a_copy_is_of_its_moment_and_takes_the_same_memory_again() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model.append(model[0])  # a module in two places stays one
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    copy, rooms = HostCopy(model), set()
    for step in range(3):
        model(torch.randn(5, 3)).sum().backward()
        optimizer.step()
        wanted = {name: value.clone() for name, value in model.state_dict().items()}
        moments = {id(p): optimizer.state[p]["exp_avg"].clone() for p in model.parameters()}
        twin, state = copy.take(model, optimizer)
        rooms.add(tuple(p.data_ptr() for p in twin.parameters()))
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(1)
            for parameter in model.parameters():
                optimizer.state[parameter]["exp_avg"].add_(1)
        assert all(torch.equal(value, wanted[name]) for name, value in twin.state_dict().items()), step
        for name, parameter in model.named_parameters():
            assert torch.equal(state[f"{name}/exp_avg"], moments[id(parameter)])
        assert twin[0] is twin[2] and twin[0] is not model[0]
    assert len(rooms) == 1


def test_nothing_is_given_up_unread() -> None:
    background = Background()
    background.begin(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    background.wait()
    assert isinstance(background.take_error(), ZeroDivisionError) and background.take_error() is None
    background.begin(lambda: None)
    background.wait()
    assert background.take_error() is None


# ---------------------------------------------------------------- what cannot be written


def failing_at(run: Run, *steps: int) -> list[int]:
    """Let the checkpoints of these steps meet a full disk; the steps that were tried."""
    save, tried = run.save, []

    def act(model: nn.Module, folder: Path) -> None:
        step = step_of(folder)
        tried.append(step)
        (folder / "half").write_bytes(b"half")
        if step in steps:
            raise FULL
        save(model, folder)

    object.__setattr__(run.checkpoints, "save_model", act)
    return tried


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_stops_the_run(tmp_path: Path, background: bool) -> None:
    run = made(tmp_path, background=background, checkpoint=2)
    tried, begun = failing_at(run, 4), []

    def wait(step: int) -> None:
        begun.append(step)
        run.checkpoints._saving.background.wait()

    before_each_step(run, wait)
    with pytest.raises(OutOfSpaceError, match=r"no space left on the disk while writing .*step-4"):
        train_to_the_end(run.run, ignore)
    assert tried == [2, 4] and names(run) == ["step-2"]
    assert begun == ([1, 2, 3, 4, 5] if background else [1, 2, 3, 4])  # it ends at the next look


@pytest.mark.parametrize("background", [False, True])
def test_or_it_is_told_and_the_next_one_is_tried(tmp_path: Path, background: bool) -> None:
    told: list[UserError] = []
    run = made(tmp_path, background=background, checkpoint=1, on_failure=told.append)
    tried = failing_at(run, 2, 3, 5)
    train_to_the_end(run.run, ignore)
    assert tried == [1, 2, 3, 4, 5, 6] and names(run) == ["step-4", "step-6"]
    assert [type(error) for error in told] == [OutOfSpaceError] * 3 and "step-2" in str(told[0])


@pytest.mark.parametrize("background", [False, True])
def test_the_last_one_has_to_be_written(tmp_path: Path, background: bool) -> None:
    told: list[UserError] = []
    run = made(tmp_path, background=background, checkpoint=4, on_failure=told.append)
    failing_at(run, 6)
    with pytest.raises(OutOfSpaceError, match=r"step-6.*: free some.*; then --resume goes on from .*step-4$"):
        train_to_the_end(run.run, ignore)
    assert names(run) == ["step-4"] and not told


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", STATE])
def test_an_older_one_goes_only_when_the_disk_gives_the_new_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool, name: str
) -> None:
    """A disk that takes all and keeps something else: what was flushed is changed before it is read."""
    run = made(tmp_path, background=background, checkpoint=1)
    object.__setattr__(run.checkpoints, "keep", 1)

    def flip(descriptor: int, *_: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.name == name and ".step-3" in path.parent.name:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)

    monkeypatch.setattr(os, "posix_fadvise", flip)
    with pytest.raises(UserError, match=rf"step-3 could not be kept: .*{name} has changed .* may be failing"):
        train_to_the_end(run.run, ignore)
    assert names(run) == ["step-2"]


# ---------------------------------------------------------------- whatever ends the run


def test_a_stop_midway_finishes_it(tmp_path: Path) -> None:
    run = made(tmp_path, background=True, checkpoint=2)
    held = Held(run)
    note = held.note

    def ask(step: int) -> None:
        note(step)
        if step == 4:
            signal.raise_signal(signal.SIGTERM)

    before_each_step(run, ask)
    with pytest.raises(Interrupted, match=r"at step 3 of 6; saved in .*step-3$"):
        train_to_the_end(run.run, ignore)
    assert names(run) == ["step-2", "step-3"]
    for name in names(run):
        lasting(run.checkpoints.root / name)


def test_an_error_midway_finishes_it(tmp_path: Path) -> None:
    run = made(tmp_path, background=True, checkpoint=2)
    held = Held(run)
    note = held.note

    def fail(step: int) -> None:
        note(step)
        if step == 4:
            raise ZeroDivisionError

    before_each_step(run, fail)
    with pytest.raises(ZeroDivisionError):
        train_to_the_end(run.run, ignore)
    assert names(run) == ["step-2"]
    lasting(run.checkpoints.root / "step-2")


KILLED = """
import os, signal, sys
from pathlib import Path
from fmlm_cli.engine.ranks.protocol import OneProcess
from fmlm_cli.events import ignore
from fmlm_cli.recipes.shared.training import train_to_the_end
from tests.engine.small_run import Run
run = Run(Path(sys.argv[1]), OneProcess(), background=True, checkpoint=2)
save = run.save
def act(model, folder):
    save(model, folder)
    if "step-4" in folder.name:
        os.kill(os.getpid(), signal.SIGKILL)
object.__setattr__(run.checkpoints, "save_model", act)
train_to_the_end(run.run, ignore)
"""


def test_a_kill_midway_leaves_what_is_swept(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    run = made(tmp_path, background=True, checkpoint=2)
    assert names(run) == [".step-4.partial", "step-2"]
    state, damages = run.checkpoints.restore(run.model, run.run.optimizer)
    assert (state.step, damages) == (2, [])
    with storage.work_in(tmp_path):
        assert names(run) == ["step-2"]
    train_to_the_end(run.run, ignore)
    whole = made(tmp_path / "whole", checkpoint=2)
    train_to_the_end(whole.run, ignore)
    assert lasting(run.checkpoints.root / "step-6") == lasting(whole.checkpoints.root / "step-6")

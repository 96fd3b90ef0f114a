"""Checkpoints: whole or not at all, exact, and of this run only."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fmlm_cli.config.schema import OptimizerSettings
from fmlm_cli.engine.checkpoint import (
    OPTIMIZER,
    STATE,
    Checkpoints,
    TrainState,
    carry_over,
    check_optimizer,
    check_weights,
)
from fmlm_cli.engine.optimizer import make_optimizer
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import OutOfSpaceError, UserError
from tests.damage import single_bit_flips

WEIGHTS = "model.safetensors"


class Run:
    """A small model, its optimizer and its checkpoints, made anew as a new process would."""

    def __init__(self, root: Path, *, keep: int = 2, identity: str = "this run") -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))
        self.optimizer = make_optimizer(
            OptimizerSettings(weight_decay=0.1, betas=(0.9, 0.98), epsilon=1e-6), self.model
        )
        self.root = root
        self.checkpoints = Checkpoints(root, keep, identity, self.save_model, self.load_model)

    def save_model(self, model: nn.Module, folder: Path) -> None:
        save_file(model.state_dict(), folder / WEIGHTS)
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "vocab.txt").write_text("[PAD]\n")

    def load_model(self, folder: Path) -> None:
        self.model.load_state_dict(load_file(folder / WEIGHTS))

    def train(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            self.optimizer.zero_grad()
            inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
            self.model(inputs).square().sum().backward()
            for group in self.optimizer.param_groups:
                group["lr"] = 0.01 / step
            self.optimizer.step()

    def save(self, step: int, **sums: Any) -> Path:
        return self.checkpoints.save(self.model, self.optimizer, TrainState(step, **sums))

    def restore(self) -> tuple[TrainState, list[str]]:
        return self.checkpoints.restore(self.model, self.optimizer)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}

    def moments(self) -> dict[str, torch.Tensor]:
        return {
            f"{name}/{entry}": value.clone()
            for name, p in self.model.named_parameters()
            for entry, value in self.optimizer.state[p].items()
        }

    @property
    def folders(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir())


def equal(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return got.keys() == wanted.keys() and all(
        torch.equal(value, wanted[name]) and value.dtype == wanted[name].dtype for name, value in got.items()
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.train(1, 5)
    state = TrainState(5, 1234, 17.25, 99, 3.5, 2, 0.125)
    run.checkpoints.save(run.model, run.optimizer, state)
    again = Run(tmp_path)
    restored, passed = again.restore()
    assert (restored, passed) == (state, [])
    assert equal(again.weights(), run.weights())
    assert len(again.moments()) == 6 * 3
    assert equal(again.moments(), run.moments())


def test_going_on_is_as_if_never_stopped(tmp_path: Path) -> None:
    whole = Run(tmp_path / "unused")
    whole.train(1, 9)
    first = Run(tmp_path)
    first.train(1, 4)
    first.save(4)
    second = Run(tmp_path)
    state, _ = second.restore()
    second.train(state.step + 1, 9)
    assert equal(second.weights(), whole.weights())
    assert equal(second.moments(), whole.moments())


def test_the_optimizer_is_readable_by_parameter_name(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.train(1, 3)
    tensors = load_file(run.save(3) / OPTIMIZER)
    assert set(tensors) == {
        f"{name}/{entry}"
        for name, _ in run.model.named_parameters()
        for entry in ("exp_avg", "exp_avg_sq", "step")
    }
    assert tensors["0.weight/exp_avg"].shape == (6, 4)
    assert float(tensors["0.weight/step"]) == 3


def test_a_new_run_starts_at_step_0(tmp_path: Path) -> None:
    run = Run(tmp_path / "checkpoints")
    before = run.weights()
    assert run.restore() == (TrainState(0), [])
    assert equal(run.weights(), before)
    assert not run.moments()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_keeps_the_newest(tmp_path: Path, keep: int) -> None:
    run = Run(tmp_path, keep=keep)
    steps = [2, 4, 9, 10, 100]  # by number, not by name
    for step in steps:
        path = run.save(step)
        assert path.is_dir()
    assert run.folders == sorted(f"step-{step}" for step in steps[-keep:])
    assert [step for step, _ in run.checkpoints.all()] == steps[-keep:]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.save(3, tokens=1)
    run.train(1, 1)
    run.save(3, tokens=2)
    assert run.folders == ["step-3"]
    again = Run(tmp_path)
    assert again.restore()[0].tokens == 2
    assert equal(again.weights(), run.weights())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty, Path.unlink])
@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER, "tokenizer/vocab.txt"])
def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path, damage: Any, name: str) -> None:
    run = Run(tmp_path)
    run.train(1, 2)
    run.save(2)
    wanted = run.weights()
    run.train(3, 4)
    newest = run.save(4)
    damage(newest / name)
    again = Run(tmp_path)
    state, passed = again.restore()
    assert state.step == 2
    assert equal(again.weights(), wanted)
    assert len(passed) == 1
    assert str(newest / name) in passed[0]


@pytest.mark.parametrize("contents", ["", "{", "[]", "17", "null", '{"state": {}}', '{"files": {}}'])
def test_a_damaged_state_is_passed_over(tmp_path: Path, contents: str) -> None:
    run = Run(tmp_path)
    run.save(2)
    newest = run.save(4)
    (newest / STATE).write_text(contents)
    state, passed = Run(tmp_path).restore()
    assert state.step == 2
    assert passed == [f"{newest / STATE} is damaged"]


@pytest.mark.parametrize("every", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_no_bit_of_a_state_changes_unseen(tmp_path: Path, every: int) -> None:
    run = Run(tmp_path)
    run.train(1, 2)
    run.save(1)
    path = run.save(2, tokens=12, seconds=0.5) / STATE
    whole, (wanted, _) = path.read_bytes(), run.restore()
    for changed in itertools.islice(single_bit_flips(whole), 0, None, every):
        path.write_bytes(changed)
        state, passed_over = run.restore()
        assert state == (TrainState(1) if passed_over else wanted), changed


def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.save(2)
    with torch.no_grad():
        run.model[2].bias[0] = float("inf")
    with pytest.raises(DivergedError, match=r"2\.bias is not finite .* after step 4"):
        run.save(4)
    assert run.folders == ["step-2"]


@pytest.mark.parametrize("damage", [cut, flip, empty, Path.unlink])
def test_another_runs_damaged_optimizer_is_refused(tmp_path: Path, damage: Any) -> None:
    run = Run(tmp_path)
    run.train(1, 1)
    checkpoint = run.save(2)
    check_optimizer(checkpoint)
    damage(checkpoint / OPTIMIZER)
    with pytest.raises(UserError, match=r"optimizer\.safetensors .*: set optimizer\.carry_over=false$"):
        check_optimizer(checkpoint)
    check_weights(checkpoint)  # which do not need it
    damage(checkpoint / WEIGHTS)
    with pytest.raises(
        UserError, match=r"model\.safetensors .*: give another checkpoint of its run, or remove this one$"
    ):
        check_weights(checkpoint)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_optimizers_state_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    run = Run(tmp_path)
    run.train(1, 1)
    checkpoint = run.save(2)
    tensors = load_file(checkpoint / OPTIMIZER)
    tensors["2.bias/exp_avg"][0] = value
    save_file(tensors, checkpoint / OPTIMIZER)
    with pytest.raises(UserError, match=r"2\.bias/exp_avg is not finite .*: set optimizer\.carry_over=false"):
        carry_over(checkpoint, run.model, run.optimizer)


def test_a_folder_without_its_state_is_no_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.save(2)
    (run.save(4) / STATE).unlink()
    (tmp_path / "step-six").mkdir()
    (tmp_path / "step-").mkdir()
    assert Run(tmp_path).restore() == (TrainState(2), [])


def test_no_whole_checkpoint_at_all(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step in (2, 4):
        cut(run.save(step) / WEIGHTS)
    with pytest.raises(UserError, match=r"no checkpoint of .* can be gone on from .*step-4.*--resume"):
        Run(tmp_path).restore()


@pytest.mark.parametrize("partly", [True, False])
@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), SystemExit(1)])
def test_an_end_while_saving_leaves_no_half_checkpoint(
    tmp_path: Path, error: BaseException, partly: bool
) -> None:
    run = Run(tmp_path)
    run.train(1, 2)
    run.save(2)
    wanted = run.weights()
    run.train(3, 4)

    def fail(model: nn.Module, folder: Path) -> None:
        if partly:
            run.save_model(model, folder)
        raise error

    failing = Checkpoints(tmp_path, 2, "this run", fail, run.load_model)
    with pytest.raises(type(error)):
        failing.save(run.model, run.optimizer, TrainState(4))
    assert run.folders == ["step-2"]
    again = Run(tmp_path)
    assert again.restore()[0].step == 2
    assert equal(again.weights(), wanted)


def test_a_full_disk_while_saving_is_one_clear_line(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.save(2)

    def full(model: nn.Module, folder: Path) -> None:
        (folder / "half").write_bytes(b"1234")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutOfSpaceError, match=r"no space left on the disk while writing .*step-4"):
        Checkpoints(tmp_path, 2, "this run", full, run.load_model).save(
            run.model, run.optimizer, TrainState(4)
        )
    assert run.folders == ["step-2"]


def test_what_a_killed_process_left_is_no_checkpoint(tmp_path: Path) -> None:
    """After kill -9 the temporary folder stays; it is ignored, and gone once its step is saved again."""
    run = Run(tmp_path)
    run.save(2)
    shutil.copytree(tmp_path / "step-2", tmp_path / ".step-4.partial")
    again = Run(tmp_path)
    assert again.restore()[0].step == 2
    again.save(4)
    assert again.folders == ["step-2", "step-4"]


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    Run(tmp_path).save(2)
    with pytest.raises(UserError, match=r"step-2 belongs to another run.*--resume"):
        Run(tmp_path, identity="another").restore()


def test_the_state_of_parameters_by_other_names_is_refused(tmp_path: Path) -> None:
    """Else the optimizer would begin anew without a word."""
    run = Run(tmp_path)
    run.train(1, 2)
    run.save(2)
    again = Run(tmp_path)
    again.model = nn.Sequential(again.model)
    with pytest.raises(
        UserError, match=r"optimizer.* of a model with other parameters \(0\.bias\).*--resume"
    ):
        again.restore()


def test_older_checkpoints_go_only_after_the_new_one_is_whole(tmp_path: Path) -> None:
    run = Run(tmp_path, keep=1)
    run.save(2)

    def fail(model: nn.Module, folder: Path) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Checkpoints(tmp_path, 1, "this run", fail, run.load_model).save(
            run.model, run.optimizer, TrainState(4)
        )
    assert run.folders == ["step-2"]

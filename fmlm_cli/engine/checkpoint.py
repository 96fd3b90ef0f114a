"""Checkpoints: everything a run needs to go on, written whole or not at all.

checkpoints/step-1000/
  ...                      the weights, as the recipe saves them (a Hugging Face folder)
  optimizer.safetensors    AdamW's state, by parameter name
  state.json               step, running sums, what the run was, and a hash of every file; written last
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fmlm_cli import storage
from fmlm_cli.errors import UserError

STATE, OPTIMIZER = "state.json", "optimizer.safetensors"


@dataclass(frozen=True)
class TrainState:
    """Where a run stands after `step` steps. Sums since the last training record are carried over."""

    step: int
    tokens: int = 0
    window_loss: float = 0.0
    window_count: int = 0
    window_norm: float = 0.0
    window_steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run. `identity` says what the run is; a checkpoint of another one is refused."""

    root: Path
    keep: int
    identity: str
    save_model: Callable[[Path], None]
    load_model: Callable[[Path], None]

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainState) -> Path:
        """Write step-N, then remove all but the newest `keep`."""
        target = self.root / f"step-{state.step}"
        with storage.complete_folder(target) as folder:
            self.save_model(folder)
            save_file(_optimizer_tensors(model, optimizer), folder / OPTIMIZER)
            files = {
                path.relative_to(folder).as_posix(): storage.sha256_of_file(path) for path in _files(folder)
            }
            storage.write_json(
                folder / STATE, {"state": asdict(state), "identity": self.identity, "files": files}
            )
        for _, old in self.all()[: -self.keep]:
            shutil.rmtree(old)
        return target

    def all(self) -> list[tuple[int, Path]]:
        """Steps and folders of the complete checkpoints, oldest first."""
        return complete_checkpoints(self.root)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[TrainState, list[str]]:
        """Load the newest checkpoint that is whole; its state, and a line for each damaged one passed over.

        With no checkpoint at all the state is that of step 0.
        """
        passed: list[str] = []
        found = self.all()
        for _, path in reversed(found):
            try:
                return self._load(path, model, optimizer), passed
            except DamagedError as error:
                passed.append(str(error))
        if found:
            raise UserError(
                f"no checkpoint of {self.root} is whole ({passed[0]}); pass --overwrite to start again"
            )
        return TrainState(step=0), passed

    def _load(self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainState:
        try:
            saved = storage.read_json(path / STATE)
            state, files, identity = TrainState(**saved["state"]), saved["files"].items(), saved["identity"]
        except (UserError, KeyError, TypeError, AttributeError):
            raise DamagedError(f"{path / STATE} is damaged") from None
        for name, expected in files:
            file = path / name
            if not file.is_file() or storage.sha256_of_file(file) != expected:
                raise DamagedError(f"{file} is missing or damaged")
        if identity != self.identity:
            raise UserError(
                f"{path} belongs to another run: its data or settings differ; pass --overwrite to start again"
            )
        self.load_model(path)
        _restore_optimizer(model, optimizer, load_file(path / OPTIMIZER))
        return state


def complete_checkpoints(root: Path) -> list[tuple[int, Path]]:
    """Steps and folders of the complete checkpoints under `root`, oldest first."""
    found = [(int(path.name[5:]), path) for path in root.glob("step-*") if path.name[5:].isdigit()]
    return sorted((step, path) for step, path in found if (path / STATE).is_file())


class DamagedError(Exception):
    """A checkpoint that cannot be used; an older one may do."""


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as `<parameter>/<entry>`."""
    return {
        f"{name}/{entry}": value.detach().to("cpu").contiguous()
        for name, parameter in model.named_parameters()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def _restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> None:
    by_name: dict[str, dict[str, Any]] = {}
    for key, value in tensors.items():
        name, _, entry = key.rpartition("/")
        by_name.setdefault(name, {})[entry] = value
    for name, parameter in model.named_parameters():
        for entry, value in by_name.get(name, {}).items():
            # AdamW's step counters stay where the optimizer keeps them: fused on a GPU, else on the CPU.
            on_device = entry != "step" or optimizer.param_groups[0].get("fused")
            optimizer.state[parameter][entry] = value.to(parameter.device) if on_device else value

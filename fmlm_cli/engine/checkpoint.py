"""Checkpoints: everything a run needs to go on, written whole or not at all.

checkpoints/step-1000/
  ...                      the weights, as the recipe saves them (a Hugging Face folder)
  optimizer.safetensors    the optimizer's state, by parameter name
  state.json               step, running sums, what the run was, facts for a run that goes on, a hash of
                           every file; written last
"""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fmlm_cli import storage
from fmlm_cli.engine.optimizer import load_named_state, named_state
from fmlm_cli.errors import UserError

STATE, OPTIMIZER = "state.json", "optimizer.safetensors"


@dataclass(frozen=True)
class TrainState:
    """Where a run stands after `step` steps. Sums since the last training record are carried over.

    `evaluated`: the step of the latest evaluation; -1 before the first.
    """

    step: int
    tokens: int = 0
    window_loss: float = 0.0
    window_count: int = 0
    window_norm: float = 0.0
    window_steps: int = 0
    seconds: float = 0.0
    evaluated: int = -1


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run. `identity` says what the run is; a checkpoint of another one is refused.

    `facts`: plain values to keep beside the state, for whoever goes on from a checkpoint in another run.
    `keep`: how many of the newest are left; those of `keep_steps` are left whatever comes after them.
    """

    root: Path
    keep: int
    identity: str
    save_model: Callable[[Path], None]
    load_model: Callable[[Path], None]
    facts: Mapping[str, Any] = field(default_factory=dict)
    keep_steps: Collection[int] = ()

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainState) -> Path:
        """Write step-N, then remove the older ones that are not to be kept."""
        target = self.folder(state.step)
        with storage.complete_folder(target) as folder:
            self.save_model(folder)
            save_file(named_state(model, optimizer), folder / OPTIMIZER)
            files = {
                path.relative_to(folder).as_posix(): storage.sha256_of_file(path) for path in _files(folder)
            }
            content = {"state": asdict(state), "identity": self.identity, "facts": self.facts, "files": files}
            storage.write_json(folder / STATE, content)
        for old in [path for step, path in self.all() if step not in self.keep_steps][: -self.keep]:
            shutil.rmtree(old)
        return target

    def folder(self, step: int) -> Path:
        """Where the checkpoint of a step lies, if there is one."""
        return self.root / f"step-{step}"

    def all(self) -> list[tuple[int, Path]]:
        """Steps and folders of the complete checkpoints, oldest first."""
        return complete_checkpoints(self.root)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[TrainState, list[str]]:
        """Load the newest checkpoint that is whole; its state, and a line for each damaged one passed over.

        With no checkpoint at all the state is that of step 0.
        """
        damages: list[str] = []
        complete = self.all()
        for _, path in reversed(complete):
            try:
                return self._load(path, model, optimizer), damages
            except DamagedError as error:
                damages.append(str(error))
        if complete:
            raise UserError(
                f"no checkpoint of {self.root} is whole ({damages[0]}); pass --overwrite to start again"
            )
        return TrainState(step=0), damages

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
        load_named_state(model, optimizer, load_file(path / OPTIMIZER))
        return state


def complete_checkpoints(root: Path) -> list[tuple[int, Path]]:
    """Steps and folders of the complete checkpoints under `root`, oldest first."""
    numbered = [(int(path.name[5:]), path) for path in root.glob("step-*") if path.name[5:].isdigit()]
    return sorted((step, path) for step, path in numbered if (path / STATE).is_file())


def read_facts(checkpoint: Path) -> tuple[int, Mapping[str, Any]]:
    """The step of a complete checkpoint, and the facts that its run left in it."""
    saved = storage.read_json(checkpoint / STATE)
    return int(saved["state"]["step"]), saved["facts"]


def carry_over(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give an optimizer the state of another run's. Raises `UserError` where its parameters are not these."""
    path = checkpoint / OPTIMIZER
    if not path.is_file():
        raise UserError(f"{checkpoint} holds no state of an optimizer: set optimizer.carry_over=false")
    tensors = load_file(path)
    shapes = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    saved = {key.rpartition("/")[0]: value.shape for key, value in tensors.items() if value.ndim}
    for name in {**shapes, **saved}:
        if saved.get(name) != shapes.get(name):
            raise UserError(
                f"the optimizer's state in {checkpoint} does not fit this run ({name}): set "
                "optimizer.carry_over=false"
            )
    load_named_state(model, optimizer, tensors)


class DamagedError(Exception):
    """A checkpoint that cannot be used; an older one may do."""


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())

"""Checkpoints: everything a run needs to go on, written whole or not at all.

checkpoints/step-1000/
  ...                      the weights, as the recipe saves them (a Hugging Face folder)
  optimizer.safetensors    the optimizer's state, by parameter name
  state.json               step, running sums, what the run was, facts for a run that goes on, a hash of
                           every file and of itself; written last
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from fmlm_cli import storage
from fmlm_cli.engine.optimizer import load_named_state, named_state
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import UserError
from fmlm_cli.tensors import not_finite, read_own_tensors

STATE, OPTIMIZER = "state.json", "optimizer.safetensors"

_ANOTHER = "give another checkpoint of its run, or remove this one"
_WITHOUT = "set optimizer.carry_over=false"


@dataclass(frozen=True)
class TrainState:
    """Where a run stands after `step` steps. Sums since the last training record are carried over.

    `records`: the hash of the records written so far; empty where none are kept. `evaluated`: the step of the
    latest evaluation; -1 before the first.
    """

    step: int
    tokens: int = 0
    window_loss: float = 0.0
    window_count: int = 0
    window_norm: float = 0.0
    window_steps: int = 0
    seconds: float = 0.0
    records: str = ""
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
        """Write step-N, then remove the older ones that are not to be kept.

        Raises `DivergedError` for weights that nothing can go on from.
        """
        if name := not_finite(dict(model.named_parameters())):
            raise DivergedError(f"{name} is not finite (NaN or infinity) after step {state.step}")
        target = self.folder(state.step)
        with storage.complete_folder(target) as folder:
            self.save_model(folder)
            save_file(named_state(model, optimizer), folder / OPTIMIZER)
            files = storage.hashes_of(folder)
            content = {"state": asdict(state), "identity": self.identity, "facts": self.facts, "files": files}
            storage.write_sealed(folder / STATE, content)
        for old in [path for step, path in self.all() if step not in self.keep_steps][: -self.keep]:
            storage.remove(old)
        return target

    def folder(self, step: int) -> Path:
        """Where the checkpoint of a step lies, if there is one."""
        return self.root / f"step-{step}"

    def all(self) -> list[tuple[int, Path]]:
        """Steps and folders of the complete checkpoints, oldest first."""
        return complete_checkpoints(self.root)

    def restore(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        objection: Callable[[TrainState], str | None] = lambda state: None,
    ) -> tuple[TrainState, list[str]]:
        """Load the newest checkpoint that is whole; its state, and a line for each damaged one passed over.

        `objection`: what else speaks against going on from a state, in words; None if nothing does. With no
        checkpoint at all the state is that of step 0.
        """
        damages: list[str] = []
        complete = self.all()
        for _, path in _numbered(self.root):
            if not (path / STATE).is_file():
                storage.remove(path)  # what a process that was killed while removing it has left
        for _, path in reversed(complete):
            try:
                return self._load(path, model, optimizer, objection), damages
            except DamagedError as error:
                damages.append(str(error))
        if complete:
            raise UserError(
                f"no checkpoint of {self.root} can be gone on from ({damages[0]}): put that file back as it "
                f"was, or {begin_again(self.root)}"
            )
        return TrainState(step=0), damages

    def _load(
        self,
        path: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        objection: Callable[[TrainState], str | None],
    ) -> TrainState:
        try:
            saved = storage.read_sealed(path / STATE)
            state = TrainState(**saved["state"])
        except (UserError, KeyError, TypeError):
            raise DamagedError(f"{path / STATE} is damaged") from None
        if damage := storage.damage_of(path, saved["files"]):
            raise DamagedError(damage)
        if saved["identity"] != self.identity:
            raise UserError(
                f"{path} belongs to another run: its data or settings differ; {begin_again(self.root)}"
            )
        if against := objection(state):
            raise DamagedError(against)
        optimizer_state = read_own_tensors(path / OPTIMIZER, begin_again(self.root))
        unknown = {key.rpartition("/")[0] for key in optimizer_state} - dict(model.named_parameters()).keys()
        if unknown:  # as of a version of fmlm that named them otherwise
            raise UserError(
                f"{path / OPTIMIZER} is of a model with other parameters ({min(unknown)}); "
                f"{begin_again(self.root)}"
            )
        self.load_model(path)
        load_named_state(model, optimizer, optimizer_state)
        return state


def begin_again(checkpoints: Path) -> str:
    """How a run is begun again, by whatever command it is part of; `checkpoints`: the folder of them all."""
    return f"remove {checkpoints}, and the same command with --resume begins it again"


def complete_checkpoints(root: Path) -> list[tuple[int, Path]]:
    """Steps and folders of the complete checkpoints under `root`, oldest first."""
    return sorted((step, path) for step, path in _numbered(root) if (path / STATE).is_file())


def _numbered(root: Path) -> list[tuple[int, Path]]:
    """Steps and folders of all checkpoints; a step-10-backup is the user's own."""
    return [(int(path.name[5:]), path) for path in root.glob("step-*") if path.name[5:].isdecimal()]


def read_state(checkpoint: Path) -> Mapping[str, Any]:
    """What a checkpoint's state.json says. Raises `UserError` if it is missing, damaged or was changed."""
    path = checkpoint / STATE
    try:
        return storage.read_sealed(path)
    except (UserError, OSError):
        raise UserError(f"{path} is missing or damaged: {_ANOTHER}") from None


def read_facts(checkpoint: Path) -> tuple[int, Mapping[str, Any]]:
    """The step of a complete checkpoint, and the facts that its run left in it."""
    saved = read_state(checkpoint)
    return int(saved["state"]["step"]), saved["facts"]


def check_weights(checkpoint: Path) -> None:
    """Refuse a checkpoint of which any file but the optimizer's is not what its run wrote."""
    files = {name: sha256 for name, sha256 in read_state(checkpoint)["files"].items() if name != OPTIMIZER}
    if damage := storage.damage_of(checkpoint, files):
        raise UserError(f"{damage}: {_ANOTHER}")


def check_optimizer(checkpoint: Path) -> None:
    """Refuse a checkpoint whose state of the optimizer is not what its run wrote."""
    sha256 = read_state(checkpoint)["files"][OPTIMIZER]
    if damage := storage.damage_of(checkpoint, {OPTIMIZER: sha256}):
        raise UserError(f"{damage}: {_WITHOUT}")


def carry_over(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give an optimizer the state of another run's. Raises `UserError` where its parameters are not these."""
    tensors = read_own_tensors(checkpoint / OPTIMIZER, _WITHOUT)
    shapes = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    saved = {key.rpartition("/")[0]: value.shape for key, value in tensors.items() if value.ndim}
    for name in {**shapes, **saved}:
        if saved.get(name) != shapes.get(name):
            raise UserError(
                f"the optimizer's state in {checkpoint} does not fit this run ({name}): {_WITHOUT}"
            )
    load_named_state(model, optimizer, tensors)


class DamagedError(Exception):
    """A checkpoint that cannot be used; an older one may do."""

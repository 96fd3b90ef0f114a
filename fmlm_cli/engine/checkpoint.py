"""Checkpoints: everything a run needs to go on, written whole or not at all.

checkpoints/step-1000/
  ...                      the weights, as the recipe saves them (a Hugging Face folder)
  optimizer.safetensors    the optimizer's state, by parameter name; or, of a sharded run,
  optimizer/part-00000...  a file of each process's part of it
  state.json               step, running sums, what the run was, facts for a run that goes on, a hash of
                           every file and of itself; written last
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fmlm_cli import storage
from fmlm_cli.engine.optimizer import live_state, load_named_state, named_state
from fmlm_cli.engine.ranks.protocol import OneProcess, Ranks
from fmlm_cli.engine.saving.background import Background
from fmlm_cli.engine.saving.host_copy import HostCopy, bytes_of
from fmlm_cli.engine.saving.moments import OPTIMIZER, is_of_optimizer, read_moments
from fmlm_cli.engine.saving.together import SAME_FOLDER, verify, write_together
from fmlm_cli.engine.saving.whole_copy import WholeCopy
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import UserError
from fmlm_cli.tensors import not_finite

STATE = storage.STATE

_ANOTHER = "give another checkpoint of its run, or remove this one"
_WITHOUT = "set optimizer.carry_over=false"

_PAYS_FROM = 16 << 20  # bytes; of less only flushing takes time, and hardly a step would go on meanwhile
_CAUTIOUS_RATE = 50e6  # bytes a second, written and read back: a disk on a busy network


@dataclass(frozen=True)
class TrainState:
    """Where a run stands after `step` steps. Sums since the last training record are carried over.

    `skipped`, `skipped_in_a_row`: steps that were not finite. `recent_losses`, `recent_norms`: of the latest
    steps after the warm-up, by which spikes are told. `loss_scale`, `good_steps`: those of float16.
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
    skipped: int = 0
    skipped_in_a_row: int = 0
    recent_losses: tuple[float, ...] = ()
    recent_norms: tuple[float, ...] = ()
    loss_scale: float = 0.0
    good_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("recent_losses", "recent_norms"):  # JSON has no tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))


class _Saving:
    """How a run's checkpoints are being written.

    `longest`: seconds that one took; `guess`: what is said before the first.
    """

    def __init__(self) -> None:
        self.background = Background()
        self.copy: HostCopy | None = None
        self.longest: float | None = None
        self.guess: float | None = None


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run. `identity` says what the run is; a checkpoint of another one is refused.

    `save_model`: writes a model, the one that is trained or a copy, into a folder. `facts`: plain values to
    keep beside the state, for whoever goes on from a checkpoint in another run. `keep`: how many of the
    newest are left; `stays(step)`: whether there is one of this step, which is left whatever comes after it.
    `takes_over`: whether to go on from a state with its facts, whose identity is the same or not.
    `background`: whether a thread writes a copy while training goes on; auto: where that pays.
    `on_failure`: who is told of a checkpoint that could not be written, which otherwise is raised.
    `whole`: of a model that `ranks` hold in parts, each of whom then writes its own; the weights are gathered
    in the writer's memory, and are there as those of any model.
    """

    root: Path
    keep: int
    identity: str
    save_model: Callable[[Any, Path], None]
    load_model: Callable[[Path], None]
    facts: Mapping[str, Any] = field(default_factory=dict)
    stays: Callable[[int], bool] = lambda step: False
    takes_over: Callable[[TrainState, Mapping[str, Any], bool], bool] = lambda state, facts, same: same
    background: bool | Literal["auto"] = False
    on_failure: Callable[[UserError], None] | None = None
    ranks: Ranks = field(default_factory=OneProcess)
    whole: WholeCopy[Any] | None = None
    _saving: _Saving = field(default_factory=_Saving, init=False, repr=False, compare=False)

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: TrainState,
        *,
        after: Callable[[], None] = lambda: None,
        last: bool = False,
    ) -> Path:
        """Write step-N, read it back, then remove the older ones that are not to be kept.

        What a thread writes may not be there yet when this returns: `look` and `settle` say whether it is.
        `after`: has the disk hold what the checkpoint depends on. `last`: training ends here; the checkpoint
        is there when this returns, and if it cannot be written that is raised.
        Raises `DivergedError` for weights that nothing can go on from, and `UserError` for what the disk does
        not take or does not give back.
        """
        self.settle()
        began = time.monotonic()
        try:
            if self.whole is not None:
                self._write_together(self.whole, model, live_state(model, optimizer), state, after)
                self._take_time(began)
                return self.folder(state.step)
            after()
            if not last and self._is_written_in_background(model, optimizer):
                copy = self._saving.copy = self._saving.copy or HostCopy(model)
                copied, moments = copy.take(model, optimizer)
                self._saving.background.begin(lambda: self._write(copied, moments, state, began))
            else:
                self._write(model, named_state(model, optimizer), state, began)
        except UserError as error:
            if last and not isinstance(error, DivergedError):
                raise type(error)(f"{error}; then --resume goes on from {self._newest}") from error
            self._fail(error)
        return self.folder(state.step)

    def look(self) -> None:
        """Raise, or tell, if writing has failed in the meantime; nothing is waited for."""
        error = self._saving.background.take_error()
        if error is not None:
            self._fail(error)

    def settle(self) -> None:
        """Wait until nothing is being written, and `look`."""
        self._saving.background.wait()
        self.look()

    @contextlib.contextmanager
    def settled(self) -> Iterator[None]:
        """Leave only when nothing is being written, whatever the reason."""
        try:
            yield
        except BaseException:
            self._saving.background.wait()
            raise
        self.settle()

    def seconds_to_save(self, model: nn.Module) -> float:
        """What writing a checkpoint took at most so far, and waiting for another; a cautious guess before."""
        saving = self._saving
        if saving.longest is not None:
            return saving.longest * (1 if self.background is False else 2)
        if saving.guess is None:  # the optimizer may have no state yet, which is two moments as a rule
            sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in model.parameters()]
            saving.guess = sum(size * (3 if trained else 1) for size, trained in sizes) / _CAUTIOUS_RATE
        return saving.guess

    def _is_written_in_background(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
        if self.background == "auto":
            return bytes_of(model, optimizer) >= _PAYS_FROM
        return self.background

    @property
    def _newest(self) -> str:
        kept = self.all()
        return str(kept[-1][1]) if kept else "the start"

    def _fail(self, error: BaseException) -> None:
        if self.on_failure is None or not isinstance(error, UserError) or isinstance(error, DivergedError):
            raise error
        self.on_failure(error)

    def _write(
        self, model: nn.Module, moments: Mapping[str, Tensor], state: TrainState, began: float
    ) -> None:
        """Write a checkpoint, and verify it before it takes its name; `moments`: the optimizer's state."""
        with storage.complete_folder(self.folder(state.step)) as folder:
            self._write_model(model, state, folder)
            save_file(dict(moments), folder / OPTIMIZER)
            self._seal(folder, state, {})
        self._remove_older()
        self._take_time(began)

    def _write_together(
        self,
        whole: WholeCopy[Any],
        model: nn.Module,
        moments: Mapping[str, Tensor],
        state: TrainState,
        after: Callable[[], None],
    ) -> None:
        """The same by all processes."""
        plain = whole.take(model, keeps=self.ranks.is_writer)

        def begin(folder: Path) -> None:
            assert plain is not None
            after()
            self._write_model(plain, state, folder)

        write_together(
            self.folder(state.step),
            moments,
            self.ranks,
            begin=begin,
            seal=lambda folder, hashes: self._seal(folder, state, hashes),
            then=self._remove_older,
        )

    def _write_model(self, model: nn.Module, state: TrainState, folder: Path) -> None:
        if name := not_finite(dict(model.named_parameters())):
            raise DivergedError(f"{name} is not finite (NaN or infinity) after step {state.step}")
        self.save_model(model, folder)

    def _seal(self, folder: Path, state: TrainState, verified: Mapping[str, str]) -> None:
        """Write what makes a folder a checkpoint; `verified`: hashes of files that others have written."""
        own = storage.hashes_while_flushed(folder, but={Path(name).name for name in verified})
        files = {**own, **verified}
        content = {"state": asdict(state), "identity": self.identity, "facts": self.facts, "files": files}
        storage.write_sealed(folder / STATE, content)
        verify(self.folder(state.step), folder, {**own, STATE: storage.sha256_of_file(folder / STATE)})

    def _remove_older(self) -> None:
        for old in [path for step, path in self.all() if not self.stays(step)][: -self.keep]:
            storage.remove(old)

    def _take_time(self, began: float) -> None:
        self._saving.longest = max(self._saving.longest or 0.0, time.monotonic() - began)

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

    def load(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainState:
        """Load the checkpoint of a step, which another process has restored; its state.

        Raises `UserError` where that is not what this process finds.
        """
        try:
            return self._load(self.folder(step), model, optimizer, lambda state: None)
        except DamagedError as error:
            raise UserError(
                f"{error}, as this process sees it, and the first one of the run does not: {SAME_FOLDER}"
            ) from None

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
        if not self.takes_over(state, saved["facts"], saved["identity"] == self.identity):
            raise UserError(
                f"{path} belongs to another run: its data or settings differ; {begin_again(self.root)}"
            )
        if against := objection(state):
            raise DamagedError(against)
        optimizer_state = read_moments(path, model, begin_again(self.root))
        unknown = {key.rpartition("/")[0] for key in optimizer_state} - dict(model.named_parameters()).keys()
        if unknown:  # as of a version of fmlm that named them otherwise
            raise UserError(
                f"the optimizer's state in {path} is of a model with other parameters ({min(unknown)}); "
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
    files = read_state(checkpoint)["files"].items()
    of_model = {name: sha256 for name, sha256 in files if not is_of_optimizer(name)}
    if damage := storage.damage_of(checkpoint, of_model):
        raise UserError(f"{damage}: {_ANOTHER}")


def check_optimizer(checkpoint: Path) -> None:
    """Refuse a checkpoint whose state of the optimizer is not what its run wrote."""
    files = read_state(checkpoint)["files"].items()
    if damage := storage.damage_of(checkpoint, {n: sha256 for n, sha256 in files if is_of_optimizer(n)}):
        raise UserError(f"{damage}: {_WITHOUT}")


def carry_over(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give an optimizer the state of another run's. Raises `UserError` where its parameters are not these."""
    tensors = read_moments(checkpoint, model, _WITHOUT)
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

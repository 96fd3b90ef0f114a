"""A run as it is found: how far it has come, and what it was set to; whatever is damaged is said, not raised.

Of metrics.jsonl only those lines are parsed that are needed, so that hundreds of runs are read in a second.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, flat, own_yaml
from fmlm_cli.engine.records import FAILED, is_record
from fmlm_cli.errors import UserError

State = Literal["finished", "running", "stopped", "failed", "not begun", "damaged"]

_DEFAULTS = flat(PretrainSettings().model_dump(mode="json"))


@dataclass(frozen=True)
class Recorded:
    """What metrics.jsonl says. `training`, `remark`: the last of their records, or {}."""

    evaluations: Sequence[Mapping[str, Any]] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    remark: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunReport:
    """A run. `problem`: why it failed, or what of it cannot be read; "" where there is nothing to say.

    `step`, `total_steps`: None where they are not known. `evaluation`: the name of the held-out text whose
    losses, the latest and the lowest, these are. `seconds`: of training. `changed`: when its records were
    written to, in seconds since 1970. `settings`: flat, by dotted name.
    """

    path: str
    state: State
    problem: str
    step: int | None
    total_steps: int | None
    evaluation: str
    last_loss: float | None
    best_loss: float | None
    tokens: int | None
    seconds: float | None
    changed: float | None
    settings: Mapping[str, Any]

    @property
    def state_in_words(self) -> str:
        """The state, and how far a run has come that is not finished."""
        if self.state == "finished" or self.step is None:
            return self.state
        of = f" of {self.total_steps:,}" if self.total_steps else ""
        return f"{self.state} at step {self.step:,}{of}"


def read_run(folder: Path) -> RunReport:
    """What a run's folder holds. Raises nothing that a damaged file can cause."""
    run = storage.RunDirectory(folder)
    problems: list[str] = []
    settings, progress = _DEFAULTS, Recorded()
    try:
        settings = read_settings(run)
    except UserError as error:
        problems.append(str(error))
    try:
        progress = read_progress(run.metrics)
    except UserError as error:
        problems.append(str(error))
    steps = [record["step"] for record in (progress.training, *progress.evaluations[-1:]) if record]
    name = str(progress.evaluations[0].get("evaluation", "")) if progress.evaluations else ""
    losses = [r["eval_loss"] for r in progress.evaluations if r.get("evaluation", "") == name]
    state = "damaged" if problems else _state_of(run, progress, begun=bool(steps))
    if state == "failed":
        problems.append(str(progress.remark.get("error", "")))
    return RunReport(
        path=str(folder),
        state=state,
        problem="; ".join(problems),
        step=max(steps, default=None),
        total_steps=_total_steps(run, settings),
        evaluation=name,
        last_loss=losses[-1] if losses else None,
        best_loss=min(filter(math.isfinite, losses), default=None),
        tokens=progress.training.get("tokens"),
        seconds=progress.training.get("seconds"),
        changed=_changed(run),
        settings=settings,
    )


def read_settings(run: storage.RunDirectory) -> dict[str, Any]:
    """A run's settings, flat; those that an older fmlm did not have at their defaults.

    The name of a preset, which has a default, counts only where no checkpoint gives the model.
    """
    tree = own_yaml(run.config)
    if not isinstance(tree, dict) or not _is_plain(tree, set()):
        raise UserError(f"{run.config}: no settings; the file is damaged")
    settings = {**_DEFAULTS, **{str(name): value for name, value in flat(tree).items()}}
    return settings if settings.get("model.checkpoint") is None else {**settings, "model.name": None}


def _is_plain(value: Any, seen: set[int]) -> bool:
    """Whether nothing in a value is there twice: by aliases, a few lines of YAML could be without end."""
    if not isinstance(value, dict | list):
        return True
    if id(value) in seen:
        return False
    seen.add(id(value))
    return all(_is_plain(part, seen) for part in (value.values() if isinstance(value, dict) else value))


def read_progress(metrics: Path) -> Recorded:
    """What a file of records says; nothing where it is not there. A last line that is cut short is left out.

    Raises `UserError` for a line that is needed and damaged.
    """
    try:
        content = metrics.read_bytes()
    except FileNotFoundError:
        return Recorded()
    except OSError as error:
        raise UserError(f"{metrics}: cannot read it ({error.strerror})") from None
    content = content[: content.rfind(b"\n") + 1]
    evaluations, place = [], content.find(b'"eval_loss"')
    while place >= 0:
        end = content.index(b"\n", place)
        evaluations.append(_parsed(content, end, metrics))
        place = content.find(b'"eval_loss"', end)
    return Recorded(evaluations, *_last_ones(content, metrics))


def _last_ones(content: bytes, metrics: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The last training record and, if it is the last line of all, a remark."""
    end = len(content) - 1
    remark: Mapping[str, Any] = {}
    while end > 0:
        record = _parsed(content, end, metrics)
        if end == len(content) - 1 and "remark" in record:
            remark = record
        if "loss" in record and "remark" not in record:
            return record, remark
        end = content.rfind(b"\n", 0, end)
    return {}, remark


def _parsed(content: bytes, end: int, metrics: Path) -> dict[str, Any]:
    """The record of the line that ends at a place."""
    begin = content.rfind(b"\n", 0, end) + 1
    try:
        record = json.loads(content[begin:end])
        if is_record(record):
            return dict(record)
    except (ValueError, RecursionError):
        pass
    line = content.count(b"\n", 0, end) + 1
    raise UserError(f"{metrics}:{line}: no record of a step; the file is damaged")


def _state_of(run: storage.RunDirectory, progress: Recorded, *, begun: bool) -> State:
    if storage.worker_in(run.root) is not None:
        return "running"
    if run.is_finished:
        return "finished"
    if progress.remark.get("remark") == FAILED:
        return "failed"
    return "stopped" if begun else "not begun"


def _total_steps(run: storage.RunDirectory, settings: Mapping[str, Any]) -> int | None:
    """Steps of the whole run: set, or as its newest checkpoint has them."""
    if isinstance(settings["budget.steps"], int):
        return settings["budget.steps"]
    newest = max(run.checkpoints.glob(f"step-*/{storage.STATE}"), key=_number_of, default=None)
    try:
        facts = json.loads(newest.read_bytes())["facts"] if newest else {}
        return int(facts["total_steps"])
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _number_of(state: Path) -> int:
    number = state.parent.name.removeprefix("step-")
    return int(number) if number.isdecimal() else -1


def _changed(run: storage.RunDirectory) -> float | None:
    for path in (run.metrics, run.config):
        try:
            return path.stat().st_mtime
        except OSError:
            continue
    return None

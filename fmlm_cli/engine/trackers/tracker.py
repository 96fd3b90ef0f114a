"""What every tracker does, what it is told of a run, and what it calls the figures of a record."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

SYSTEM = ("tokens_per_second", "peak_share", "data_wait_share", "memory_gib")  # fields of training records

Values = dict[str, float | str]


@dataclass(frozen=True)
class RunFacts:
    """What a tracker is told of a run.

    `root`: the run's folder. `project`: under which trackers that have projects list it. `config`:
    hyper-parameters and the system's facts, flat, by dotted name.
    """

    root: Path
    project: str
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.root.resolve().name


class Tracker(Protocol):
    """A tracker, from a run's beginning, or from where it is resumed, to its end or interruption."""

    def begin(self, step: int, evaluated: int) -> tuple[int, int]:
        """A run begins, or goes on after `step`, its latest evaluation that of step `evaluated`.

        Up to which step the tracker then has the training records, and the evaluations: -1 where it has none.
        """
        ...

    def log(self, step: int, values: Values) -> None:
        """Take the figures of a record."""
        ...

    def finish(self, *, complete: bool) -> str:
        """Have all of it stored; where, in words. `complete`: whether the run came to its end."""
        ...


def is_evaluation(record: Mapping[str, Any]) -> bool:
    """Whether a record of metrics.jsonl is of held-out text."""
    return "eval_loss" in record


def values_of(record: Mapping[str, Any]) -> Values:
    """A record's figures by the names that trackers show: train/loss, eval/domain/loss, system/memory_gib."""
    fields = {name: value for name, value in record.items() if name not in ("step", "evaluation")}
    if "remark" in fields:
        rest = {name: value for name, value in fields.items() if name != "remark"}
        return {
            "remark": f"{fields['remark']} {json.dumps(rest, ensure_ascii=False) if rest else ''}".strip()
        }
    if is_evaluation(record):
        name = record.get("evaluation", "")
        group = f"eval/{name}" if name else "eval"
        return {f"{group}/{field.removeprefix('eval_')}": value for field, value in fields.items()}
    return {f"{'system' if field in SYSTEM else 'train'}/{field}": value for field, value in fields.items()}

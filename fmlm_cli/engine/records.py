"""Records of a run: what training and evaluation found, written once to each sink.

metrics.jsonl is one of them: one JSON object a line, appended and flushed, cut back to a checkpoint when a
run resumes.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from fmlm_cli import storage
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Evaluated, Trained

Record = Trained | Evaluated


class Sink(Protocol):
    """Where records go."""

    def rewind(self, step: int, evaluated: int) -> None:
        """Begin: a run goes on after `step`, and records of later steps are void; at 0 it has none.

        `evaluated`: the step of its latest evaluation; that of `step` may be still to be done.
        """
        ...

    def write(self, record: Record) -> None:
        """Take the next record."""
        ...


class Teller:
    """The sink that tells whoever listens, such as the console; what was told cannot be taken back."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit

    def rewind(self, step: int, evaluated: int) -> None:
        """Nothing is told again."""

    def write(self, record: Record) -> None:
        """Tell of a record."""
        self._emit(record)


class MetricsLog:
    """The sink that appends records to a file. `records`: those that `rewind` left, and all since."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: list[dict[str, Any]] = []

    def rewind(self, step: int, evaluated: int) -> None:
        """Cut the file back to the records up to `step` and `evaluated`; at 0 it begins empty."""
        # Of a run that begins anew nothing is kept, so a file that is damaged is no obstacle.
        written = read_metrics(self._path) if step and self._path.exists() else []
        self.records = [r for r in written if r["step"] <= (evaluated if "evaluation" in r else step)]
        storage.write_text(self._path, "".join(_line(record) for record in self.records))

    def write(self, record: Record) -> None:
        """Append one record; it is in the file when this returns."""
        self.records.append(dict(record.record))
        with storage.clear_disk_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(_line(record.record))

    @property
    def sha256(self) -> str:
        """The hash of all records, which a checkpoint keeps."""
        return storage.sha256_of_json(self.records)

    def check(self, sha256: str) -> None:
        """Refuse to go on after records that are not those of which a checkpoint kept the hash."""
        if self.sha256 != sha256:
            raise UserError(
                f"{self._path} has changed since the checkpoint was written, and results are made of it: "
                "put it back as it was, or pass --overwrite to start again"
            )


def metrics_log(sinks: Iterable[Sink]) -> MetricsLog | None:
    """The metrics log among some sinks."""
    return next((sink for sink in sinks if isinstance(sink, MetricsLog)), None)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a metrics file. A last line that a crash cut short is left out.

    Raises `UserError` for any other line that is no record.
    """
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")  # str.splitlines would cut at U+2028 too
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:  # bad JSON, or UTF-8 cut in the middle of a character
            if number == len(lines):
                break
            raise UserError(f"{path}:{number}: not valid JSON; the file is damaged") from None
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise UserError(f"{path}:{number}: no record of a step; the file is damaged")
        records.append(record)
    return records


def evaluations_of(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The evaluation records among all, in order, by the name of what was evaluated on; "" without one."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if "eval_loss" in record:
            by_name.setdefault(record.get("evaluation", ""), []).append(record)
    return by_name

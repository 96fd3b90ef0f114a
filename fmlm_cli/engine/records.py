"""Records of a run: what training and evaluation found, written once to each sink.

metrics.jsonl is one of them: one JSON object a line, appended and flushed, cut back to a checkpoint when a
run resumes.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from fmlm_cli import storage
from fmlm_cli.errors import OutOfSpaceError, UserError
from fmlm_cli.events import Emit, Evaluated, Remarked, Trained

Record = Trained | Evaluated | Remarked

FAILED = "failed"  # the remark that a run ends with by an error
# Numbers in a record, as far as they are read again; of these the counts are finite and below 2^63.
_COUNTS = ("step", "tokens", "seconds")
_VALUES = ("loss", "eval_loss", "learning_rate")
_MOST = 1 << 63


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
    """The sink that appends records to a file. `records`: those that `rewind` left, and all since.

    `patient`: what a full disk does not take is kept and tried again with the next record, until `sync`
    insists. A checkpoint that is being written may fill the disk, and frees it when it is given up.
    """

    def __init__(self, path: Path, *, patient: bool = False) -> None:
        self._path, self._patient = path, patient
        self._waiting = b""  # whole lines that the disk has not taken
        self.records: list[dict[str, Any]] = []

    def rewind(self, step: int, evaluated: int) -> None:
        """Cut the file back to the records up to `step` and `evaluated`; at 0 it begins empty."""
        self.records = self._up_to(step, evaluated)
        storage.write_text(self._path, "".join(_line(record) for record in self.records))

    def _up_to(self, step: int, evaluated: int) -> list[dict[str, Any]]:
        # Of a run that begins anew nothing is kept, so a file that is damaged is no obstacle.
        written = read_metrics(self._path) if step and self._path.exists() else []
        return _up_to(written, step, evaluated)

    def write(self, record: Record) -> None:
        """Append one record; it is in the file when this returns, or waits with others if that is full."""
        self.records.append(dict(record.record))
        self._waiting += _line(record.record).encode()
        try:
            self._append()
        except OutOfSpaceError:
            if not self._patient:
                raise

    def _append(self) -> None:
        """Append the lines that wait, all of them or none."""
        with storage.clear_disk_errors(self._path), self._path.open("ab") as file:
            end = file.tell()
            try:
                file.write(self._waiting)
                file.flush()
            except OSError:
                with contextlib.suppress(OSError):  # of what is still in the buffer
                    file.close()
                os.truncate(self._path, end)
                raise
        self._waiting = b""

    def sha256(self, step: int, evaluated: int) -> str:
        """The hash of the records up to a step, which its checkpoint keeps."""
        return storage.sha256_of_json(_up_to(self.records, step, evaluated))

    def sync(self) -> None:
        """Have the disk hold all records before it holds what depends on them."""
        self._append()
        with storage.clear_disk_errors(self._path), self._path.open("rb") as file:
            os.fsync(file.fileno())

    def change_since(self, step: int, evaluated: int, sha256: str) -> str | None:
        """Whether the records up to a checkpoint are not those of which it kept the hash, in words.

        The file stays as it is.
        """
        try:
            found = storage.sha256_of_json(self._up_to(step, evaluated))
        except UserError as error:
            return str(error)
        if found == sha256:
            return None
        return f"{self._path} has changed since the checkpoint of step {step} was written"


def metrics_log(sinks: Iterable[Sink]) -> MetricsLog | None:
    """The metrics log among some sinks."""
    return next((sink for sink in sinks if isinstance(sink, MetricsLog)), None)


def _up_to(records: Iterable[dict[str, Any]], step: int, evaluated: int) -> list[dict[str, Any]]:
    return [r for r in records if r["step"] <= (evaluated if "evaluation" in r else step)]


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
        except (ValueError, RecursionError):  # bad JSON, or UTF-8 cut in the middle of a character
            if number == len(lines):
                break
            raise UserError(f"{path}:{number}: not valid JSON; the file is damaged") from None
        if not is_record(record):
            raise UserError(f"{path}:{number}: no record of a step; the file is damaged")
        records.append(record)
    return records


def is_record(value: Any) -> bool:
    """Whether a line's value is of a step, and has numbers and a name where these are read again."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("step"), int)
        and all(_is_number(value.get(name, 0), least=0) for name in _COUNTS)
        and all(isinstance(value.get(name), float) or _is_number(value.get(name, 0)) for name in _VALUES)
        and isinstance(value.get("evaluation", ""), str)
    )


def _is_number(value: Any, least: int = -_MOST) -> bool:
    return isinstance(value, int | float) and least <= value < _MOST


def evaluations_of(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The evaluation records among all, in order, by the name of what was evaluated on; "" without one."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if "eval_loss" in record:
            by_name.setdefault(record.get("evaluation", ""), []).append(record)
    return by_name

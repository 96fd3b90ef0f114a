"""metrics.jsonl: one JSON object a line, appended and flushed, cut back to a checkpoint when a run resumes."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fmlm_cli import storage
from fmlm_cli.errors import UserError


class MetricsLog:
    """Appends records to a file and keeps what was read or written for the plots at the end."""

    def __init__(self, path: Path, *, keep_through: int = -1) -> None:
        """Records of steps up to `keep_through` are kept (a resumed run), later ones removed."""
        self._path = path
        # Of a run that starts anew nothing is kept, so a file that is damaged is no obstacle.
        there = read_metrics(path) if keep_through >= 0 and path.exists() else []
        self.records = [record for record in there if record["step"] <= keep_through]
        storage.write_text(path, "".join(_line(record) for record in self.records))

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; it is in the file when this returns."""
        self.records.append(dict(record))
        with storage.clear_disk_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(_line(record))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a metrics file. A last line that a crash cut short is left out."""
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")  # str.splitlines would cut at U+2028 too
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError:  # bad JSON, or UTF-8 cut in the middle of a character
            if number == len(lines):
                break
            raise UserError(f"{path}:{number}: not valid JSON; the file is damaged") from None
    return records


def evaluations_of(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The evaluation records among all, by the name of what was evaluated on, in order; "" where it has none."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if "eval_loss" in record:
            found.setdefault(record.get("evaluation", ""), []).append(record)
    return found

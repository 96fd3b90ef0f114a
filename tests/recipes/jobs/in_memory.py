"""Jobs whose records are kept in memory, where tests see them."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmlm_cli.recipes.jobs.ledger import Job, Ledger
from fmlm_cli.recipes.jobs.records import Kept


@dataclass
class Disk:
    """What all processes see: by job what is kept of it, who is at work, and in what order jobs were done."""

    kept: dict[str, Kept[Any]] = field(default_factory=dict)
    owned: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)


@dataclass
class MemoryRecord:
    """A job's part of the disk."""

    disk: Disk
    name: str

    @property
    def place(self) -> Path:
        return Path("out") / self.name

    def read(self) -> Kept[Any] | None:
        return self.disk.kept.get(self.name)

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        assert self.name not in self.disk.owned
        self.disk.owned.add(self.name)
        try:
            yield
        finally:
            self.disk.owned.remove(self.name)

    def begin(self, made_with: Mapping[str, Any]) -> None:
        assert self.name in self.disk.owned
        self.disk.kept[self.name] = Kept(made_with, None)

    def finish(self, made_with: Mapping[str, Any], result: Any) -> None:
        assert self.name in self.disk.owned
        self.disk.kept[self.name] = Kept(made_with, result)
        self.disk.done.append(self.name)


def job(name: str, **facts: Any) -> Job:
    return Job(**{"name": name, "label": "arm", "title": f"{name} at work", **facts})


def ledger_of(
    disk: Disk, groups: list[list[Job]], settings: Mapping[str, Any] | None = None, **how: Any
) -> Ledger[Job, Any]:
    """A process's ledger: `settings` decide, beside a job's name."""
    decides = dict(settings or {})
    return Ledger(
        groups,
        lambda job: {**decides, "name": job.name},
        lambda job: MemoryRecord(disk, job.name),
        noun="jobs",
        **how,
    )

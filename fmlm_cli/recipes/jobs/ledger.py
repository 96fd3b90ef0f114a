"""Jobs, and the ledger of them: what decides each one's result, and what the disk says of it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fmlm_cli.config import differing
from fmlm_cli.errors import OtherSettingError, UserError
from fmlm_cli.recipes.jobs.records import Record


@dataclass(frozen=True, kw_only=True)
class Job:
    """A piece of work with a result of its own.

    `name`: its own, and where it lies below the folder of all. `label`: what it is of, in words; `title`: in
    words too, but its own. `tabled`: whether its outcome stands in the table of labels by seeds. `pace`: jobs
    of the same pace take time in proportion to their `cost`. `may_differ`: names of what decides its result
    that an earlier call may have had otherwise; the job is then done again.
    """

    name: str
    label: str
    title: str
    seed: int = 0
    tabled: bool = True
    pace: str = ""
    cost: float = 1.0
    may_differ: tuple[str, ...] = ()


J = TypeVar("J", bound=Job)
R = TypeVar("R")


class Ledger(Generic[J, R]):
    """What of some jobs is done, whoever did it, and who may do the rest.

    `groups`: of jobs that one process has to do in turn. `decides`: all that decides a job's result, flat, in
    plain values of JSON. `record`: where a job's record is kept. `noun`: what the jobs are called together.
    `by_hash`: how to say that something differs which is known by its hash, by the first part of its name.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[J]],
        decides: Callable[[J], dict[str, Any]],
        record: Callable[[J], Record[R]],
        *,
        noun: str,
        by_hash: Mapping[str, str] | None = None,
    ) -> None:
        self.groups, self.noun = groups, noun
        self._decide, self._record, self._by_hash = decides, record, by_hash or {}
        self._decided: dict[str, dict[str, Any]] = {}

    @property
    def jobs(self) -> list[J]:
        """All jobs, in the order in which one process alone does them."""
        return [job for group in self.groups for job in group]

    @property
    def unfinished(self) -> list[J]:
        """The jobs that are left to do."""
        return [job for job in self.jobs if self.result(job) is None]

    def decides(self, job: J) -> dict[str, Any]:
        """All that decides what a job finds."""
        if job.name not in self._decided:
            self._decided[job.name] = self._decide(job)
        return self._decided[job.name]

    def result(self, job: J) -> R | None:
        """What a finished job found; None for one that is not finished, or was made with other settings."""
        kept = self._record(job).read()
        if kept is None or kept.result is None or kept.made_with != self.decides(job):
            return None
        return kept.result

    def check(self, job: J) -> None:
        """Refuse what a call with other settings, data or weights left in a job's place, by its name."""
        record = self._record(job)
        kept = record.read()
        if kept is None:
            return
        before, now = kept.made_with, self.decides(job)
        for name in differing(before, now):
            if name not in job.may_differ:
                if other := self._by_hash.get(name.partition(".")[0]):
                    raise UserError(
                        f"{record.place} was made {other}: go back to that, or choose another --out"
                    )
                was, wanted = str(before.get(name)), str(now.get(name))
                raise OtherSettingError(f"{record.place} was made", name, was, wanted)

    def check_all(self) -> None:
        """Refuse what another call has left in any job's place."""
        for job in self.jobs:
            self.check(job)

    @contextlib.contextmanager
    def claim(self, job: J) -> Iterator[None]:
        """Be the one who does a job, and write down what it is made with; `UserError` if it has an owner."""
        record = self._record(job)
        with record.owned():
            record.begin(self.decides(job))
            yield

    def enter(self, job: J, result: R) -> None:
        """Write down what a claimed job has found: it is finished."""
        self._record(job).finish(self.decides(job), result)

    def share(self, text: str | None) -> list[J]:
        """The jobs of the share `i/n`, those of every n-th group from the i-th on; without a text all."""
        number, shares = parse_share(text) if text is not None else (1, 1)
        return [job for group in self.groups[number - 1 :: shares] for job in group]


def parse_share(text: str) -> tuple[int, int]:
    """`i/n` as numbers; `UserError` for any other text."""
    number, slash, shares = text.partition("/")
    if not (slash and number.isdecimal() and shares.isdecimal() and 1 <= int(number) <= int(shares)):
        raise UserError(f"--cell {text}: write it as i/n, i from 1 to n, such as 1/4")
    return int(number), int(shares)

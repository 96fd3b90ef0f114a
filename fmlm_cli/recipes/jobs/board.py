"""A table of what jobs have found, done by this process or others, and how long the rest will take."""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from fmlm_cli.events import Caution, Emit, Event, Progress, Remarked, Scoreboard, Trained
from fmlm_cli.recipes.jobs.ledger import Job, Ledger

J = TypeVar("J", bound=Job)
R = TypeVar("R")


@dataclass(frozen=True)
class Outcome:
    """What a job has found, as a `text` of the table and in `words`, and the `seconds` that it took."""

    text: str
    words: str
    seconds: float


class Board(Generic[J, R]):
    """Tells of the jobs of a ledger, which `processes` of them share.

    `title`: what the texts of the table are. `outcome`: what a job's result is in words. `said`: codes of
    cautions that have been said of all jobs together.
    """

    def __init__(
        self,
        title: str,
        ledger: Ledger[J, R],
        outcome: Callable[[J, R], Outcome],
        emit: Emit,
        processes: int = 1,
        said: Collection[str] = (),
    ) -> None:
        self.title, self.ledger, self.emit, self.processes = title, ledger, emit, processes
        self._outcome, self._said = outcome, said
        self.outcomes: dict[str, Outcome] = {}
        self.at_work: J | None = None
        self.begun, self.share = 0.0, 0.0  # when the job at work was, and how much of it is done
        self._told_of_others = False
        self._cautions: set[Caution] = set()
        for job in ledger.jobs:
            self._take(job)

    @property
    def unfinished(self) -> list[J]:
        """The jobs without an outcome, as far as this board has heard."""
        return [job for job in self.ledger.jobs if job.name not in self.outcomes]

    def begin(self, job: J) -> None:
        """A job is at work."""
        self.at_work, self.begun, self.share = job, time.monotonic(), 0.0

    def hear(self, event: Event) -> None:
        """What the job at work says: how far it has come is shown, its cautions are passed on, each once."""
        if isinstance(event, Trained):
            step, total = int(event.record["step"]), event.total_steps
            self.advance(step / total, f"step {step:,}/{total:,}, loss {event.record['loss']:.3f}")
        elif isinstance(event, Progress):
            self.advance(event.done / event.total, f"{event.done:,.0f}/{event.total:,.0f} {event.unit}")
        elif isinstance(event, Scoreboard):
            self.advance(self.share, event.latest)
        elif isinstance(event, Remarked):
            assert self.at_work is not None
            self.emit(Caution(f"{self.at_work.label}: {event.text}"))
        elif isinstance(event, Caution) and event.code not in self._said and event not in self._cautions:
            assert self.at_work is not None
            self._cautions.add(event)
            self.emit(Caution(f"{self.at_work.label}: {event.text}", event.code))

    def advance(self, share: float, how_far: str) -> None:
        """The job at work has come so far."""
        assert self.at_work is not None
        self.share = share
        self._tell(f"{self.at_work.title}: {how_far}", running=True)

    def end(self, job: J) -> None:
        """A job is finished."""
        self.at_work = None
        if self._take(job):
            self._tell_end(job)

    def look(self) -> None:
        """Tell of what other processes have finished since the last look, and that they are at work."""
        if self.unfinished and not self._told_of_others:
            self._told_of_others = True
            self._tell("processes at work, which tell of their steps in the folder logs", running=False)
        for job in self.unfinished:
            if self._take(job):
                self._tell_end(job)

    def seconds_left(self) -> float | None:
        """By the jobs that are done; those of paces of which nothing is known are not counted."""
        rates = dict(self._rates())
        timed = [job for job in self.unfinished if job.pace in rates]
        if self.unfinished and not timed:
            return None
        seconds = sum(job.cost * rates[job.pace] for job in timed)
        if self.at_work is not None and self.at_work.pace in rates:
            seconds -= self.share * self.at_work.cost * rates[self.at_work.pace]
        return max(seconds, 0.0) / self.processes

    def _rates(self) -> Iterator[tuple[str, float]]:
        """Seconds for a cost of 1, by pace; the job at work is asked where no other is done."""
        seconds, costs = defaultdict[str, float](float), defaultdict[str, float](float)
        for job in self.ledger.jobs:
            if job.name in self.outcomes:
                seconds[job.pace] += self.outcomes[job.name].seconds
                costs[job.pace] += job.cost
        at_work = self.at_work
        if at_work is not None and self.share and at_work.pace not in costs:
            seconds[at_work.pace] = time.monotonic() - self.begun
            costs[at_work.pace] = self.share * at_work.cost
        yield from ((pace, seconds[pace] / cost) for pace, cost in costs.items())

    def _take(self, job: J) -> bool:
        """Note a job's outcome; whether there is one."""
        result = self.ledger.result(job)
        if result is not None:
            self.outcomes[job.name] = self._outcome(job, result)
        return result is not None

    def _tell_end(self, job: J) -> None:
        self._tell(f"{job.title}: {self.outcomes[job.name].words}", running=False)

    def _tell(self, latest: str, *, running: bool) -> None:
        shown = [job for job in self.ledger.jobs if job.tabled]
        seeds = sorted({job.seed for job in shown})
        rows = {job.label: [""] * len(seeds) for job in shown}
        for job in shown:
            if job.name in self.outcomes:
                rows[job.label][seeds.index(job.seed)] = self.outcomes[job.name].text
        columns, done, total = [f"seed {seed}" for seed in seeds], len(self.outcomes), len(self.ledger.jobs)
        self.emit(Scoreboard(self.title, columns, rows, latest, running, done, total, self.seconds_left()))

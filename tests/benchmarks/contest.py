"""Who runs against whom, for how long, and in which order: turn about, within a budget of seconds."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Text = Literal["full", "real"]
LEAST = 15.0  # seconds: less than any process here needs to start and train


@dataclass(frozen=True)
class Workload:
    """What both sides train in a step: `rows` rows of `length` positions.

    `model`: a name among `material.model_configs`. `text`: full rows, or rows of one document each, of real
    lengths, that leaves the rest of its row empty.
    """

    model: str
    rows: int
    length: int
    text: Text = "full"


@dataclass(frozen=True)
class Pace:
    """Steps of warm-up that are not counted; then so many windows of so many steps, each of them timed."""

    warm_up: int
    windows: int
    steps: int

    @property
    def total(self) -> int:
        """Steps of a whole run."""
        return self.warm_up + self.windows * self.steps

    @property
    def marks(self) -> range:
        """The steps at whose ends windows begin and end."""
        return range(self.warm_up, self.total + 1, self.steps)


@dataclass(frozen=True)
class Fmlm:
    """`fmlm pretrain`. `settings`: given by --set; `bare`: no setting at all, so that defaults decide."""

    workload: Workload
    pace: Pace
    settings: tuple[str, ...] = ()
    bare: bool = False


@dataclass(frozen=True)
class Stock:
    """transformers' Trainer, as run_mlm.py uses it. `compiled`: with its `torch_compile`."""

    workload: Workload
    pace: Pace
    compiled: bool = False


Contestant = Fmlm | Stock


@dataclass(frozen=True)
class Line:
    """A line of the table. `name` is for --only, `title` for the reader."""

    name: str
    title: str
    ours: Fmlm
    theirs: Stock


@dataclass(frozen=True)
class Measured:
    """One run of a contestant.

    `windows`: (tokens, seconds) of each, padding not counted. `warm_up`: seconds of the steps before them,
    compiling included, without the process's own start; None where that is not known. `process`: seconds of
    the whole command. `memory`: GiB at its peak, resident on a CPU, allocated on a GPU; None where that is not
    known. `waited`: the share of time in which training waited for data, where it is told.
    """

    windows: tuple[tuple[int, float], ...]
    warm_up: float | None
    process: float
    memory: float | None
    waited: float | None = None

    @property
    def speeds(self) -> list[float]:
        """Tokens a second in each window."""
        return [tokens / seconds for tokens, seconds in self.windows]


class NotRunError(Exception):
    """A contestant left nothing to measure; says why."""


class Budget:
    """Seconds that may be spent from now on; None: as many as it takes."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = None if seconds is None else clock() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return float("inf") if self._end is None else self._end - self._clock()


@dataclass
class Outcome:
    """All that was measured: by contestant its runs by round; and by line's name why it has no figures."""

    runs: dict[Contestant, dict[int, Measured]] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)

    def rounds(self, line: Line) -> list[tuple[Measured, Measured]]:
        """Ours and theirs of each round in which both ran."""
        ours, theirs = self.runs.get(line.ours, {}), self.runs.get(line.theirs, {})
        return [(ours[number], theirs[number]) for number in sorted(ours.keys() & theirs.keys())]


def race(
    lines: Sequence[Line],
    rounds: int,
    measure: Callable[[Contestant, float], Measured],
    budget: Budget,
    tell: Callable[[Contestant, Measured], object] = lambda contestant, measured: None,
) -> Outcome:
    """Run every line once, the most important one first, then all of them again, while the budget lasts.

    `measure(contestant, seconds)` runs one within so many seconds or raises `NotRunError`. Who stands in several
    lines runs once a round. One that failed is not tried again, and nothing is begun that took longer than
    what is left.
    """
    outcome, failed = Outcome(), {}
    for number in range(rounds):
        for line in lines:
            for contestant in (line.ours, line.theirs):
                runs = outcome.runs.setdefault(contestant, {})
                if number in runs:
                    continue
                reason = failed.get(contestant) or _too_long(runs.values(), budget)
                if reason is None:
                    try:
                        runs[number] = measure(contestant, budget.left)
                    except NotRunError as error:
                        reason = failed[contestant] = str(error)
                    else:
                        tell(contestant, runs[number])
                        continue
                outcome.not_run.setdefault(line.name, reason)
                break  # one side alone compares nothing
    for line in lines:
        if outcome.rounds(line):
            outcome.not_run.pop(line.name, None)
    return outcome


def _too_long(runs: Iterable[Measured], budget: Budget) -> str | None:
    """Why there is no time for another run, if there is none."""
    needed = max((run.process for run in runs), default=LEAST)
    return "no time left" if budget.left < max(needed, LEAST) else None

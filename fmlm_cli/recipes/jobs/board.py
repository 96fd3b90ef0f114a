"""A table of what pieces of work have found, by this process or others, and how long the rest will take."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fmlm_cli.events import Emit, Event, Scoreboard, Trained


@dataclass(frozen=True)
class Outcome:
    """What a piece of work has found, as a `text` of the table and in `words`, and the `seconds` that it took."""

    text: str
    words: str
    seconds: float


@dataclass(frozen=True)
class Piece:
    """A piece of work. Those of a `kind` take time in proportion to their `cost`.

    `name`: its own. `row`: of the table, "" for none; the column is that of the seed. `read`: its outcome, once it is
    finished.
    """

    name: str
    title: str
    row: str
    seed: int
    read: Callable[[], Outcome | None]
    kind: str = ""
    cost: float = 1.0


class WorkBoard:
    """Tells of pieces of work, which `jobs` processes share. `title`: what the texts of the table are."""

    def __init__(self, title: str, pieces: Sequence[Piece], emit: Emit, jobs: int = 1) -> None:
        self.title, self.emit, self.jobs = title, emit, jobs
        self.pieces = {piece.name: piece for piece in pieces}
        self.outcomes: dict[str, Outcome] = {}
        self.at_work: Piece | None = None
        self.begun, self.share = 0.0, 0.0  # when the piece at work was, and how much of it is done
        self._told_of_others = False
        for piece in pieces:
            self._take(piece)

    @property
    def unfinished(self) -> list[Piece]:
        """The pieces that are left to do."""
        return [piece for name, piece in self.pieces.items() if name not in self.outcomes]

    def begin(self, name: str) -> None:
        """A piece is at work."""
        self.at_work, self.begun, self.share = self.pieces[name], time.monotonic(), 0.0

    def hear(self, event: Event) -> None:
        """What the piece at work says: its training records are told."""
        if isinstance(event, Trained):
            step, total = int(event.record["step"]), event.total_steps
            self.advance(step / total, f"step {step:,}/{total:,}, loss {event.record['loss']:.3f}")

    def advance(self, share: float, how_far: str) -> None:
        """The piece at work has come so far."""
        assert self.at_work is not None
        self.share = share
        self._tell(f"{self.at_work.title}: {how_far}", running=True)

    def end(self, name: str) -> None:
        """A piece is finished."""
        self.at_work = None
        if self._take(self.pieces[name]):
            self._tell_end(self.pieces[name])

    def look(self) -> None:
        """Tell of what other processes have finished since the last look, and that they are at work."""
        if self.unfinished and not self._told_of_others:
            self._told_of_others = True
            self._tell("processes at work, which tell of their steps in the folder logs", running=False)
        for piece in self.unfinished:
            if self._take(piece):
                self._tell_end(piece)

    def seconds_left(self) -> float | None:
        """By the pieces that are done; those of kinds of which nothing is known are not counted."""
        rates = dict(self._rates())
        known = [piece for piece in self.unfinished if piece.kind in rates]
        if self.unfinished and not known:
            return None
        left = sum(piece.cost * rates[piece.kind] for piece in known)
        if self.at_work is not None and self.at_work.kind in rates:
            left -= self.share * self.at_work.cost * rates[self.at_work.kind]
        return max(left, 0.0) / self.jobs

    def _rates(self) -> Iterator[tuple[str, float]]:
        """Seconds for a cost of 1, by kind; the piece at work is asked where no other is done."""
        seconds, costs = defaultdict[str, float](float), defaultdict[str, float](float)
        for name, outcome in self.outcomes.items():
            piece = self.pieces[name]
            seconds[piece.kind] += outcome.seconds
            costs[piece.kind] += piece.cost
        at_work = self.at_work
        if at_work is not None and self.share and at_work.kind not in costs:
            seconds[at_work.kind] = time.monotonic() - self.begun
            costs[at_work.kind] = self.share * at_work.cost
        yield from ((kind, seconds[kind] / cost) for kind, cost in costs.items())

    def _take(self, piece: Piece) -> bool:
        """Note a piece's outcome; whether there is one."""
        outcome = piece.read()
        if outcome is not None:
            self.outcomes[piece.name] = outcome
        return outcome is not None

    def _tell_end(self, piece: Piece) -> None:
        self._tell(f"{piece.title}: {self.outcomes[piece.name].words}", running=False)

    def _tell(self, latest: str, *, running: bool) -> None:
        shown = [piece for piece in self.pieces.values() if piece.row]
        seeds = sorted({piece.seed for piece in shown})
        rows = {piece.row: [""] * len(seeds) for piece in shown}
        for piece in shown:
            if piece.name in self.outcomes:
                rows[piece.row][seeds.index(piece.seed)] = self.outcomes[piece.name].text
        columns, done = [f"seed {seed}" for seed in seeds], len(self.outcomes)
        self.emit(
            Scoreboard(
                self.title, columns, rows, latest, running, done, len(self.pieces), self.seconds_left()
            )
        )

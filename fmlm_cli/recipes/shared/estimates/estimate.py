"""What some work would take, and how that is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fmlm_cli import storage
from fmlm_cli.events import Caution, Emit, Facts, Note, data_size, duration

BYTES_OF_WEIGHT, BYTES_OF_MOMENTS = 4, 8  # of a parameter on the disk: itself, and AdamW's two moments
# What files are counted to be written, flushed, hashed and read back at, for nothing is written to try it: a
# disk of the machine's own. One on a busy network may take ten times as long.
DISK_RATE = 300e6  # bytes a second
_TOLD_FROM = 0.01  # share of the time


@dataclass(frozen=True)
class Estimate:
    """What some work would take here, on one process.

    `parts`: seconds by what takes them, in the order of the work. `steps`, `tokens`: trained in all, padding
    not counted. `tokens_per_second`: of training. `memory`: bytes, at most: those of a GPU, else the
    process's. `disk`: bytes at most, while it is at work. `watts`: that a GPU draws, None where that is not
    known. `price_per_hour`: None where it was not given.
    """

    parts: Mapping[str, float]
    steps: int
    tokens: int
    tokens_per_second: float
    memory: int
    disk: int
    watts: float | None = None
    price_per_hour: float | None = None

    @property
    def seconds(self) -> float:
        """In all."""
        return sum(self.parts.values())

    @property
    def price(self) -> float | None:
        """Of all hours, in the unit in which an hour's was given."""
        return None if self.price_per_hour is None else self.price_per_hour * self.seconds / 3600

    @property
    def kilowatt_hours(self) -> float | None:
        """That the GPU takes, as if it were training all the time."""
        return None if self.watts is None else self.watts * self.seconds / 3.6e6

    @property
    def in_words(self) -> str:
        """The time in all and by part, those parts left out that hardly count."""
        told = [(name, took) for name, took in self.parts.items() if took >= _TOLD_FROM * self.seconds]
        parts = ", ".join(f"{name} {duration(took)}" for name, took in told)
        return f"about {duration(self.seconds)} in all" + (f": {parts}" if len(told) > 1 else "")


def tell_estimate(
    estimate: Estimate, emit: Emit, *, out: str, more: Mapping[str, str], ending: str, remedy: str
) -> None:
    """Say what the work would take. `out`: where it would go. `more`: rows of the work's own.

    `ending`: what the command does without --dry-run. `remedy`: what takes less of the disk.
    """
    rows = dict(more)
    if estimate.steps:
        a_step = estimate.tokens / estimate.tokens_per_second / estimate.steps
        rows["speed"] = f"{estimate.tokens_per_second:,.0f} tokens/s, {a_step:.3g} s a step"
        rows["tokens"] = f"{estimate.tokens:,} forwarded in {estimate.steps:,} steps"
    rows |= {
        "time": estimate.in_words,
        "memory": f"{data_size(estimate.memory)} at most",
        "disk": f"{data_size(estimate.disk)} at most",
    }
    if estimate.kilowatt_hours is not None:
        rows["energy"] = f"{estimate.kilowatt_hours:.3g} kWh of the GPU, which draws {estimate.watts:.0f} W"
    if estimate.price is not None:
        rows["cost"] = f"{estimate.price:,.2f} for all of the time"
    emit(Facts("what it would take here, on one process", rows))
    free = storage.free_space(Path(out))
    if free < estimate.disk:
        emit(Caution(f"only {data_size(free)} are free on that disk: {remedy}"))
    emit(Note(f"nothing was written; without --dry-run {ending} {out}"))

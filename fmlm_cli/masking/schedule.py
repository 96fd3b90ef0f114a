"""A mask rate that changes over training, for strategies that know nothing of it.

Random exploration takes the rate of the present step. With full exploration the rate is 1/K, K is a whole
number, and every sequence keeps its K until its cycle is over: cycle c begins with pass s_c, s_0 = 0, its K
is what the schedule says at that moment, and s_(c+1) = s_c + K_c. So every token is still predicted exactly
once in each cycle.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fmlm_cli.errors import UserError
from fmlm_cli.masking.registry import at_rate
from fmlm_cli.masking.strategies import Strategy, check_segments_of
from fmlm_cli.masking.view import Int64s

Shape = Literal["constant", "linear", "cosine", "step"]


@dataclass(frozen=True)
class RateSchedule:
    """The rate as a function of progress, from `initial` to `final`.

    `step` goes there in `plateaus` equal ones.
    """

    shape: Shape
    initial: float
    final: float
    plateaus: int = 2

    def at(self, progress: float) -> float:
        """The rate at `progress`, 0 at the beginning of training and 1 at its end."""
        progress = min(max(progress, 0.0), 1.0)
        if self.shape == "constant":
            return self.initial
        if self.shape == "cosine":
            share = 0.5 - 0.5 * math.cos(math.pi * progress)
        elif self.shape == "step":
            share = min(int(progress * self.plateaus), self.plateaus - 1) / (self.plateaus - 1)
        else:
            share = progress
        return self.initial + (self.final - self.initial) * share


@dataclass(frozen=True)
class Timetable:
    """Which strategy masks which row when.

    `strategy` is the one at the beginning; `passes`: over the whole run.
    """

    strategy: Strategy
    schedule: RateSchedule | None = None
    passes: float = 1.0

    def __post_init__(self) -> None:
        schedule = self.schedule
        if schedule is None:
            return
        if not 0 < schedule.final < 1:
            raise UserError(f"masking.schedule.final_rate must lie between 0 and 1, not {schedule.final:g}")
        if "scope" in self.strategy.understands:
            if self.strategy.cycle == 1:
                raise UserError(
                    "masking.schedule does not go with scope batch: with another K, another number of "
                    "sequences would share a step; use masking.scope epoch"
                )
            check_segments_of("masking.schedule.final_rate", schedule.final)

    @property
    def description(self) -> str:
        """In words: what is masked when, and how that changes."""
        if self.schedule is None:
            return self.strategy.description
        final = self._at(self.schedule.final)
        how = f"in {self.schedule.plateaus} steps" if self.schedule.shape == "step" else self.schedule.shape
        return f"{self.strategy.description}; the rate goes to {final.rate:.1%} ({how})"

    @property
    def last(self) -> Strategy:
        """The strategy in force when training ends, which may be before the final rate is reached."""
        if self.schedule is None:
            return self.strategy
        return self._at(self.schedule.final) if self.strategy.cycle == 1 else self._cycles[1][-1]

    def at(self, progress: float, epoch: Int64s) -> Iterator[tuple[Int64s, Strategy, Int64s]]:
        """Rows by the strategy that masks them: their indices, it, and the epochs to ask it for.

        `epoch`: int64[rows], how often each row was drawn before. Rows are in several groups only while their
        cycles differ.
        """
        everything = np.arange(len(epoch))
        if self.schedule is None:
            yield everything, self.strategy, epoch
        elif self.strategy.cycle == 1:
            yield everything, self._at(self.schedule.at(progress)), epoch
        else:
            begins, cycles = self._cycles
            cycle = np.searchsorted(begins, epoch, side="right") - 1
            for number in np.unique(cycle).tolist():
                rows, strategy = np.flatnonzero(cycle == number), cycles[number]
                # What it takes for the epochs of cycle `number`, were all cycles as long as this one.
                yield rows, strategy, number * strategy.cycle + epoch[rows] - begins[number]

    @functools.cached_property
    def _cycles(self) -> tuple[list[int], list[Strategy]]:
        """The first passes of all cycles of the run, and their strategies; the last goes on for ever."""
        assert self.schedule is not None
        begins, strategies = [0], [self._at(self.schedule.initial)]
        while begins[-1] + strategies[-1].cycle < self.passes:
            begins.append(begins[-1] + strategies[-1].cycle)
            strategies.append(self._at(self.schedule.at(begins[-1] / self.passes)))
        return begins, strategies

    def _at(self, rate: float) -> Strategy:
        return self.strategy if rate == self.strategy.rate else at_rate(self.strategy, rate)

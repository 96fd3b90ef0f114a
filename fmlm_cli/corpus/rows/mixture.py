"""Several row streams as one: which stream gives the row at any position, computed from the position alone.

With two streams, the second is drawn at position p where floor(p * share + phase) steps up: a Sturmian word.
It was then drawn floor(p * share + phase) times before, so both the choice and a row's place in its own
stream need no state, and any stretch of n positions holds n * share rows of the stream, to within one. The
phase comes from the seed. More streams are split off one after the other, each from what those before it have
left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fmlm_cli import keys
from fmlm_cli.corpus.rows.reading import Int64s

_BITS = 24  # shares are multiples of 2^-24, so that positions up to 2^39 are counted exactly in int64


@dataclass(frozen=True)
class Mixture:
    """Streams by their shares of all positions. `shares`: one for each, positive, scaled to sum to 1."""

    shares: Sequence[float]
    seed: int

    @cached_property
    def _splits(self) -> list[tuple[int, int]]:
        """For every stream but the first: its share of what later ones leave, and its phase, in 2^-24."""
        total, left = sum(self.shares), 1.0
        splits = []
        for number in range(len(self.shares) - 1, 0, -1):
            share = self.shares[number] / total
            phase = int(keys.derive(self.seed, keys.Stream.MIXTURE_PHASE, number)) >> (64 - _BITS)
            splits.append((round(share / left * 2**_BITS), phase))
            left -= share
        return splits

    def locate(self, position: Int64s) -> tuple[Int64s, Int64s]:
        """Stream and place within that stream (from 0) at these positions. int64[n] each."""
        stream, place = np.zeros_like(position), position.copy()
        undecided = np.ones(len(position), np.bool_)
        for number, (share, phase) in zip(range(len(self.shares) - 1, 0, -1), self._splits, strict=True):
            before = (place * share + phase) >> _BITS
            drawn = undecided & (((place + 1) * share + phase) >> _BITS > before)
            stream[drawn] = number
            place = np.where(drawn, before, np.where(undecided, place - before, place))
            undecided &= ~drawn
        return stream, place

    def counts(self, positions: int) -> list[int]:
        """How many of the first `positions` each stream gives."""
        left, drawn = positions, []
        for share, phase in self._splits:
            drawn.append((left * share + phase) >> _BITS)
            left -= drawn[-1]
        return [left, *reversed(drawn)]

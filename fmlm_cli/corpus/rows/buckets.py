"""Batches of sequences of nearly one length, so that padding costs next to nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fmlm_cli import keys

Int64s = npt.NDArray[np.int64]

WINDOW = 64  # batches whose sequences are sorted by length together
PADDING = 0.05  # share of a batch that may be padding before it is forwarded in parts


@dataclass(frozen=True, eq=False)
class LengthBuckets:
    """The order of batches, as a pure function of (seed, pass). `lengths`: int64[sequences].

    Every pass a new shuffle, cut into stretches of `WINDOW` batches, sorted by length inside each, and the
    batches then shuffled.
    """

    lengths: Int64s
    batch_size: int
    seed: int

    @property
    def batches(self) -> int:
        """Batches in a pass; one of them is smaller where the sequences do not divide evenly."""
        return -(-len(self.lengths) // self.batch_size)

    def at(self, number: int) -> Int64s:
        """The sequences of batch `number` of the endless stream (from 0)."""
        epoch, batch = divmod(number, self.batches)
        order, place = _pass(self, epoch)
        begin = int(place[batch]) * self.batch_size
        return order[begin : begin + self.batch_size]

    def parts(self, number: int) -> list[Int64s]:
        """Batch `number`, whole or in as many parts as keep padding below `PADDING`; at most four.

        The longest sequences of a set are too far apart for one rectangle. Gradients are sums over the parts.
        """
        index = self.at(number)
        for count in (1, 2, 4):
            parts = [part for part in np.array_split(index, count) if len(part)]
            if 1 - self.lengths[index].sum() / self._positions(parts) <= PADDING:
                break
        return parts

    def _positions(self, parts: Sequence[Int64s]) -> int:
        return sum(len(part) * int(self.lengths[part].max()) for part in parts)

    def padding(self) -> float:
        """Share of padding among all positions of the first pass."""
        positions = sum(self._positions(self.parts(number)) for number in range(self.batches))
        return 1 - float(self.lengths.sum()) / positions


@lru_cache(maxsize=4)
def _pass(buckets: LengthBuckets, epoch: int) -> tuple[Int64s, Int64s]:
    """The order of the sequences in a pass, and for each batch which stretch of that order it is."""
    n, size = len(buckets.lengths), buckets.batch_size
    shuffled = keys.permute(np.arange(n), n, keys.derive(buckets.seed, keys.Stream.BUCKET_SEQUENCES, epoch))
    window = np.arange(n) // (size * WINDOW)
    order = shuffled[np.lexsort((buckets.lengths[shuffled], window))]
    count = buckets.batches
    return order, keys.permute(
        np.arange(count), count, keys.derive(buckets.seed, keys.Stream.BUCKET_BATCHES, epoch)
    )


def by_length(lengths: Int64s, batch_size: int) -> list[Int64s]:
    """All sequences, the longest first, in batches: for passes whose order does not matter."""
    order = np.argsort(-lengths, kind="stable")
    return [order[begin : begin + batch_size] for begin in range(0, len(order), batch_size)]

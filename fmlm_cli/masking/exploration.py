"""Exploration: how the masks of one sequence relate to each other.

Picture a sequence's units laid end to end, in random order, around a circle as long as its n maskable tokens.
A mask is a window on that circle: it holds the units whose middles lie in it.

*Random*: every mask has a circle of its own and a window of rate * n tokens, placed at random. *Full* (Zheng
et al. 2020, arXiv 2010.06040): one circle is cut into K windows of n / K tokens, the cuts placed at random,
and mask k is window k; so the K masks do not overlap, are as far apart as masks can be, and cover every unit
exactly once.

A window of w tokens holds floor(w) or ceil(w) units of one token, w on average; of longer units, as many
tokens as whole units allow: within (u + v) / 2 of w, for units of u and v tokens at its ends. Each single
window of the full exploration has exactly the law of a random mask of rate 1/K. All of it is exact integer
arithmetic.

Arrays: `maskable`, `starts` (where units begin) bool[rows, length]; `key` uint64[rows]; masks bool[rows,
masks, length].
"""

import functools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from fmlm_cli import keys
from fmlm_cli.masking.units import at_all_tokens, unit_sizes
from fmlm_cli.masking.view import Bools, Int64s, UInt64s

# Largest denominator of a rate: circles then stay shorter than 2**31, for rows up to 100,000.
_FINEST = 10_000
_CUT = np.uint64(1 << 40)  # index of the draw that places the windows, beyond those of all positions


@functools.lru_cache(maxsize=1024)
def as_fraction(rate: float) -> Fraction:
    """The simplest fraction that a rate can mean, so that 1/7 and 0.15 are 1/7 and 3/20; never 0 or 1."""
    simplest = Fraction(rate).limit_denominator(_FINEST)
    return min(max(simplest, Fraction(1, _FINEST)), 1 - Fraction(1, _FINEST))


@dataclass(frozen=True)
class Circle:
    """Units in random order around a circle.

    `place`: int64[rows, length], for every maskable position the middle of its unit on the circle, in
    half-tokens (meaningless elsewhere). `size`: int64[rows], n, the circle's length in tokens.
    """

    maskable: Bools
    place: Int64s
    size: Int64s
    key: UInt64s

    @classmethod
    def of(cls, maskable: Bools, starts: Bools, key: UInt64s) -> "Circle":
        """Lay the units out in an order that depends on `key` alone."""
        order = shuffled(starts, key)
        if starts is maskable:  # single tokens: the middle of the token at rank r
            middles = np.broadcast_to(np.arange(1, 2 * order.shape[1], 2), order.shape)
        else:
            laid = unit_sizes(maskable, starts).take(order)
            middles = 2 * np.cumsum(laid, axis=1) - laid
        place = np.empty_like(order)
        place.ravel()[order] = middles
        size = np.count_nonzero(maskable, axis=1)
        return cls(maskable, at_all_tokens(place, maskable, starts), size, key)

    def windows(self, share: Fraction, number: int = 1, first: int | Int64s = 0) -> Bools:
        """`number` windows of `share` of the circle, side by side from window `first` on (one, or one a row).

        The first is placed at random, so wherever on the circle a unit lies, each window is as likely to hold
        it.
        """
        # In half-tokens times the share's denominator, everything is a whole number.
        scale, circle = share.denominator, (2 * share.denominator * self.size)[:, None]
        window = 2 * share.numerator * self.size[:, None]
        cut = keys.below(keys.bits(self.key, _CUT), circle[:, 0])[:, None]
        begin = (cut + (np.asarray(first)[..., None] + np.arange(number)) * window) % np.maximum(circle, 1)
        end = (begin + window) % np.maximum(circle, 1)
        place, across = self.place[:, None, :], (end < begin)[:, :, None]  # whether it holds the circle's end
        inside = (place >= -(-begin // scale)[:, :, None]) ^ (place >= -(-end // scale)[:, :, None]) ^ across
        return inside & self.maskable[:, None, :]


def independent(maskable: Bools, starts: Bools, key: UInt64s, rate: float) -> Bools:
    """One mask a row that holds every unit with probability `rate`, independently: bool[rows, length]."""
    drawn = keys.uniform(keys.bits(key[:, None], np.arange(maskable.shape[1]))) < rate
    return at_all_tokens(drawn, maskable, starts) & maskable


def shuffled(starts: Bools, key: UInt64s) -> Int64s:
    """Every row's unit starts in random order, then its other positions, all flat: int64[rows, length]."""
    rows, length = starts.shape
    low = np.uint64((1 << max(1, (length - 1).bit_length())) - 1)
    column = np.arange(length, dtype=np.uint64)
    # The column rides in the draw's low bits: one plain sort, and no two draws are equal. Starts come first.
    draws = (keys.bits(key[:, None], column) >> np.uint64(1)) & ~low | column
    draws |= (~starts).astype(np.uint64) << np.uint64(63)
    draws.sort(axis=1)
    draws &= low
    return draws.view(np.int64) + (np.arange(rows) * length)[:, None]

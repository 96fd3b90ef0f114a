"""Units: what is masked as a whole, never in part.

A unit is one or several neighbouring maskable tokens of a row: a token, a word, a span of words, a
collocation. A kind of unit marks where units begin; a unit then reaches to the next one's beginning, or to
the next position that is not maskable, which always ends it.
"""

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from fmlm_cli import keys
from fmlm_cli.errors import UserError
from fmlm_cli.masking.view import Bools, Int64s, RowView, UInt64s

Need = Literal["word_starts", "collocations", "input_ids"]

T = TypeVar("T", bound=np.generic)

SHORTEST, LONGEST = 2, 5  # words of a collocation (Levine et al. 2021, section 3)


class Unit(ABC):
    """Base of all kinds of units. One of your own has to define the call, and says what it needs.

    `needs`: what has to be known of the rows. `joins_words`: whether a unit may hold several words, and so
    reach from one document into the next where nothing stands between them.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    joins_words: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, view: RowView, key: UInt64s) -> Bools:
        """Where units begin: bool[rows, length]. Whatever is drawn at random comes from `key`, uint64[rows].

        No other position than maskable ones, and every one that follows an unmaskable one (or nothing). Must
        be a pure function of these, row by row.
        """


def run_starts(maskable: Bools) -> Bools:
    """Where a run of maskable positions begins."""
    starts = maskable.copy()
    starts[:, 1:] &= ~maskable[:, :-1]
    return starts


def word_begins(view: RowView) -> Bools:
    """Where words begin, the rest of one behind an unmaskable token included: bool[rows, length].

    Raises `UserError` where nothing says where words begin.
    """
    if view.word_starts is None:
        raise UserError(
            "masking whole words needs word starts, and there are none: tokenize the text with `fmlm "
            "tokenize`"
        )
    return view.maskable & (view.word_starts | run_starts(view.maskable))


@dataclass(frozen=True)
class Tokens(Unit):
    """Every token by itself."""

    def __call__(self, view: RowView, key: UInt64s) -> Bools:
        """Every maskable position: the very array, by which others know that units are single tokens."""
        return view.maskable


@dataclass(frozen=True)
class Words(Unit):
    """Whole words."""

    needs = frozenset({"word_starts"})

    def __call__(self, view: RowView, key: UInt64s) -> Bools:
        """Where words begin."""
        return word_begins(view)


def unit_sizes(maskable: Bools, starts: Bools) -> Int64s:
    """Tokens of each unit, where it begins, and 0 elsewhere: int64[rows * length]."""
    begin = np.flatnonzero(starts)
    sizes = np.zeros(starts.size, np.int64)
    sizes[begin] = _gaps(np.cumsum(maskable.ravel(), dtype=np.int64), begin)
    return sizes


def _gaps(reached: Int64s, begin: Int64s) -> Int64s:
    """How far a running count goes from each of `begin` to the next, and from the last to the end."""
    if not len(begin):
        return begin
    at = reached[begin]
    gaps = np.empty_like(at)
    np.subtract(at[1:], at[:-1], out=gaps[:-1])
    gaps[-1] = reached[-1] + 1 - at[-1]
    return gaps


def at_all_tokens(values: npt.NDArray[T], maskable: Bools, starts: Bools) -> npt.NDArray[T]:
    """What each unit has at its start, at all its tokens: [rows, length]."""
    if starts is maskable:  # units of one token
        return values
    unit = np.cumsum(starts.ravel(), dtype=np.int64)
    at_starts = values.ravel()[np.flatnonzero(starts)]
    by_unit = np.append(values.ravel()[:1], at_starts)  # from 1 on; what lies before the first unit has 0
    return by_unit.take(unit).reshape(starts.shape)


@dataclass(frozen=True)
class _WordList:
    """All words of some rows in turn, each where it lies in the flattened rows. int64[words] each.

    `begin`: a word's first token. `first`, `last`: the numbers of the first and the last word of its run,
    which units do not leave.
    """

    begin: Int64s
    first: Int64s
    last: Int64s

    @classmethod
    def of(cls, maskable: Bools, starts: Bools) -> "_WordList":
        """The words of `word_begins`."""
        begin = np.flatnonzero(starts)
        runs = np.flatnonzero(run_starts(maskable).ravel()[begin])
        number = _gaps(np.arange(len(begin)), runs)
        return cls(begin, np.repeat(runs, number), np.repeat(runs + number - 1, number))


@dataclass(frozen=True)
class Spans(Unit):
    """Contiguous spans of whole words: the row is cut into spans of random lengths, end to end.

    Lengths in words follow SpanBERT (Joshi et al. 2020, section 3.1): geometric with `p`, cut off at
    `longest` and renormalised, so P(l) = p (1 - p)^(l - 1) / (1 - (1 - p)^longest): 3.80 words on average.
    The last span of a run (a document's end, an unknown token) has what is left.
    """

    needs = frozenset({"word_starts"})
    joins_words = True

    p: float = 0.2
    longest: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.p, float | int) or not 0 < self.p < 1:
            raise UserError(f"masking.options.p must be a number between 0 and 1, not {self.p}")
        if not isinstance(self.longest, int) or not 1 <= self.longest <= 255:
            raise UserError(
                f"masking.options.longest must be a whole number from 1 to 255, not {self.longest}"
            )

    def __call__(self, view: RowView, key: UInt64s) -> Bools:
        """Where spans begin."""
        words = _WordList.of(view.maskable, word_begins(view))
        lengths = self._lengths(view.shape, key, words.begin)
        # Spans laid end to end from each run's first word. As many are drawn as there are words: enough.
        before = np.cumsum(lengths, dtype=np.int64) - lengths
        start = words.first + before - before[words.first]
        starts = np.zeros(view.shape, np.bool_)
        starts.ravel()[words.begin[start[start <= words.last]]] = True
        return starts

    def _lengths(self, shape: tuple[int, ...], key: UInt64s, begin: Int64s) -> npt.NDArray[np.uint8]:
        """A length drawn for every word, in case a span begins there: four from each 64 random bits."""
        draws = keys.bits(key[:, None], np.arange(-(-shape[1] // 4))).view(np.uint16)[:, : shape[1]]
        return _length_table(self.p, self.longest).take(draws.ravel().take(begin))


@functools.lru_cache(maxsize=8)
def _length_table(p: float, longest: int) -> npt.NDArray[np.uint8]:
    """The inverse of the lengths' distribution function at the 2**16 values (i + 1/2) / 2**16."""
    reached = np.cumsum(p * (1 - p) ** np.arange(longest))
    return (np.searchsorted(reached / reached[-1], (np.arange(1 << 16) + 0.5) / (1 << 16)) + 1).astype(
        np.uint8
    )


@dataclass(frozen=True, eq=False)
class Collocations(Unit):
    """Collocations where there are any, single words elsewhere (PMI-masking, Levine et al. 2021).

    `hashes`: uint64[n], sorted, the `keys.StretchHash` of every collocation's tokens. One inside another
    counts as part of the larger one; of two that overlap, one is chosen at random and the other's words stand
    alone.
    """

    needs = frozenset({"word_starts", "collocations", "input_ids"})
    joins_words = True

    hashes: UInt64s

    @functools.cached_property
    def _seen(self) -> tuple[Bools, np.uint64]:
        """Which first bits occur among the hashes, and how far to shift for them.

        Most stretches fall through here.
        """
        width = min(24, len(self.hashes).bit_length() + 4)
        seen, shift = np.zeros(1 << width, np.bool_), np.uint64(64 - width)
        seen[self.hashes >> shift] = True
        return seen, shift

    def contains(self, hashes: UInt64s) -> Bools:
        """Which of these are collocations."""
        seen, shift = self._seen
        is_known = seen[hashes >> shift]
        likely = np.flatnonzero(is_known)
        place = np.searchsorted(self.hashes, hashes[likely])
        is_known[likely] = self.hashes[np.minimum(place, len(self.hashes) - 1)] == hashes[likely]
        return is_known

    def __call__(self, view: RowView, key: UInt64s) -> Bools:
        """Where collocations and single words begin."""
        if view.input_ids is None:
            raise UserError("masking pmi looks for collocations among the tokens: give it input_ids")
        starts = word_begins(view)
        words = _WordList.of(view.maskable, starts)
        end = words.begin + unit_sizes(view.maskable, starts)[words.begin]
        first, last = self._find(words, end, view.input_ids)
        row, column = np.divmod(words.begin[first], view.shape[1])
        kept = _without_overlaps(first, last, keys.bits(key[row], column))
        # Every word begins a unit but those inside a collocation that is kept.
        inside = np.zeros(len(words.begin) + 1, np.int64)
        inside[first[kept] + 1] += 1
        inside[last[kept] + 1] -= 1
        starts = np.zeros(view.shape, np.bool_)
        starts.ravel()[words.begin[np.cumsum(inside[:-1]) == 0]] = True
        return starts

    def _find(self, words: _WordList, end: Int64s, input_ids: Int64s) -> tuple[Int64s, Int64s]:
        """First and last words of the collocations that no other one contains, in order."""
        if not len(self.hashes):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        hashed = keys.StretchHash(input_ids.ravel())
        last = np.arange(len(words.begin))
        for n in range(SHORTEST, LONGEST + 1):  # the longest that begins at a word is found last
            word = np.flatnonzero(np.arange(len(last)) + n - 1 <= words.last)
            begins = word[self.contains(hashed(words.begin[word], end[word + n - 1]))]
            last[begins] = begins + n - 1
        first = np.flatnonzero(last > np.arange(len(last)))
        last = last[first]
        reached = np.maximum.accumulate(last)
        outermost = last > np.append(-1, reached[:-1])[: len(last)]
        return first[outermost], last[outermost]


def _without_overlaps(first: Int64s, last: Int64s, priority: UInt64s) -> Int64s:
    """Indices of stretches that do not overlap: in turn those of the highest priority among neighbours.

    `first` and `last`, inclusive, both rise: whatever overlaps a stretch lies next to it.
    """
    kept = [np.empty(0, np.int64)]
    undecided = np.arange(len(first))
    while len(undecided):
        best = np.ones(len(undecided), np.bool_)
        clashes = []
        for distance in range(1, min(LONGEST, len(undecided))):
            clash = first[undecided[distance:]] <= last[undecided[:-distance]]
            earlier = priority[undecided[:-distance]] > priority[undecided[distance:]]
            best[distance:] &= ~(clash & earlier)
            best[:-distance] &= ~(clash & ~earlier)
            clashes.append((distance, clash))
        keep = ~best
        for distance, clash in clashes:
            keep[distance:] &= ~(clash & best[:-distance])
            keep[:-distance] &= ~(clash & best[distance:])
        kept.append(undecided[best])
        undecided = undecided[keep]
    return np.concatenate(kept)

"""The words of a split, one after the other, in runs: read a chunk at a time, or where they are asked for.

A *word* reaches from one word start to the next. A *run* is a stretch of words in one document without a
token that is never masked.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fmlm_cli.corpus.store.split import Split, TokenSpans
from fmlm_cli.keys import StretchHash, UInt64s

Int64s = npt.NDArray[np.int64]

_CHUNK = (1 << 21) - 1  # tokens read at once; StretchHash keeps powers up to the next power of two


@dataclass(frozen=True)
class Words:
    """The words of some text, in order. `ids`: int64[tokens]; the others int64[words].

    `begin`, `end`: a word's first token and the one behind its last. `left`: how many words its run still
    has, with itself.
    """

    ids: Int64s
    hashed: StretchHash
    begin: Int64s
    end: Int64s
    left: Int64s

    def __len__(self) -> int:
        return len(self.begin)

    def hashes(self, first: Int64s, n: int) -> UInt64s:
        """The hashes of the n-grams that begin with these words."""
        return self.hashed(self.begin[first], self.end[first + n - 1])

    def complete(self, longest: int) -> int:
        """How many words, from the first on, have all their n-grams here, should the text go on.

        The last word may not be whole, so its run's last `longest` words wait for what comes.
        """
        if not len(self) or self.end[-1] < len(self.ids):  # it ends with a token that is never masked
            return len(self)
        tail = self.left[-longest:]
        return len(self) - int(np.count_nonzero(tail == np.arange(len(tail), 0, -1)))


class Text:
    """A split as one sequence of tokens, numbered through all its documents. `tokens`: how many."""

    def __init__(self, split: Split, never_masked: Collection[int], vocabulary: int) -> None:
        self._split = split
        lengths = split.lengths
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._begins = self._ends - lengths
        self._maskable = np.ones(vocabulary, np.bool_)
        self._maskable[np.fromiter(never_masked, np.int64)] = False
        self.tokens = int(self._ends[-1]) if len(lengths) else 0

    def between(self, begin: int, end: int) -> Words:
        """The words of tokens `begin` to `end` (exclusive); each document begins a run."""
        first, last = np.searchsorted(self._ends, [begin + 1, end])
        begins, ends = self._begins[first : last + 1], self._ends[first : last + 1]
        start = np.maximum(begin, begins)
        return self._read(
            TokenSpans(np.arange(first, last + 1), start - begins, np.minimum(end, ends) - start)
        )

    def at(self, places: Int64s, tokens: npt.NDArray[np.integer]) -> Words:
        """The words of stretches of `tokens` tokens from `places` on, each in one document, each a run."""
        documents = np.searchsorted(self._ends, places, side="right")
        return self._read(TokenSpans(documents, places - self._begins[documents], tokens.astype(np.int64)))

    def _read(self, spans: TokenSpans) -> Words:
        ids, starts = self._split.read(spans)
        maskable = self._maskable[ids]
        run = spans.within == 0
        run[1:] |= ~maskable[:-1]
        edges = np.flatnonzero(starts | run | ~maskable)
        whole = maskable[edges]
        begin, end = edges[whole], np.append(edges[1:], len(ids))[whole]
        first = np.flatnonzero(run[begin])
        number = np.diff(np.append(first, len(begin)))
        left = np.repeat(first + number, number) - np.arange(len(begin))
        return Words(ids, StretchHash(ids), begin, end, left)

    def chunks(self, longest: int) -> Iterator[tuple[int, Words, int]]:
        """The whole split in turn: a chunk's first token, its words, and how many of them are its own.

        Every n-gram of up to `longest` words lies entirely in the chunk that owns its first word.
        """
        begin, size = 0, _CHUNK
        while begin < self.tokens:
            end = min(begin + size, self.tokens)
            words = self.between(begin, end)
            owned = words.complete(longest) if end < self.tokens else len(words)
            following = begin + int(words.begin[owned]) if owned < len(words) else end
            if following == begin:  # `longest` words are longer than a chunk
                size *= 2
                continue
            yield begin, words, owned
            begin, size = following, _CHUNK

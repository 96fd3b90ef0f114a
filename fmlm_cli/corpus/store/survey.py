"""What a token store holds, at a glance: lengths, duplicates, frequent tokens, documents as words."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fmlm_cli.corpus.store.reading import Split, TokenStore
from fmlm_cli.corpus.store.split import TokenSpans
from fmlm_cli.events import Emit, Progress
from fmlm_cli.keys import StretchHash

_HASHED_AT_ONCE = 1 << 20  # tokens

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bin:
    """How many documents have `shortest` to `longest` tokens, both included."""

    shortest: int
    longest: int
    documents: int


@dataclass(frozen=True)
class Lengths:
    """Documents by their length: quantiles of it, and bins that double in width, up to the longest."""

    shortest: int
    median: int
    ninety_fifth_percentile: int
    longest: int
    bins: tuple[Bin, ...]

    @classmethod
    def of(cls, lengths: Int64s) -> "Lengths | None":
        """`lengths`: [documents], each > 0; None of no documents."""
        if not len(lengths):
            return None
        powers = np.bincount(np.frexp(lengths)[1] - 1)  # of two: the one at or below each length
        first = int(np.flatnonzero(powers)[0])
        bins = (Bin(1 << p, (2 << p) - 1, int(powers[p])) for p in range(first, len(powers)))
        median, high = np.quantile(lengths, (0.5, 0.95), method="lower").astype(int).tolist()
        return cls(int(lengths.min()), median, high, int(lengths.max()), tuple(bins))


@dataclass(frozen=True)
class TokenCount:
    """A token as text, its id, and how often the training split holds it."""

    text: str
    id: int
    count: int


def most_frequent(store: TokenStore, number: int) -> list[TokenCount]:
    """The commonest tokens of the training split, the commonest first."""
    counts = store.token_counts.astype(np.int64)
    used = np.flatnonzero(counts)
    return _counted(store, used[np.argsort(-counts[used], kind="stable")][:number])


def least_frequent(store: TokenStore, number: int) -> list[TokenCount]:
    """The rarest tokens that the training split holds at all, the rarest first."""
    counts = store.token_counts
    used = np.flatnonzero(counts)
    return _counted(store, used[np.argsort(counts[used], kind="stable")][:number])


def _counted(store: TokenStore, ids: Int64s) -> list[TokenCount]:
    texts = store.token_texts
    return [TokenCount(texts[i], int(i), int(store.token_counts[i])) for i in ids]


def never_used(store: TokenStore) -> int:
    """Ordinary tokens of the vocabulary that the training split does not hold."""
    unused = set(np.flatnonzero(store.token_counts == 0).tolist())
    return len(unused - store.special.never_masked)


def repeated_documents(split: Split, emit: Emit) -> int:
    """How many documents hold the tokens of an earlier one, by 64-bit hashes: 8 bytes of memory for each."""
    hashes = np.empty(len(split), np.uint64)
    every = split.lengths.astype(np.int64)
    total = int(every.sum())
    done = 0
    for first, last in _runs(every):
        lengths = every[first:last]
        ids, _ = split.read(TokenSpans(np.arange(first, last), np.zeros_like(lengths), lengths))
        end = np.cumsum(lengths)
        hashes[first:last] = StretchHash(ids)(end - lengths, end)
        done += len(ids)
        emit(Progress("looking for duplicates", done, total, "tokens"))
    return len(split) - len(np.unique(hashes))


def _runs(lengths: Int64s) -> Iterator[tuple[int, int]]:
    """Documents in order, some at a time: first and last (exclusive) of each run."""
    before = np.cumsum(lengths) - lengths
    first = 0
    while first < len(lengths):
        last = int(np.searchsorted(before, before[first] + _HASHED_AT_ONCE))
        yield first, max(last, first + 1)
        first = max(last, first + 1)


@dataclass(frozen=True)
class WordedDocument:
    """The beginning of a document: its number in the split, its tokens in all, and words as their tokens."""

    number: int
    tokens: int
    words: tuple[tuple[str, ...], ...]


def worded(store: TokenStore, split: Split, number: int, most: int) -> WordedDocument:
    """A document's first `most` tokens, parted into words where the store says that one begins."""
    length = int(split.lengths[number])
    ids, starts = split.read(TokenSpans(np.array([number]), np.array([0]), np.array([min(length, most)])))
    texts = store.token_texts
    begins = np.flatnonzero(starts | (np.arange(len(ids)) == 0))
    words = (tuple(texts[token] for token in word) for word in np.split(ids, begins[1:]))
    return WordedDocument(number, length, tuple(words))

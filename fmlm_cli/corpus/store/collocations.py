"""Mining collocations: n-grams of words that stand together far more often than their parts would by chance.

The vocabulary of PMI-masking (Levine et al. 2021, "PMI-Masking: Principled masking of correlated spans",
ICLR, arXiv 2010.01825), from the tokens of a store.

An *n-gram* is n words of one run (see `word_runs`), and is known by its tokens. Its probability is its count
over the number of all words of the split, for every n; a collocation neither begins nor ends with
punctuation.

Counting takes one pass over the split for each n: an n-gram can only be frequent if the two (n-1)-grams in it
are (Agrawal & Srikant 1994, "Fast algorithms for mining association rules"), so each pass keeps a table of
the few n-grams that still can be, where a single pass would have to keep every 5-gram it meets. Counted are
only n-grams whose parts are in the tables, so that whatever else was dropped, no PMI lacks a count.
"""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from transformers import PreTrainedTokenizerFast

from fmlm_cli import storage
from fmlm_cli.corpus.store.split import Split
from fmlm_cli.corpus.store.word_runs import Text, Words
from fmlm_cli.corpus.tokenizer.words import punctuation_tokens
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Progress, ignore
from fmlm_cli.keys import UInt64s

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Records = npt.NDArray[np.void]

SHORTEST, LONGEST = 2, 5  # words, as in masking.units: rooms of one floor do not import each other
MIN_COUNT = 10
MIN_PMI = math.log(8)  # 3 bits: from there pairs are interesting (Church & Hanks 1990, section 4)
LARGEST = 800_000  # collocations at most: the paper's number
SHARES = {2: 1 / 2, 3: 1 / 4, 4: 1 / 8, 5: 1 / 8}  # of the lengths among the collocations (the paper's)

_ROUNDING = 1e-9  # of a PMI: one of exactly 3 bits is not to be lost
_SAMPLE, _STRETCH = 1 << 21, 1 << 16  # tokens on which coverage is measured, in stretches of so many
_BATCH = 1 << 17  # n-grams whose tokens are read back at once


@dataclass(frozen=True)
class Mined:
    """Collocations, the best first, as parallel arrays [n], and how they were found.

    `hashes`: uint64, the `keys.StretchHash` of their tokens. `words`: uint8, 2 to 5. `counts`: int64. `pmi`:
    float32, PMI_n in nats. `texts`: as the tokenizer decodes them. `total_words`: of the split. `covered`:
    the share of the sampled words that stand in a collocation. `undercount`: a count may be too low by so
    much (0: all are exact).
    """

    hashes: UInt64s
    words: npt.NDArray[np.uint8]
    counts: Int64s
    pmi: npt.NDArray[np.float32]
    texts: list[str]
    total_words: int
    covered: float
    undercount: int


def mine(
    split: Split,
    tokenizer: PreTrainedTokenizerFast,
    never_masked: Collection[int],
    *,
    size: int | None = None,
    capacity: int = 4_000_000,
    emit: Emit = ignore,
) -> Mined:
    """Find the collocations of a split.

    Candidates are n-grams of 2 to 5 words with a count of `MIN_COUNT` and a PMI of `MIN_PMI` at least. They
    are ranked by PMI within each length and merged in the paper's `SHARES`. `size` of them are taken; by
    default as many as it takes for half of the words to stand in one, and no more than `LARGEST`.

    `never_masked`: ids across which nothing is masked. `capacity`: n-grams in a table while counting; beyond
    it the rarest are dropped, and `Mined.undercount` says how much counts may have lost. 28 bytes each, and
    about as much again while a chunk is merged.
    """
    punctuation = punctuation_tokens(tokenizer.backend_tokenizer)
    text = Text(split, never_masked, len(punctuation))
    tables = count_ngrams(text, capacity, emit)
    limit = LARGEST if size is None else size
    ranked = _merged([_scored(text, tables, n, punctuation)[:limit] for n in range(SHORTEST, LONGEST + 1)])
    lowest = _lowest_ranks(text, ranked["hash"])
    taken = ranked[: min(limit, _half(lowest, len(ranked))) if size is None else size]
    hashes, words, counts, scores = (taken[name].copy() for name in ("hash", "words", "count", "pmi"))
    covered = float(np.mean(lowest < len(taken))) if len(lowest) else 0.0
    texts = _texts(text, taken, tokenizer)
    return Mined(hashes, words, counts, scores, texts, tables[0].total, covered, tables[-1].undercount)


# `place`, `tokens`: where in the `Text` an n-gram first stands, and how many tokens long it is. 28 bytes.
_ENTRY = [("hash", np.uint64), ("count", np.int64), ("place", np.int64), ("tokens", np.int32)]
_SCORED = [*_ENTRY, ("words", np.uint8), ("pmi", np.float32)]


class NgramTable:
    """The n-grams of one n that were counted. `entries`: records of `_ENTRY`, sorted by hash.

    `total`: how many n-grams were met, with repetitions. `undercount`: by how much a count may be too low; an
    n-gram that is not here is no more frequent than that, or less frequent than `MIN_COUNT`.
    """

    def __init__(self) -> None:
        self.entries: Records = np.empty(0, _ENTRY)
        self.total = 0
        self.undercount = 0

    def add(self, hashes: UInt64s, places: Int64s, tokens: Int64s) -> None:
        """Count n-grams that follow, in this order, on those counted before."""
        self.total += len(hashes)
        met, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        at, is_there = _find(self.entries["hash"], met)
        self.entries["count"][at[is_there]] += counts[is_there]
        added = np.empty(np.count_nonzero(~is_there), _ENTRY)
        added["hash"], added["count"] = met[~is_there], counts[~is_there]
        added["place"], added["tokens"] = places[first[~is_there]], tokens[first[~is_there]]
        self.entries = np.insert(self.entries, at[~is_there], added)

    def drop_rarest(self, capacity: int) -> None:
        """Keep at most `capacity` entries: lossy counting (Manku & Motwani 2002), by space, not by error.

        Whole levels of counts go: to keep some entries of a level would save no bound, and the next chunk
        would have to drop again. What goes with count c may have gone before, hence the sum.
        """
        surplus = len(self.entries) - capacity
        if surplus > 0:
            counts = self.entries["count"]
            level = int(np.partition(counts, surplus - 1)[surplus - 1])
            self.entries = self.entries[counts > level]
            self.undercount += level

    def counts(self, hashes: UInt64s) -> Int64s:
        """The counts of n-grams that are here."""
        return np.asarray(self.entries["count"][np.searchsorted(self.entries["hash"], hashes)])


def _find(among: UInt64s, hashes: UInt64s) -> tuple[Int64s, Bools]:
    """Where in a sorted array these hashes stand or would stand, and whether they do."""
    at = np.searchsorted(among, hashes)
    is_there = at < len(among)
    is_there[is_there] = among[at[is_there]] == hashes[is_there]
    return at, is_there


def count_ngrams(text: Text, capacity: int, emit: Emit = ignore) -> list[NgramTable]:
    """Tables of the words, the 2-grams, ... the `LONGEST`-grams that may be as frequent as `MIN_COUNT`."""
    tables: list[NgramTable] = []
    for n in range(1, LONGEST + 1):
        table = NgramTable()
        for begin, words, owned in text.chunks(LONGEST):
            first = _worth_counting(words, owned, n, tables)
            length = words.end[first + n - 1] - words.begin[first]
            table.add(words.hashes(first, n), begin + words.begin[first], length)
            table.drop_rarest(capacity)
            done = (n - 1) * text.tokens + begin + len(words.ids)
            details = {"n-grams of": f"{n} words" if n > 1 else "1 word", "kept": f"{len(table.entries):,}"}
            emit(Progress("mining collocations", done, LONGEST * text.tokens, "tokens", details))
        # An n-gram that was passed over, as one of its parts had been dropped, is no more frequent than that.
        table.undercount = max(table.undercount, tables[-1].undercount if tables else 0)
        table.entries = table.entries[table.entries["count"] + table.undercount >= MIN_COUNT]
        tables.append(table)
    return tables


def _worth_counting(words: Words, owned: int, n: int, shorter: Sequence[NgramTable]) -> Int64s:
    """First words of the n-grams of a chunk's own words whose two (n-1)-grams are in their table."""
    if n == 1:
        return np.arange(owned)
    parts = np.flatnonzero(words.left >= n - 1)
    frequent = np.zeros(len(words), np.bool_)
    frequent[parts] = _find(shorter[-1].entries["hash"], words.hashes(parts, n - 1))[1]
    return np.flatnonzero(
        (words.left >= n)[:owned] & frequent[:owned] & np.append(frequent[1:], False)[:owned]
    )


def pmi(log_p: Mapping[tuple[int, int], Floats], n: int) -> Floats:
    """PMI_n of n-grams, in nats (Levine et al. 2021, equation 3): float64[n-grams].

    The least of log(p(w_1 ... w_n) / product of p(s)) over all ways to cut the n-gram into parts s, two at
    least. `log_p[i, j]`: float64[n-grams], log-probabilities of the words i to j (exclusive), for 0 <= i < j
    <= n.
    """
    best: dict[tuple[int, int], Floats] = {}  # of the words i to j in one part or more

    def cut(i: int, j: int) -> Floats:
        return np.max([best[i, k] + best[k, j] for k in range(i + 1, j)], axis=0)

    for i, j in sorted(itertools.combinations(range(n + 1), 2), key=lambda part: part[1] - part[0])[:-1]:
        best[i, j] = log_p[i, j] if j == i + 1 else np.maximum(log_p[i, j], cut(i, j))
    return log_p[0, n] - cut(0, n)


def _scored(text: Text, tables: Sequence[NgramTable], n: int, punctuation: Bools) -> Records:
    """The candidates of n words, best first; equal PMIs by count, then by hash, so always in one order."""
    entries = tables[n - 1].entries
    entries = entries[entries["count"] >= MIN_COUNT]
    entries = entries[np.argsort(entries["place"])]  # read them in the order in which they lie on the disk
    parts = (_score(text, tables, n, punctuation, batch) for batch in _batches(entries))
    scores = np.concatenate([np.empty(0), *parts])
    related = scores >= MIN_PMI - _ROUNDING
    scored = np.empty(np.count_nonzero(related), _SCORED)
    scored[[name for name, _ in _ENTRY]] = entries[related]
    scored["words"], scored["pmi"] = n, scores[related]
    return scored[np.lexsort((scored["hash"], -scored["count"], -scored["pmi"]))]


def _batches(entries: Records) -> Iterator[Records]:
    return (entries[begin : begin + _BATCH] for begin in range(0, len(entries), _BATCH))


def _score(text: Text, tables: Sequence[NgramTable], n: int, punctuation: Bools, entries: Records) -> Floats:
    """PMI_n of entries of the table of n words; minus infinity where punctuation stands at an end."""
    words = text.at(entries["place"], entries["tokens"])
    begin, end = words.begin.reshape(-1, n), words.end.reshape(-1, n)
    log_p = {}
    for i, j in itertools.combinations(range(n + 1), 2):
        counts = tables[j - i - 1].counts(words.hashed(begin[:, i], end[:, j - 1]))
        # A part is no rarer than the whole, even where the table of its length has lost more of its count.
        log_p[i, j] = np.log(np.maximum(counts, entries["count"]) / tables[0].total)
    marks = np.logical_and.reduceat(punctuation[words.ids], words.begin).reshape(-1, n)
    return np.where(marks[:, 0] | marks[:, -1], -np.inf, pmi(log_p, n))


def _merged(rankings: Sequence[Records]) -> Records:
    """One ranking of the lengths' own, whose every prefix holds `SHARES` of each, as nearly as can be.

    That is Webster's apportionment (Sainte-Lague): the k-th of a length, from 0, comes at (k + 1/2) / share.
    Once a length has run out, the others go on in their proportions.
    """
    turns = [(np.arange(len(ranking)) + 0.5) / SHARES[n] for n, ranking in enumerate(rankings, SHORTEST)]
    return np.concatenate(rankings)[np.argsort(np.concatenate(turns), kind="stable")]


def _lowest_ranks(text: Text, hashes: UInt64s) -> Int64s:
    """For each word of a sample, the lowest rank of its collocations; without any, their number.

    `hashes`: of the collocations by rank. The sample is the whole split or stretches evenly spread over it.
    """
    number, size = (_SAMPLE // _STRETCH, _STRETCH) if text.tokens > _SAMPLE else (1, text.tokens)
    begins = np.linspace(0, text.tokens - size, number, dtype=np.int64).tolist() if size else []
    order = np.argsort(hashes)
    ordered = hashes[order]
    parts = [_lowest_in(text.between(begin, begin + size), ordered, order) for begin in begins]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _lowest_in(words: Words, hashes: UInt64s, ranks: Int64s) -> Int64s:
    """The same for these words. `hashes`: sorted; `ranks`: theirs."""
    lowest = np.full(len(words), len(hashes))
    for n in range(SHORTEST, LONGEST + 1):
        first = np.flatnonzero(words.left >= n)
        at, is_there = _find(hashes, words.hashes(first, n))
        rank = np.full(len(words), len(hashes))
        rank[first[is_there]] = ranks[at[is_there]]
        for place in range(min(n, len(words))):
            lowest[place:] = np.minimum(lowest[place:], rank[: len(rank) - place])
    return lowest


def _half(lowest: Int64s, number: int) -> int:
    """How many of `number` collocations it takes for half of the words to stand in one, or all."""
    if not len(lowest):
        return 0
    middle = (len(lowest) - 1) // 2
    return min(int(np.partition(lowest, middle)[middle]) + 1, number)


def _texts(text: Text, taken: Records, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The n-grams as the tokenizer decodes them."""
    texts: list[str] = []
    for batch in _batches(taken):
        ids = text.at(batch["place"], batch["tokens"]).ids.tolist()
        rows = [ids[i:j] for i, j in itertools.pairwise([0, *np.cumsum(batch["tokens"]).tolist()])]
        texts += tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=False)
    return [decoded.strip() for decoded in texts]


def write_collocations(path: Path, mined: Mined) -> None:
    """Write one Arrow IPC file: hash, words, count, pmi, text. Raises `UserError` if it cannot."""
    columns = {"hash": mined.hashes, "words": mined.words, "count": mined.counts, "pmi": mined.pmi}
    table = pa.table({**columns, "text": pa.array(mined.texts, pa.string())})
    with (
        storage.clear_disk_errors(path),
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def read_collocations(path: Path) -> UInt64s:
    """The hashes of a file of collocations, sorted: uint64[n].

    Raises `UserError` if it is missing or is no such file any more. Arrow has no checksums: the store has.
    """
    if not path.is_file():
        raise UserError(f"no such file of collocations: {path}")
    try:
        hashes = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all().column("hash")
        return np.unique(np.asarray(hashes.cast(pa.uint64())))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a file of collocations, or a damaged one: mine them again") from error

"""A store from its shards, once it is decided what becomes of each document."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fmlm_cli.corpus.store.making.parts import Columns
from fmlm_cli.corpus.store.making.shards import Documents, Shard
from fmlm_cli.corpus.store.reading import SPLITS
from fmlm_cli.corpus.store.writing import StoreWriter
from fmlm_cli.corpus.tokenizer.literal import Encoded, joined

LEFT_OUT = len(SPLITS)  # a destination beside the numbers of splits
_WINDOW = 1 << 18  # tokens that are in memory at a time; more where a document has more

Destinations = npt.NDArray[np.uint8]  # of each document: a place in `SPLITS`, or `LEFT_OUT`


def columns_of(shards: Sequence[Shard], corpus: str) -> Columns:
    """What is decided by, of the documents of a corpus in their order."""
    return Columns.in_turn([shard.columns(corpus) for shard in shards])


def write_documents(
    writer: StoreWriter,
    shards: Sequence[Shard],
    corpus: str,
    columns: Columns,
    destinations: Destinations,
) -> Iterator[int]:
    """Copy the documents of a corpus, in order, to where they belong; again and again, how many tokens.

    It is the same bytes however many shards and parts there are.
    """
    takers = [shard.tokens(corpus) for shard in shards]
    ends = np.cumsum(columns.tokens)
    begin = 0
    while begin < len(columns):
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + _WINDOW, side="right")))
        window = _in_turn(takers, begin, columns.tokens[begin:end])
        for number, split in enumerate(SPLITS):
            chosen = destinations[begin:end] == number
            if chosen.any():
                writer.add(split, window.chosen(chosen), int(columns.text_bytes[begin:end][chosen].sum()))
        yield int(ends[end - 1]) - before
        begin = end


def _in_turn(takers: Sequence[Documents], begin: int, lengths: npt.NDArray[np.int64]) -> Encoded:
    """The documents from number `begin` on, of these lengths: number k is of the (k mod n)-th of n."""
    if len(takers) == 1:
        return takers[0].take(len(lengths))
    numbers = np.arange(begin, begin + len(lengths)) % len(takers)
    starts = np.cumsum(lengths) - lengths
    parts = [taker.take(int(np.count_nonzero(numbers == i))) for i, taker in enumerate(takers)]
    gathered = joined(parts)
    ids = np.empty(len(gathered.input_ids), gathered.input_ids.dtype)
    words = np.empty(len(ids), np.bool_)
    order = np.argsort(numbers, kind="stable")  # of the window's documents, as they were gathered
    places = _ranges(starts[order], lengths[order])
    ids[places], words[places] = gathered.input_ids, gathered.word_starts
    return Encoded(ids, words, lengths)


def _ranges(begins: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The numbers from each begin on, so many of each, end to end."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(begins - before, lengths) + np.arange(int(lengths.sum()))


def tokens_of(columns: Mapping[str, Columns]) -> int:
    """Of all documents."""
    return sum(int(one.tokens.sum()) for one in columns.values())

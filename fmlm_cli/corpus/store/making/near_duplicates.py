"""Documents that are nearly the same: MinHash signatures, and what in them is alike.

The resemblance of two documents is the Jaccard index of their sets of runs of five words (Broder 1997, "On
the resemblance and containment of documents"), where words are as everywhere else in a store. A signature
holds, for each of 128 hash functions, the least hash of a document's runs; the share of places in which two
signatures agree estimates the resemblance, with a standard deviation of 0.035 at 0.8.
"""

from collections import defaultdict
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fmlm_cli.corpus.tokenizer.literal import Encoded
from fmlm_cli.errors import UserError
from fmlm_cli.keys import StretchHash, UInt64s, derive

RUN = 5  # words
HASHES = 128
ALIKE = 0.8  # the resemblance from which on a document repeats another
# Pairs are compared that agree in all rows of a band: at 0.8 all but 5 in 100,000, at 0.3 one in 17.
_BANDS, _ROWS = 25, 5
_AT_ONCE = 1 << 15  # runs that are hashed 128 times at once

Signatures = npt.NDArray[np.uint32]  # [documents, HASHES]


def check_available() -> None:
    """Raises `UserError` where the library that makes signatures is missing."""
    try:
        import datasketch  # noqa: F401, PLC0415 - it is slow to import, and an extra
    except ImportError as error:
        raise UserError("--dedup near needs datasketch: pip install 'fmlm[near]'") from error


def signatures(encoded: Encoded) -> Signatures:
    """Of each document; one of fewer than five words is a single run, as long as it is."""
    from datasketch import MinHash  # noqa: PLC0415 - as above

    empty = MinHash(HASHES, seed=1, scheme="affine32", hashfunc=int)
    made = np.empty((len(encoded.lengths), HASHES), np.uint32)
    for number, runs in enumerate(_runs(encoded)):
        sketch = empty.copy()
        for begin in range(0, len(runs), _AT_ONCE):
            sketch.update_batch((runs[begin : begin + _AT_ONCE] >> np.uint64(32)).tolist())
        made[number] = sketch.hashvalues
    return made


def _runs(encoded: Encoded) -> list[UInt64s]:
    """The hashes of each document's runs of words."""
    hashed = StretchHash(encoded.input_ids)
    ends = np.concatenate([[0], np.cumsum(encoded.lengths)])
    starts = encoded.word_starts.copy()
    starts[ends[:-1][encoded.lengths > 0]] = True
    begins = np.flatnonzero(starts)
    of_documents = np.searchsorted(begins, ends)
    runs = []
    for (first, last), end in zip(pairwise(of_documents.tolist()), ends[1:].tolist(), strict=True):
        words = np.append(begins[first:last], end)
        run = min(RUN, last - first)
        runs.append(hashed(words[: len(words) - run], words[run:]) if run else np.empty(0, np.uint64))
    return runs


def repeats_nearly(signatures: Signatures) -> npt.NDArray[np.bool_]:
    """Which documents are alike to one before them that is not such a document itself. bool[documents]

    So what is kept depends on the order, and the first is. Beside the signatures (512 bytes each) it takes
    some 50 bytes of memory a document, and 2,500 for one that is compared with others.
    """
    repeated = np.zeros(len(signatures), np.bool_)
    if not len(signatures):
        return repeated
    shared = [_shared(signatures[:, band * _ROWS : (band + 1) * _ROWS]) for band in range(_BANDS)]
    numbers = np.unique(np.concatenate([documents for documents, _ in shared]))
    buckets: list[list[tuple[int, int]]] = [[] for _ in numbers]
    for band, (documents, keys) in enumerate(shared):
        for at, key in zip(np.searchsorted(numbers, documents).tolist(), keys.tolist(), strict=True):
            buckets[at].append((band, key))
    kept: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, own in zip(numbers.tolist(), buckets, strict=True):
        earlier = sorted({other for bucket in own for other in kept.get(bucket, ())})
        agreeing = np.mean(signatures[earlier] == signatures[number], axis=1)
        if (agreeing >= ALIKE).any():
            repeated[number] = True
            continue
        for bucket in own:
            kept[bucket].append(number)
    return repeated


def _shared(band: Signatures) -> tuple[npt.NDArray[np.int64], UInt64s]:
    """The documents that agree with another in all rows of a band, and what they have there, hashed."""
    keys = derive(*(band[:, row].astype(np.uint64) for row in range(band.shape[1])))
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    shares = np.append(same, False) | np.append(False, same)
    return order[shares], keys[order][shares]

"""Rows made without a store."""

import numpy as np

from fmlm_cli.corpus.rows.reading import Rows

PAD, CLS, SEP, MASK = 0, 1, 2, 3
VOCABULARY = 40
ORDINARY = np.arange(5, VOCABULARY)


def make_rows(lengths: list[list[int]], length: int = 16, seed: int = 0, pad: int = PAD) -> Rows:
    """Rows of documents of these lengths, [CLS] and [SEP] counted."""
    rng = np.random.default_rng(seed)
    shape = (len(lengths), length)
    ids, segments, positions = (np.zeros(shape, np.int64) for _ in range(3))
    for row, documents in enumerate(lengths):
        begin = 0
        for number, size in enumerate(documents, start=1):
            here = slice(begin, begin + size)
            ids[row, here] = rng.choice(ORDINARY, size)
            ids[row, begin], ids[row, begin + size - 1] = CLS, SEP
            segments[row, here], positions[row, here] = number, np.arange(size)
            begin += size
    ids[segments == 0] = pad
    maskable = ids >= 5
    number = np.arange(len(lengths)) + 100
    return Rows(ids, positions, segments, ids % 3 > 0, maskable, number * 7919, number)

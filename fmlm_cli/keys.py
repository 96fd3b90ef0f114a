"""Counter-based hashing: every random choice of the program is a pure function of where it is made.

The generator is SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) used by index instead of in sequence: the i-th
output of the stream that starts at `key` is `mix(key + (i + 1) * GOLDEN)`, with `mix` David Stafford's
variant 13 of the MurmurHash3 finalizer. In sequence it passes BigCrush. Keys themselves are made by absorbing
words one by one through the same mixer, so that neighbouring seeds, rows and epochs give unrelated streams.

There is no generator state anywhere: masks, orders and draws do not depend on batches, workers or ranks, and
a resumed run makes the same choices. All functions are vectorised over numpy uint64 arrays and broadcast.
"""

import enum
import functools
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

UInt64s = npt.NDArray[np.uint64]

_WORD, _GOLDEN = (1 << 64) - 1, 0x9E3779B97F4A7C15
GOLDEN = np.uint64(_GOLDEN)
_FEISTEL_ROUNDS = 8


@enum.unique
class Stream(enum.IntEnum):
    """What is drawn: the word of `derive` after the seed, which keeps choices of different kinds apart.

    This is all of them, so that no two are the same by accident. Values stay as they are for ever: with
    another one the same seed would give another run.
    """

    # corpus: which rows, in which order
    ROW_ORDER = 0x0DE2  # the permutation of the rows in a pass
    ROW_SUBSET = 0x5B5E7  # the rows that are kept where only some are wanted
    LENGTH_GROUPS = 0x1E46  # how far the order of groups of rows of like length is turned
    MIXTURE_PHASE = 0x9A5E  # where the draws from one of several stores begin
    BUCKET_SEQUENCES = 0xB0C4  # the order of sequences before those of like length are put together
    BUCKET_BATCHES = 0xBA7C  # the order of such batches
    STRETCH_WORDS = 0x57E7C4  # the words of tokens in a `StretchHash`; a key by itself

    # masking
    MASKS = 0x3A5C  # the places of masks, and through UNITS what their units are
    UNITS = 0x9AF39A1B6E1C2D57  # no word of `derive`: a mask's key, xor this, is that of its units
    CORRUPTION = 0xC0DE  # what masked positions show
    PAIR_MASKS = 0x9A12  # the places of pairs of masks
    PAIR_UNITS = 0x9A13  # the units of pairs of masks

    # training
    DROPOUT = 0xD209  # the state of torch's generator for a batch

    # what is looked at, and gradient variance
    SHOWN_ROWS = 0x5A3B1E  # the rows that `fmlm masks` looks at
    SHOWN_DOCUMENTS = 0xD0C5  # the documents that `fmlm inspect` shows
    COVERED_ROWS = 0xC0FE  # the rows whose coverage a comparison looks at
    MEASUREMENT = 0x3EA5  # the seed of one measurement of gradients, from its checkpoint and corruption
    MEASURED_ROWS = 0x5E90  # the rows whose gradients are measured
    MEAN_MASKS = 0xFA0  # the masks that the mean gradient is estimated from
    RANDOM_MASKS = 0xFA1  # of the families whose gradients are measured: random masks,
    SEGMENT_MASKS = 0xFA2  # the segments of a full exploration,
    DISTANCE_MASKS = 0xFA3  # and pairs at a distance
    SKETCH = 0x5E7C  # the projection of gradients, of which these are the parts:
    SKETCH_SIGNS = 0x519  # the sign of each entry
    SKETCH_TURNS = 0x7092  # how far each stretch of entries is turned


def _as_words(values: Any) -> UInt64s:
    """Integers (negative ones in two's complement) as uint64 words."""
    array = np.asarray(values)
    if array.dtype == np.uint64:
        return array
    if array.dtype.kind == "O":  # a Python int of 2**63 or more
        return np.asarray([int(v) & 0xFFFFFFFFFFFFFFFF for v in array.ravel()], np.uint64).reshape(
            array.shape
        )
    assert array.dtype.kind in "iub", f"keys are made of integers, not {array.dtype}"
    return array.astype(np.int64).view(np.uint64) if array.dtype.kind == "i" else array.astype(np.uint64)


def _mix(z: UInt64s) -> UInt64s:
    """Stafford's variant 13 finalizer, a bijection of 64-bit words. Leaves its argument as it is."""
    mixed = z >> np.uint64(30)
    mixed ^= z
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


@functools.lru_cache(maxsize=4096)
def _absorbed(number: int, *words: int) -> int:
    """The state of `derive` after the first, plain words of `number`: `_mix` in Python's integers."""
    key = _GOLDEN * number & _WORD
    for word in words:
        z = ((key ^ (word & _WORD)) + _GOLDEN) & _WORD
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
        key = z ^ (z >> 31)
    return key


def derive(*words: Any) -> UInt64s:
    """A key from a tuple of integers or integer arrays (broadcast together).

    `derive(seed, stream, row, epoch)`: the order of the words matters, and so does their number.
    """
    plain = tuple(itertools.takewhile(lambda word: isinstance(word, int), words))
    key: UInt64s = np.asarray(_absorbed(len(words), *map(int, plain)), np.uint64)
    with np.errstate(over="ignore"):
        for word in words[len(plain) :]:
            key = _mix((key ^ _as_words(word)) + GOLDEN)
    return key


def bits(key: Any, index: Any) -> UInt64s:
    """64 random bits: output number `index` of the stream that `key` starts."""
    with np.errstate(over="ignore"):
        return _mix(_as_words(key) + (_as_words(index) + np.uint64(1)) * GOLDEN)


def uniform(random_bits: UInt64s) -> npt.NDArray[np.float64]:
    """Random bits as float64 in [0, 1), with 53 bits of resolution."""
    return np.asarray((random_bits >> np.uint64(11)) * 2.0**-53)


def below(random_bits: UInt64s, n: Any) -> npt.NDArray[np.int64]:
    """Random bits as an integer in [0, n), for 0 < n <= 2**31; its bias is below n / 2**32 (Lemire 2019)."""
    product = (random_bits >> np.uint64(32)) * _as_words(n)  # below 2**63
    return (product >> np.uint64(32)).astype(np.int64)


def permute(index: Any, n: int, key: int | np.integer | UInt64s) -> npt.NDArray[np.int64]:
    """Images of `index` under a pseudo-random permutation of range(n), without building the permutation.

    A balanced Feistel network over the smallest even number of bits that holds n, walked until the image
    falls into range (Black & Rogaway 2002, "Ciphers with arbitrary finite domains"); under four steps are
    expected. `index`: int64 of any shape, each in [0, n). `key`, one or as many as `index`, so that every
    index may have a permutation of its own.
    """
    indices = np.asarray(index, dtype=np.int64)
    assert n > 0
    assert indices.size == 0 or (indices.min() >= 0 and indices.max() < n)
    # On 4 bits every Feistel network is an even permutation, which shows for a handful of rows: begin with 6.
    half = np.uint64(max(3, ((n - 1).bit_length() + 1) // 2))
    low = np.uint64((1 << int(half)) - 1)
    round_keys = [bits(key, r) for r in range(_FEISTEL_ROUNDS)]

    def once(x: UInt64s, mask: Any) -> UInt64s:
        left, right = x >> half, x & low
        for round_key in round_keys:
            k = np.broadcast_to(round_key, indices.shape)[mask]
            left, right = right, left ^ (bits(k, right) & low)
        return (left << half) | right

    everything = np.ones(indices.shape, dtype=bool)
    image = once(indices.astype(np.uint64)[everything], everything).reshape(indices.shape)
    outside = image >= np.uint64(n)
    while outside.any():
        image[outside] = once(image[outside], outside)
        outside = image >= np.uint64(n)
    return image.astype(np.int64)


class StretchHash:
    """64-bit hashes of any stretches of a sequence of tokens, from one pass over it.

    The hash of tokens t_a ... t_(b-1) is sum mix(t_i) * BASE^(i - a) modulo 2**64, mixed with its length:
    equal stretches have equal hashes wherever they stand. (Karp & Rabin 1987, with random words for the
    tokens.) Of n different stretches two share a hash with a probability of about n**2 / 2**65: 1e-7 for two
    million.
    """

    _BASE = 0xA0761D6478BD642F  # any odd number has an inverse modulo 2**64

    def __init__(self, ids: npt.NDArray[np.integer]) -> None:
        """`ids`: integers [tokens]."""
        powers, self._inverse = self._powers(1 << max(10, len(ids).bit_length()))
        self._sums = np.zeros(len(ids) + 1, np.uint64)
        np.cumsum(bits(Stream.STRETCH_WORDS, ids) * powers[: len(ids)], out=self._sums[1:])

    def __call__(self, begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> UInt64s:
        """The hashes of tokens `begin` to `end` (exclusive), int64 arrays of one shape."""
        return bits((self._sums[end] - self._sums[begin]) * self._inverse[begin], end - begin)

    @staticmethod
    @functools.lru_cache(maxsize=4)
    def _powers(number: int) -> tuple[UInt64s, UInt64s]:
        """BASE**i and BASE**-i for i from 0 to number - 1."""
        tables = []
        for base in (StretchHash._BASE, pow(StretchHash._BASE, -1, 1 << 64)):
            factors = np.full(number, base, np.uint64)
            factors[0] = 1
            tables.append(np.cumprod(factors))
        return tables[0], tables[1]

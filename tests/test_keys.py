import itertools
import math
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from fmlm_cli import keys

WORD = (1 << 64) - 1
UNLIKELY = 1e-3  # the draws are fixed, so a test passes always or never; a wrong law gives p-values far below
quick = settings(derandomize=True, deadline=None, max_examples=60)
any_int64 = st.integers(-(2**63), 2**63 - 1)
any_word = st.integers(0, WORD)


def splitmix64(state: int, number: int) -> list[int]:
    """Outputs of SplitMix64 in sequence, after the C code of Steele, Lea & Flood / Vigna."""
    outputs = []
    for _ in range(number):
        state = (state + 0x9E3779B97F4A7C15) & WORD
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
        outputs.append(z ^ (z >> 31))
    return outputs


def flips(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which of the 64 bits differ: uint8[..., 64]."""
    return np.unpackbits(np.asarray(a ^ b, np.uint64)[..., None].view(np.uint8), axis=-1)


def p_uniform(values: np.ndarray, categories: int) -> float:
    counts = np.bincount(np.asarray(values).ravel(), minlength=categories)
    assert len(counts) == categories
    return float(stats.chisquare(counts).pvalue)


class TestBits:
    def test_published_values(self) -> None:
        # https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
        expected = [
            6457827717110365317,
            3203168211198807973,
            9817491932198370423,
            4593380528125082431,
            16408922859458223821,
        ]
        assert keys.bits(1234567, np.arange(5)).tolist() == expected

    @quick
    @given(any_word, st.integers(1, 40))
    @example(WORD, 5)
    @example(2**63, 5)
    def test_by_index_equals_the_sequence(self, key: int, number: int) -> None:
        assert keys.bits(np.uint64(key), np.arange(number)).tolist() == splitmix64(key, number)

    def test_every_integer_type_and_shape_gives_the_same(self) -> None:
        for key in (0, 5, 2**63 - 1):
            expected = splitmix64(key, 12)
            assert int(keys.bits(key, 11)) == expected[11]
            assert int(keys.bits(np.int64(key), np.int32(11))) == expected[11]
            assert int(keys.bits(np.uint64(key), np.uint8(11))) == expected[11]
            assert keys.bits([key], np.arange(12).reshape(3, 4)).ravel().tolist() == expected
        both = keys.bits(np.array([[7], [8]]), np.arange(6, dtype=np.int32))
        assert both.dtype == np.uint64
        assert both.tolist() == [splitmix64(7, 6), splitmix64(8, 6)]

    def test_arguments_stay_as_they_were(self) -> None:
        key, index = np.arange(4, dtype=np.uint64), np.arange(4, dtype=np.uint64)
        keys.bits(key, index)
        keys.derive(key, index)
        keys.permute(index.astype(np.int64), 4, key)
        assert key.tolist() == index.tolist() == [0, 1, 2, 3]


class TestDerive:
    @quick
    @given(st.lists(any_int64, min_size=1, max_size=5))
    def test_python_and_numpy_integers_and_arrays_agree(self, words: list[int]) -> None:
        expected = int(keys.derive(*words))
        assert int(keys.derive(*map(np.int64, words))) == expected
        assert int(keys.derive(*(w & WORD for w in words))) == expected  # two's complement
        assert keys.derive(*([w, w] for w in words)).tolist() == [expected, expected]
        column = np.array(words)[:, None]
        assert keys.derive(column, words[0]).tolist() == [[int(keys.derive(w, words[0]))] for w in words]

    def test_narrow_negative_and_too_large_integers(self) -> None:
        assert keys.derive(np.int8(-3), 2**63 + 1) == keys.derive(-3, 2**63 + 1 - 2**64)
        assert keys.derive(True) == keys.derive(1)
        with pytest.raises(AssertionError, match="integers"):
            keys.derive(0.5)

    def test_broadcasting(self) -> None:
        rows, masks = np.arange(-2, 3), np.arange(4)
        grid = keys.derive(2**63 - 1, rows[:, None], masks)
        assert grid.shape == (5, 4)
        for (i, row), (j, mask) in itertools.product(enumerate(rows), enumerate(masks)):
            assert grid[i, j] == keys.derive(2**63 - 1, int(row), int(mask))

    def test_order_and_number_of_words_matter(self) -> None:
        tuples = [t for n in range(1, 5) for t in itertools.product((-1, 0, 1, 2), repeat=n)]
        assert len({int(keys.derive(*t)) for t in tuples}) == len(tuples) == 340

    def test_no_collisions_on_a_grid_of_seeds_rows_and_epochs(self) -> None:
        seed, row, epoch = np.ogrid[0:20, -500:500, 0:20]
        assert len(np.unique(keys.derive(seed, 77, row, epoch))) == 400_000

    @pytest.mark.parametrize("place", range(4), ids=["seed", "stream", "row", "epoch"])
    @pytest.mark.parametrize("change", ["next", "any bit"])
    def test_avalanche(self, place: int, change: str) -> None:
        generator = np.random.default_rng(place)
        words = [generator.integers(0, 1000, 4096) for _ in range(4)]
        others = list(words)
        others[place] = (
            words[place] + 1 if change == "next" else words[place] ^ (1 << generator.integers(0, 63, 4096))
        )
        flipped = flips(keys.derive(*words), keys.derive(*others))
        number = flipped.sum(axis=1)  # binomial: mean 32, standard deviation 4
        assert abs(number.mean() - 32) < 4 * 4 / math.sqrt(4096)
        assert 3.8 < number.std() < 4.2
        assert np.abs(flipped.mean(axis=0) - 0.5).max() < 4.5 * 0.5 / math.sqrt(4096)  # every bit by itself

    @pytest.mark.parametrize("place", range(4), ids=["seed", "stream", "row", "epoch"])
    def test_neighbours_are_uncorrelated_and_uniform(self, place: int) -> None:
        words: list[object] = [0, 1, 2, 3]
        words[place] = np.arange(20_001)
        u = keys.uniform(keys.derive(*words))
        assert stats.kstest(u, "uniform").pvalue > UNLIKELY
        for lag in (1, 2, 7):
            assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) < 4 / math.sqrt(20_000)
        pairs = (u[:-1] * 8).astype(int) * 8 + (u[1:] * 8).astype(int)
        assert p_uniform(pairs[::2], 64) > UNLIKELY


class TestUniform:
    def test_range_and_resolution(self) -> None:
        ends = keys.uniform(np.array([0, WORD, 1 << 11, (1 << 11) - 1, 1 << 63], np.uint64))
        assert ends.dtype == np.float64
        assert ends.tolist() == [0, 1 - 2**-53, 2**-53, 0, 0.5]

    @pytest.mark.parametrize("key", [0, 1, 2**63, WORD])
    def test_law(self, key: int) -> None:
        u = keys.uniform(keys.bits(np.uint64(key), np.arange(50_000)))
        assert u.min() >= 0
        assert u.max() < 1
        assert stats.kstest(u, "uniform").pvalue > UNLIKELY
        assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / math.sqrt(50_000)


class TestBelow:
    @quick
    @given(any_word, st.integers(1, 2**31))
    @example(WORD, 2**31)
    @example(WORD, 1)
    @example(0, 1)
    def test_is_the_scaled_high_half(self, word: int, n: int) -> None:
        drawn = keys.below(np.array([word], np.uint64), n)
        assert drawn.dtype == np.int64
        assert drawn.tolist() == [math.floor((word // 2**32) / 2**32 * n)]
        assert 0 <= drawn[0] < n

    @pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 64, 100])
    def test_law(self, n: int) -> None:
        drawn = keys.below(keys.bits(keys.derive(n), np.arange(200 * n)), n)
        assert n == 1 or p_uniform(drawn, n) > UNLIKELY

    def test_a_bound_for_each_draw(self) -> None:
        n = np.array([[1], [5], [2**31]])
        drawn = keys.below(keys.bits(3, np.arange(1000)), n)
        assert drawn.shape == (3, 1000)
        assert (drawn >= 0).all()
        assert (drawn < n).all()
        assert abs(drawn[2].mean() / 2**31 - 0.5) < 4 * math.sqrt(1 / 12 / 1000)


class TestPermute:
    SIZES = sorted({1, 2, 3, 5, 6, 7, *(2**e + d for e in range(2, 13) for d in (-1, 0, 1)), 1000, 3001})

    @pytest.mark.parametrize("n", SIZES)
    def test_is_a_permutation(self, n: int) -> None:
        for key in (0, 1, keys.derive(n), np.uint64(WORD)):
            assert np.array_equal(np.sort(keys.permute(np.arange(n), n, key)), np.arange(n))

    @quick
    @given(st.integers(1, 300), any_word)
    def test_is_a_permutation_under_any_key(self, n: int, key: int) -> None:
        image = keys.permute(np.arange(n), n, np.uint64(key))
        assert image.dtype == np.int64
        assert sorted(image.tolist()) == list(range(n))

    @pytest.mark.parametrize("n", [10**9 - 1, 10**9, 2**30, 2**30 + 1, 2**31, 2**40 + 7])
    def test_large_domains(self, n: int) -> None:
        sample = np.unique(
            np.concatenate([np.arange(1000), n - 1 - np.arange(1000), np.linspace(0, n - 1, 20_000)]).astype(
                np.int64
            )
        )
        image = keys.permute(sample, n, keys.derive(n))
        assert image.min() >= 0
        assert image.max() < n
        assert len(np.unique(image)) == len(sample)
        assert stats.kstest(image[:1000] / n, "uniform").pvalue > UNLIKELY  # neighbours are spread
        assert abs(np.corrcoef(sample, image)[0, 1]) < 4 / math.sqrt(len(sample))

    @quick
    @given(st.integers(1, 200), st.lists(any_word, min_size=1, max_size=4))
    def test_a_key_for_each_index_equals_one_by_one(self, n: int, several: list[int]) -> None:
        key = np.array(several, np.uint64)
        whole = keys.permute(np.tile(np.arange(n), (len(key), 1)), n, key[:, None])
        for k, row in zip(key, whole, strict=True):
            assert np.array_equal(row, keys.permute(np.arange(n), n, k))
            assert int(keys.permute(n - 1, n, k)) == row[-1]

    def test_no_index_at_all(self) -> None:
        assert keys.permute(np.empty((0,), np.int64), 5, 1).shape == (0,)
        for wrong in (-1, 5):
            with pytest.raises(AssertionError):
                keys.permute(wrong, 5, 1)

    @pytest.mark.parametrize("index", [0, 3, 6])
    def test_image_is_uniform_over_keys(self, index: int) -> None:
        key = keys.derive(5, np.arange(7000))
        assert p_uniform(keys.permute(np.full(7000, index), 7, key), 7) > UNLIKELY

    @pytest.mark.parametrize(("n", "tolerance"), [(2, 0), (3, 0), (4, 0), (5, 0.1), (6, 0.15)])
    def test_every_permutation_is_equally_likely(self, n: int, tolerance: float) -> None:
        """`tolerance`: relative deviation of the cells. A balanced Feistel network is an even permutation of
        its 16 or more points, which is felt a little where n is small."""
        number = 100 * math.factorial(n)
        images = keys.permute(
            np.tile(np.arange(n), (number, 1)), n, keys.derive(9, np.arange(number))[:, None]
        )
        counts = np.unique(images @ n ** np.arange(n), return_counts=True)[1]
        cells = math.factorial(n)
        assert len(counts) == cells
        statistic = ((counts - 100) ** 2 / 100).sum()
        assert stats.ncx2.sf(statistic, cells - 1, max(number * tolerance**2, 1e-9)) > UNLIKELY

    def test_neighbouring_keys_give_unrelated_permutations(self) -> None:
        n, number = 500, 200
        images = keys.permute(np.tile(np.arange(n), (number, 1)), n, np.arange(number)[:, None])
        agreements = (images[1:] == images[:-1]).sum(axis=1)  # Poisson(1)
        assert abs(agreements.mean() - 1) < 4 / math.sqrt(number)
        assert agreements.max() < 8
        correlation = np.array([np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(images)]) * math.sqrt(
            n - 1
        )
        assert stats.kstest(correlation, "norm").pvalue > UNLIKELY
        assert abs(np.corrcoef(images[:, :-1].ravel(), images[:, 1:].ravel())[0, 1]) < 4 / math.sqrt(
            n * number
        )


class TestStreams:
    def test_no_two_are_the_same(self) -> None:
        assert len(set(map(int, keys.Stream))) == len(keys.Stream.__members__)  # aliases are members, too

    def test_values_stay_as_they_are(self) -> None:
        """If this fails, the same seed gives another run than it gave before."""
        values = sorted(map(int, keys.Stream))
        assert sha256(repr(values).encode()).hexdigest()[:16] == "cb7e93e104a99354"

    @pytest.mark.parametrize("stream", keys.Stream)
    def test_is_the_plain_number(self, stream: keys.Stream) -> None:
        rows = np.arange(-2, 2)
        assert keys.derive(stream) == keys.derive(int(stream))
        assert keys.derive(5, stream, 7) == keys.derive(5, int(stream), 7)
        assert np.array_equal(keys.derive(5, stream, rows, 3), keys.derive(5, int(stream), rows, 3))
        assert np.array_equal(keys.derive(rows, stream), keys.derive(rows, int(stream)))
        assert np.array_equal(keys.bits(stream, [0, 9]), keys.bits(int(stream), [0, 9]))


class TestStretchHash:
    BASE = 0xA0761D6478BD642F

    def reference(self, ids: list[int]) -> int:
        """The definition, in Python's whole numbers."""
        words = keys.bits(0x57E7C4, np.array(ids, np.int64)).tolist()
        total = sum(word * pow(self.BASE, i, 1 << 64) for i, word in enumerate(words)) & WORD
        return splitmix64(total, len(ids) + 1)[len(ids)]

    @quick
    @given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.data())
    def test_is_its_definition_wherever_it_stands(self, ids: list[int], data: st.DataObject) -> None:
        begin = data.draw(st.integers(0, len(ids)))
        end = data.draw(st.integers(begin, len(ids)))
        hashed = keys.StretchHash(np.array(ids))
        found = hashed(np.array([begin]), np.array([end]))
        assert found.dtype == np.uint64
        assert found.tolist() == [self.reference(ids[begin:end])]

    @quick
    @given(st.lists(st.integers(0, 2), min_size=1, max_size=12))
    def test_equal_if_and_only_if_the_tokens_are(self, ids: list[int]) -> None:
        spans = [(i, j) for i in range(len(ids)) for j in range(i + 1, len(ids) + 1)]
        begin, end = np.array(spans).T
        hashes = keys.StretchHash(np.array(ids, np.uint16))(begin, end).tolist()
        by_text = {tuple(ids[i:j]): h for (i, j), h in zip(spans, hashes, strict=True)}
        assert [by_text[tuple(ids[i:j])] for i, j in spans] == hashes
        assert len(set(hashes)) == len(by_text)

    def test_long_sequences(self) -> None:
        """Beyond the powers kept for short ones, and next to the end."""
        ids = np.random.default_rng(0).integers(0, 50_000, 5000)
        ids[4990:] = ids[:10]
        hashed = keys.StretchHash(ids)
        assert hashed(np.array([0]), np.array([10])) == hashed(np.array([4990]), np.array([5000]))
        assert int(hashed(np.array([4000]), np.array([4003]))[0]) == self.reference(ids[4000:4003].tolist())

    def test_no_two_of_many_share_a_hash(self) -> None:
        pairs = np.stack(np.divmod(np.arange(1_000_000), 1000), axis=1).ravel()
        hashes = keys.StretchHash(pairs)(np.arange(0, 2_000_000, 2), np.arange(2, 2_000_001, 2))
        assert len(np.unique(hashes)) == 1_000_000
        assert p_uniform(hashes >> np.uint64(56), 256) > UNLIKELY  # first bits serve as a table's index

    def test_of_nothing(self) -> None:
        nothing = np.empty(0, np.int64)
        assert keys.StretchHash(nothing)(nothing, nothing).tolist() == []

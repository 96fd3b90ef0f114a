"""What the tests of this room share: rows of all kinds, plain loops to hold the code to, and exact laws."""

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from scipy import stats

from fmlm_cli import keys
from fmlm_cli.masking import Collocations, RowView, Strategy, get_strategy

UNLIKELY = 1e-3  # the draws are fixed, so a test passes always or never
quick = settings(derandomize=True, deadline=None, max_examples=100)
any_seed = st.integers(0, 2**63 - 1)


def keys_of(rows: int, seed: int = 0) -> np.ndarray:
    return keys.derive(seed, 99, np.arange(rows))


def hash_of(tokens: Sequence[int]) -> int:
    hashed = keys.StretchHash(np.array(tokens, np.int64))
    return int(hashed(np.array([0]), np.array([len(tokens)]))[0])


def collocations_of(grams: Iterable[Sequence[int]]) -> Collocations:
    return Collocations(np.array(sorted(map(hash_of, grams)), np.uint64))


# Over the ids of `Rows`: nested, overlapping, repeating, of two to eight tokens.
GRAMS = {
    (0, 1),
    (1, 2),
    (0, 1, 2),
    (2, 3, 0),
    (3, 3),
    (1, 0, 2, 1),
    (0, 0, 0, 0, 0),
    (2, 2, 1),
    (1, 1),
    (3, 2, 1, 0, 3, 2, 1, 0),
}
COLLOCATIONS = collocations_of(GRAMS)


def strategy_of(name: str, **given: Any) -> Strategy:
    """A built-in strategy; pmi with the collocations GRAMS."""
    return get_strategy(name, **{"collocations": COLLOCATIONS if "pmi" in name else None, **given})


def said_by(strategy: Strategy) -> tuple[Any, ...]:
    """What a strategy says of itself, for others to decide by."""
    s = strategy
    return (s.segments, s.exploration, s.scope, set(s.needs), s.joins_words)


@dataclass(frozen=True)
class Rows:
    """What a strategy is given, for some rows."""

    maskable: np.ndarray
    word_starts: np.ndarray
    input_ids: np.ndarray
    row_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.maskable)

    @property
    def view(self) -> RowView:
        return RowView(self.maskable, self.word_starts, self.row_ids, self.input_ids)

    def of(self, chosen: Any) -> "Rows":
        return Rows(
            self.maskable[chosen], self.word_starts[chosen], self.input_ids[chosen], self.row_ids[chosen]
        )

    def masks(self, strategy: Strategy, epoch: Any = 0, seed: int = 0) -> np.ndarray:
        return strategy.masks(self.view, epoch, seed)

    def units(self, strategy: Any, epoch: Any = 0, seed: int = 0, *, mask: int = 0) -> list[list[list[int]]]:
        """The columns of every row's units that one of its masks is made of."""
        starts = strategy.units(self.view, epoch, seed)
        return units_in(self.maskable, starts[:, mask])

    def passes(self, strategy: Strategy, epochs: Iterable[int], seed: int = 0) -> np.ndarray:
        """The masks of all these passes: bool[rows, passes * masks, length]."""
        return np.concatenate([self.masks(strategy, epoch, seed) for epoch in epochs], axis=1)


@st.composite
def any_rows(draw: st.DrawFn, least: int = 0) -> Rows:
    """Rows with padding, documents, unknown tokens, nothing maskable, of one position, or no rows at all."""
    rows, length = draw(st.integers(least, 5)), draw(st.sampled_from([1, 2, 3, 7, 16, 45]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    densities = st.sampled_from([0.0, 0.4, 0.8, 0.95, 1.0])
    maskable = rng.random((rows, length)) < np.array([draw(densities) for _ in range(rows)])[:, None]
    maskable &= (
        np.arange(length) < rng.integers(0, 2 * length + 1, rows)[:, None]
    )  # padding in about half of them
    word_starts = rng.random((rows, length)) < draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    input_ids = rng.integers(0, draw(st.sampled_from([1, 2, 4])), (rows, length))
    return Rows(maskable, word_starts, input_ids, rng.integers(-(2**63), 2**63 - 1, rows))


def alike(pattern: Sequence[int], rows: int, first: int = 0, ids: Sequence[int] | None = None) -> Rows:
    """The same row many times. `pattern`: 0 not maskable, 1 goes on with a word, 2 begins one."""
    one = np.asarray(pattern)
    wide = [one > 0, one == 2, np.arange(len(one)) if ids is None else np.asarray(ids)]
    return Rows(*(np.tile(each, (rows, 1)) for each in wide), np.arange(first, first + rows))  # type: ignore[arg-type]


def words_of(sizes: Iterable[int]) -> list[int]:
    """The pattern of words of these sizes."""
    return [kind for size in sizes for kind in [2] + [1] * (size - 1)]


def units_in(maskable: np.ndarray, starts: np.ndarray) -> list[list[list[int]]]:
    """The columns of every row's units, by a plain loop."""
    units: list[list[list[int]]] = []
    for row in range(len(maskable)):
        units.append([])
        for column in range(maskable.shape[1]):
            if maskable[row, column]:
                if starts[row, column] or column == 0 or not maskable[row, column - 1]:
                    units[row].append([])
                units[row][-1].append(column)
    return units


def check_whole(masks: np.ndarray, units: list[list[list[int]]]) -> None:
    """bool[rows, length] in which every unit is masked as a whole or not at all."""
    for row, its_units in zip(masks, units, strict=True):
        for unit in its_units:
            assert len(set(row[unit].tolist())) == 1, f"a unit was split: {unit} of {row.astype(int)}"


def check_sizes(masks: np.ndarray, units: list[list[list[int]]], rate: float) -> None:
    """Every mask of bool[rows, masks, length] as near to rate * n as whole units allow."""
    for row, its_units in zip(masks, units, strict=True):
        largest = max(map(len, its_units), default=0)
        share = Fraction(rate).limit_denominator(10_000) * sum(map(len, its_units))
        for size in row.sum(axis=1).tolist():
            if largest > 1:
                assert abs(size - share) <= largest
            else:
                assert math.floor(share) <= size <= math.ceil(share)


def p_of(drawn: Iterable[Hashable], law: Mapping[Any, Any], *, within: bool = True) -> float:
    """Of a chi-square test that `drawn` follow a law. With `within`, what it rules out must never occur."""
    counts = Counter(drawn)
    assert not within or counts.keys() <= law.keys(), f"impossible: {counts.keys() - law.keys()}"
    expected = np.array([float(p) for p in law.values()]) * sum(counts.values())
    assert expected.min() >= 4, "too few draws for the test"
    if len(law) == 1:
        return 1.0
    return float(stats.chisquare([counts[cell] for cell in law], expected).pvalue)


def p_alike(drawn: Iterable[Hashable], possible: Iterable[Hashable]) -> float:
    """Of a chi-square test that what is possible, and nothing else, occurs, all of it equally often."""
    cells = list(possible)
    return p_of(drawn, dict.fromkeys(cells, Fraction(1, len(cells))))


def p_independent(first: Iterable[Any], second: Iterable[Any]) -> float:
    """Of a chi-square test of independence between paired draws."""
    _, a = np.unique(np.asarray(list(first)), return_inverse=True, axis=0)
    _, b = np.unique(np.asarray(list(second)), return_inverse=True, axis=0)
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a.ravel(), b.ravel()), 1)
    assert min(table.shape) > 1
    return float(stats.chi2_contingency(table).pvalue)


def p_same_law(first: Iterable[int], second: Iterable[int]) -> float:
    """Of a chi-square test that two samples of small numbers have one law; rare values are pooled at the
    ends."""
    a, b = np.asarray(list(first)), np.asarray(list(second))
    both = np.concatenate([a, b])
    edges = np.unique(np.quantile(both, np.linspace(0, 1, 13), method="inverted_cdf"))
    assert len(edges) > 1
    table = [np.bincount(np.searchsorted(edges, each), minlength=len(edges)) for each in (a, b)]
    return float(stats.chi2_contingency(table).pvalue)


def where(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask).tolist())


def window_law(sizes: Sequence[int], share: Fraction, number: int) -> dict[tuple[int, ...], Fraction]:
    """The law of `number` neighbouring windows on a circle of units, by enumeration.

    Of each unit the number of the window it falls into, -1 for none. All orders of the units, and all places
    of the first window on a continuous circle, are equally likely.
    """
    law: dict[tuple[int, ...], Fraction] = Counter()  # type: ignore[assignment]
    n = sum(sizes)
    orders = list(itertools.permutations(range(len(sizes))))
    for order in orders:
        middle = [Fraction(0)] * len(sizes)
        laid = 0
        for unit in order:
            middle[unit] = Fraction(2 * laid + sizes[unit], 2)
            laid += sizes[unit]
        changes = sorted({(m - k * share * n) % n for m in middle for k in range(number + 1)})
        for begin, end in zip(changes, [*changes[1:], changes[0] + n], strict=True):
            cut = (begin + end) / 2
            window = [int((m - cut) % n / (share * n)) for m in middle]
            labels = tuple(w if w < number else -1 for w in window)
            law[labels] += (end - begin) / n / len(orders)
    assert sum(law.values()) == 1
    return dict(law)


def labels_of(masks: np.ndarray) -> np.ndarray:
    """Which mask each position is in, -1 for none: int[rows, length]."""
    return np.where(masks.any(axis=1), masks.argmax(axis=1), -1)


def p_each_position(masks: np.ndarray, positions: Any, rate: float) -> float:
    """Of binomial tests that each position of bool[rows, length] is masked with probability `rate`
    (Bonferroni)."""
    counts = masks[:, positions].sum(axis=0).tolist()
    return min(stats.binomtest(count, len(masks), rate).pvalue for count in counts) * len(counts)


def by_first_column(masks: np.ndarray, pattern: list[int]) -> list[tuple[int, ...]]:
    """Of every row of bool[rows, masks, length], which mask each of the words of `pattern` is in, -1 for
    none."""
    one = alike(pattern, 1)
    first = [unit[0] for unit in units_in(one.maskable, one.word_starts)[0]]
    return [tuple(labels) for labels in labels_of(masks)[:, first].tolist()]

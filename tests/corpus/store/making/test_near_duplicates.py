"""Near-duplicates against sets of runs of words that are compared one by one."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlm_cli.corpus.store.making.near_duplicates import ALIKE, HASHES, RUN, repeats_nearly, signatures
from fmlm_cli.corpus.tokenizer.literal import Encoded


def encoded(documents: list[list[list[int]]]) -> Encoded:
    """Documents of words of tokens."""
    tokens = [[token for word in words for token in word] for words in documents]
    starts = [[place == 0 for word in words for place in range(len(word))] for words in documents]
    return Encoded(
        np.array([t for one in tokens for t in one], np.uint16),
        np.array([s for one in starts for s in one], np.bool_),
        np.array([len(one) for one in tokens], np.int64),
    )


def runs(words: list[list[int]]) -> set[Any]:
    """The runs of five words of a document; all of a shorter one."""
    size = min(RUN, len(words))
    spelt = [tuple(map(tuple, words[i : i + size])) for i in range(len(words) - size + 1)]
    return {tuple(token for word in run for token in word) for run in spelt}


def resemblance(one: set[Any], other: set[Any]) -> float:
    return len(one & other) / len(one | other)


_word = st.lists(st.integers(0, 3), min_size=1, max_size=3)
_documents = st.lists(st.lists(_word, min_size=1, max_size=12), min_size=1, max_size=6)


@settings(max_examples=60)
@given(_documents)
def test_equal_sets_of_runs_have_equal_signatures_and_others_do_not(documents: list[list[list[int]]]) -> None:
    made = signatures(encoded(documents))
    assert made.shape == (len(documents), HASHES) and made.dtype == np.uint32
    for i, one in enumerate(documents):
        for j, other in enumerate(documents):
            assert (made[i] == made[j]).all() == (runs(one) == runs(other))
        assert (signatures(encoded([one])) == made[i]).all()  # whatever stands beside it


def test_the_share_that_agrees_estimates_the_resemblance() -> None:
    draw = random.Random(1)
    for changes in (1, 2, 5, 10, 20, 60):
        one = [[draw.randrange(1000)] for _ in range(300)]
        other = [
            [draw.randrange(1000)] if place % 300 < changes * 5 and place % 5 == 0 else word
            for place, word in enumerate(one)
        ]
        made = signatures(encoded([one, other]))
        true = resemblance(runs(one), runs(other))
        assert abs(np.mean(made[0] == made[1]) - true) < 4.5 * (true * (1 - true) / HASHES) ** 0.5 + 1e-9


def with_changes(words: list[list[int]], number: int, draw: random.Random) -> list[list[int]]:
    changed = list(words)
    for place in draw.sample(range(len(words)), number):
        changed[place] = [draw.randrange(5000, 9000)]
    return changed


@pytest.mark.parametrize("seed", range(2))
def test_what_is_left_out_against_brute_force(seed: int) -> None:
    """Pairs are clearly alike (0.9 and more) or clearly not (0.5 and less), so that nothing is left to chance."""
    draw = random.Random(seed)
    originals = [[[draw.randrange(3000)] for _ in range(draw.randrange(300, 400))] for _ in range(60)]
    documents = list(originals)
    for _ in range(120):
        words = draw.choice(originals)
        documents.append(with_changes(words, draw.choice([0, 1, 1, len(words) // 6]), draw))
    draw.shuffle(documents)
    wanted: list[bool] = []
    sets = [runs(words) for words in documents]
    for number, own in enumerate(sets):
        alike = [resemblance(own, sets[i]) for i in range(number) if not wanted[i]]
        assert all(value <= 0.5 or value >= 0.9 for value in alike)
        wanted.append(any(value >= ALIKE for value in alike))
    assert 20 < sum(wanted) < 110
    assert repeats_nearly(signatures(encoded(documents))).tolist() == wanted


def test_a_document_like_one_that_was_left_out_is_kept() -> None:
    """Going from one to the next, each is like the one before; the first is far from the last."""
    draw = random.Random(3)
    chain = [[[draw.randrange(3000)] for _ in range(200)]]
    for step in range(12):
        words = list(chain[-1])
        words[step * 16] = [9000]
        chain.append(words)
    made = signatures(encoded(chain))
    agreeing = np.mean(made[:, None] == made[None], axis=2)
    kept: list[int] = []
    for number in range(len(chain)):
        if not any(agreeing[number, other] >= ALIKE for other in kept):
            kept.append(number)
    assert 1 < len(kept) < 6
    assert np.flatnonzero(~repeats_nearly(made)).tolist() == kept


def test_no_documents() -> None:
    assert repeats_nearly(np.empty((0, HASHES), np.uint32)).tolist() == []

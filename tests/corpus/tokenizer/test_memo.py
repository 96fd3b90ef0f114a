"""The memo of words: the tokens of every text are those of the whole text, whatever was met before."""

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.corpus.tokenizer.literal import Encoded
from tests.corpus.tokenizer.pipelines import ADDED, GAPS, KINDS, WORDS, odd_texts, trained

CASES = [(kind, "") for kind in KINDS] + [(k, a) for k in ("bert", "gpt2", "nmt") for a in ADDED]
NASTY = st.lists(
    st.tuples(st.sampled_from(WORDS) | st.text(max_size=3), st.sampled_from(GAPS)), max_size=12
).map(lambda parts: "".join(itertools.chain.from_iterable(parts)))


@cache
def encoders(kind: str, added: str = "") -> tuple[Encoder, Encoder]:
    """One that looks words up, and one that encodes every text whole."""
    tokenizer = trained(kind, added)
    return Encoder(tokenizer), Encoder(tokenizer, memo=False)


def same(found: Encoded, expected: Encoded) -> None:
    for name in ("lengths", "input_ids", "word_starts"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs), name


def check(kind: str, added: str, texts: list[str]) -> None:
    looking_up, whole = encoders(kind, added)
    found, expected = looking_up(texts), whole(texts)
    for text, one, other in zip(texts, found.each(), expected.each(), strict=True):
        assert one[0].tolist() == other[0].tolist(), repr(text)
        assert one[1].tolist() == other[1].tolist(), repr(text)
    same(found, expected)


@pytest.mark.parametrize(("kind", "added"), CASES)
def test_odd_texts_have_the_tokens_of_the_whole(kind: str, added: str) -> None:
    for seed in (1, 2):
        check(kind, added, list(odd_texts(seed, 70)))


@pytest.mark.parametrize("kind", KINDS)
def test_any_texts_have_the_tokens_of_the_whole(kind: str) -> None:
    @settings(max_examples=15, deadline=None)
    @given(st.lists(NASTY, max_size=4))
    def checked(texts: list[str]) -> None:
        check(kind, "", texts)

    checked()


@pytest.mark.parametrize("kind", KINDS)
def test_which_texts_can_be_cut(kind: str) -> None:
    assert bool(encoders(kind)[0]._cuts.separators) == KINDS[kind][3]

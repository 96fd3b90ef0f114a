"""The mixture of row streams, against counting them one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.corpus.rows.mixture import Mixture

SHARES = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**63 - 1)


@given(shares=SHARES, seed=SEEDS)
def test_every_stream_is_read_from_its_beginning_without_gaps(shares: list[float], seed: int) -> None:
    """The defining property: the place of a row is how often its stream was drawn before."""
    stream, place = Mixture(shares, seed).locate(np.arange(400))
    for number in range(len(shares)):
        assert place[stream == number].tolist() == list(range(int((stream == number).sum())))


@given(shares=SHARES, seed=SEEDS, begin=st.integers(0, 10**11), length=st.integers(1, 300))
def test_any_stretch_holds_the_shares(shares: list[float], seed: int, begin: int, length: int) -> None:
    stream, _ = Mixture(shares, seed).locate(np.arange(begin, begin + length))
    counts = np.bincount(stream, minlength=len(shares))
    wanted = length * np.array(shares) / sum(shares)
    # Each split is right to within one; a stream lies behind at most all splits before it.
    assert np.abs(counts - wanted).max() <= len(shares)


@given(shares=SHARES, seed=SEEDS, position=st.integers(0, 10**6), other=st.integers(0, 10**6))
def test_the_draw_is_a_function_of_seed_and_position(
    shares: list[float], seed: int, position: int, other: int
) -> None:
    mixture = Mixture(shares, seed)
    alone = [part.tolist() for part in mixture.locate(np.array([position]))]
    among = [part[1:].tolist() for part in Mixture(shares, seed).locate(np.array([other, position]))]
    assert alone == among


@given(shares=SHARES, seed=SEEDS, positions=st.integers(0, 500))
def test_counts(shares: list[float], seed: int, positions: int) -> None:
    mixture = Mixture(shares, seed)
    stream, _ = mixture.locate(np.arange(positions))
    assert mixture.counts(positions) == np.bincount(stream, minlength=len(shares)).tolist()
    assert sum(mixture.counts(10**11)) == 10**11


def test_the_seed_decides_where_streams_fall() -> None:
    drawn = {tuple(Mixture([0.8, 0.2], seed).locate(np.arange(12))[0].tolist()) for seed in range(40)}
    assert len(drawn) == 5  # a share of 1/5 falls on one of five places


def test_one_stream_is_itself() -> None:
    stream, place = Mixture([3.0], 1).locate(np.arange(5, 9))
    assert stream.tolist() == [0, 0, 0, 0]
    assert place.tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_shares_are_exact_in_the_long_run(share: float) -> None:
    counts = Mixture([1 - share, share], 0).counts(2**38)
    assert counts[1] / 2**38 == pytest.approx(share, abs=1e-7)

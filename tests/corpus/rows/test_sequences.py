"""Labelled texts as tokens, and batches of one length."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from fmlm_cli.corpus.rows.buckets import WINDOW, LengthBuckets, by_length
from fmlm_cli.corpus.rows.sequences import encode, encode_once


@pytest.fixture(params=["wordpiece", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return request.getfixturevalue(f"{request.param}_tokenizer")


@pytest.mark.parametrize("pairs", [False, True])
def test_sequences_are_what_the_tokenizer_makes_of_each_text_alone(
    tokenizer: PreTrainedTokenizerFast, documents: list[str], pairs: bool
) -> None:
    first, second = documents[:40], documents[40:80] if pairs else None
    got = encode(tokenizer, first, second, 50)
    long = 0
    for i, text in enumerate(first):
        wanted = tokenizer(text, second[i] if second else None, truncation=True, max_length=50)
        whole = tokenizer(text, second[i] if second else None)["input_ids"]
        long += len(whole) > 50
        part = slice(got.offsets[i], got.offsets[i + 1])
        assert got.tokens[part].tolist() == wanted["input_ids"]
        if got.types is not None:
            assert got.types[part].tolist() == wanted["token_type_ids"]
    assert got.cut == long > 0
    assert (got.types is not None) == ("token_type_ids" in tokenizer.model_input_names)


def test_padding_is_what_the_tokenizer_pads(tokenizer: PreTrainedTokenizerFast, documents: list[str]) -> None:
    made = encode(tokenizer, documents[:12], documents[12:24], 40)
    index = np.array([3, 11, 0, 7])
    wanted = tokenizer(
        [documents[i] for i in index],
        [documents[12 + i] for i in index],
        truncation=True,
        max_length=40,
        padding=True,
        return_token_type_ids=True,
        return_tensors="np",
    )
    ids, types, present = made.padded(index, tokenizer.pad_token_id)
    assert np.array_equal(ids, wanted["input_ids"])
    assert np.array_equal(present, wanted["attention_mask"])
    assert types is None or np.array_equal(types * present, wanted["token_type_ids"] * present)
    wider, _, _ = made.padded(index, tokenizer.pad_token_id, multiple=16)
    assert wider.shape[1] == -(-ids.shape[1] // 16) * 16
    assert (wider[:, ids.shape[1] :] == tokenizer.pad_token_id).all()


def test_they_are_made_once(
    wordpiece_tokenizer: PreTrainedTokenizerFast,
    bpe_tokenizer: PreTrainedTokenizerFast,
    documents: list[str],
    tmp_path: Path,
) -> None:
    """The same texts, tokenizer and length: from the file. Anything else, or a damaged file: anew."""
    made = encode_once(tmp_path, wordpiece_tokenizer, documents[:9], None, 30, "texts")
    [file] = tmp_path.iterdir()
    stamp = file.stat().st_mtime_ns
    again = encode_once(tmp_path, wordpiece_tokenizer, ["never read"], None, 30, "texts")
    assert np.array_equal(again.tokens, made.tokens) and np.array_equal(again.offsets, made.offsets)
    assert again.cut == made.cut and file.stat().st_mtime_ns == stamp
    encode_once(tmp_path, wordpiece_tokenizer, documents[:9], None, 31, "texts")
    encode_once(tmp_path, wordpiece_tokenizer, documents[9:18], None, 30, "others")
    encode_once(tmp_path, bpe_tokenizer, documents[:9], None, 30, "texts")
    assert len(list(tmp_path.iterdir())) == 4
    whole = file.read_bytes()
    for damaged in (whole[:-5], whole[:-5] + b"\1" + whole[-4:], b""):
        file.write_bytes(damaged)
        mended = encode_once(tmp_path, wordpiece_tokenizer, documents[:9], None, 30, "texts")
        assert np.array_equal(mended.tokens, made.tokens) and file.read_bytes() == whole


lengths = st.lists(st.integers(1, 60), min_size=1, max_size=400).map(np.array)


@given(lengths, st.integers(1, 9), st.integers(0, 2**62), st.integers(0, 3))
def test_every_sequence_comes_once_in_a_pass(own: np.ndarray, size: int, seed: int, epoch: int) -> None:
    buckets = LengthBuckets(own, size, seed)
    batches = [buckets.at(epoch * buckets.batches + number) for number in range(buckets.batches)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(own)))
    assert sorted(len(batch) for batch in batches)[1:] == [size] * (len(batches) - 1)
    for number, batch in enumerate(batches):
        assert np.concatenate(buckets.parts(epoch * buckets.batches + number)).tolist() == batch.tolist()
    again = LengthBuckets(own.copy(), size, seed)
    assert all(np.array_equal(again.at(epoch * again.batches + n), b) for n, b in enumerate(batches))


def test_passes_and_seeds_differ_and_padding_is_small() -> None:
    own = np.clip(np.random.default_rng(0).lognormal(2.5, 0.6, 5000), 3, 128).astype(np.int64)
    buckets = LengthBuckets(own, 32, 0)
    first, second = np.concatenate([buckets.at(n) for n in range(157)]), buckets.at(157)
    assert not np.array_equal(first[:32], second)
    assert not np.array_equal(LengthBuckets(own, 32, 1).at(0), buckets.at(0))
    shuffled = 1 - own.sum() / sum(32 * own[i : i + 32].max() for i in range(0, 5000, 32))
    assert buckets.padding() < 0.03
    assert shuffled > 0.3
    parts = [part for n in range(buckets.batches) for part in buckets.parts(n)]
    assert buckets.padding() == pytest.approx(1 - own.sum() / sum(len(p) * own[p].max() for p in parts))
    assert len(parts) < 1.5 * buckets.batches
    # Batches of neighbouring lengths do not come after each other.
    means = np.array([own[buckets.at(n)].mean() for n in range(WINDOW)])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.4


@given(lengths, st.integers(1, 50))
def test_by_length(own: np.ndarray, size: int) -> None:
    batches = by_length(own, size)
    flat = np.concatenate(batches)
    assert sorted(flat.tolist()) == list(range(len(own)))
    assert (np.diff(own[flat]) <= 0).all()
    assert all(len(batch) == size for batch in batches[:-1])

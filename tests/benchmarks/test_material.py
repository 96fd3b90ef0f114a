"""Stores as benches make them: of the size of BERT's vocabulary, of Zipf's law, of the lengths asked for."""

from pathlib import Path

import numpy as np
import pytest

from fmlm_cli.corpus.store.reading import TokenStore
from tests.benchmarks.material import (
    SPECIAL,
    VOCABULARY,
    log_normal_lengths,
    make_models,
    make_store,
    make_tokenizer,
    model_configs,
)


@pytest.fixture(scope="module")
def lengths() -> np.ndarray:
    return log_normal_lengths(40, 0.7, 126, 50_000)


@pytest.fixture(scope="module")
def store(lengths: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("material")
    make_store(folder / "store", make_tokenizer(folder / "tokenizer"), lengths)
    return TokenStore.open(folder / "store")


def test_lengths_are_log_normal_and_bounded(lengths: np.ndarray) -> None:
    assert 50_000 <= lengths.sum() < 50_000 + 126
    assert lengths.min() >= 5 and lengths.max() == 126
    inside = np.log(lengths[lengths < 126])
    assert np.median(lengths) == pytest.approx(40, rel=0.1) and inside.std() == pytest.approx(0.6, abs=0.1)


def test_the_store_holds_all_documents_in_both_splits(store: TokenStore, lengths: np.ndarray) -> None:
    assert store.vocabulary == VOCABULARY
    held = np.concatenate([store.split(name).lengths for name in ("train", "validation")])
    assert sorted(held) == sorted(lengths)
    assert store.has("validation")


def test_tokens_follow_zipfs_law_and_none_is_special(store: TokenStore) -> None:
    counts = store.token_counts.astype(float)
    assert not counts[: len(SPECIAL)].any()
    ordinary = counts[len(SPECIAL) :]
    # The first ranks' share of all, by the law itself.
    law = 1 / (np.arange(len(ordinary)) + 2.7)
    for ranks in (10, 100, 1000):
        assert ordinary[:ranks].sum() / ordinary.sum() == pytest.approx(
            law[:ranks].sum() / law.sum(), rel=0.05
        )


def test_every_model_has_its_config(tmp_path: Path) -> None:
    make_models(tmp_path)
    assert {path.parent.name for path in tmp_path.glob("*/config.json")} == set(model_configs())

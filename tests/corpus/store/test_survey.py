"""What a survey says of a store, against counting by hand."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.corpus.store import survey
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.store.survey import (
    Lengths,
    least_frequent,
    most_frequent,
    never_used,
    repeated_documents,
    worded,
)
from fmlm_cli.events import Event, Progress, ignore

MakeStore = Callable[..., Path]


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60))
def test_every_document_is_in_the_bin_of_its_length(lengths: list[int]) -> None:
    found = Lengths.of(np.array(lengths))
    assert found is not None
    for bin_ in found.bins:
        assert bin_.documents == sum(bin_.shortest <= length <= bin_.longest for length in lengths)
    assert sum(bin_.documents for bin_ in found.bins) == len(lengths)
    for before, after in zip(found.bins, found.bins[1:], strict=False):
        assert after.shortest == before.longest + 1
    assert (found.shortest, found.longest) == (min(lengths), max(lengths))
    assert found.median == sorted(lengths)[(len(lengths) - 1) // 2]


def test_of_no_documents_there_are_no_lengths() -> None:
    assert Lengths.of(np.empty(0, np.int64)) is None


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
def test_documents_that_repeat_others_are_counted(
    at_once: int, make_store: MakeStore, documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*documents[:20], *documents[5:9], documents[5], documents[0] + " more", "a", "b", "a"]
    store = TokenStore.open(make_store(tmp_path / "store", texts))
    monkeypatch.setattr(survey, "_HASHED_AT_ONCE", at_once)
    told: list[Event] = []
    split = store.split("train")
    expected = len(split) - len({tuple(ids.tolist()) for ids, _ in split.documents()})
    assert expected == 6
    assert repeated_documents(split, told.append) == expected
    last = told[-1]
    assert isinstance(last, Progress)
    assert last.done == last.total == split.lengths.sum()


def test_a_split_without_documents_has_no_repeats(make_store: MakeStore, tmp_path: Path) -> None:
    store = TokenStore.open(make_store(tmp_path / "store", ["a text"]))
    assert repeated_documents(store.split("validation"), ignore) == 0


def test_tokens_are_counted(tiny_store: Path) -> None:
    store = TokenStore.open(tiny_store)
    counts = Counter(token for ids, _ in store.split("train").documents() for token in ids.tolist())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    assert [(token.id, token.count) for token in most_frequent(store, 10)] == ordered[:10]
    rarest = sorted(counts.items(), key=lambda item: (item[1], item[0]))
    assert [(token.id, token.count) for token in least_frequent(store, 10)] == rarest[:10]
    ordinary = set(range(store.vocabulary)) - store.special.never_masked
    assert never_used(store) == len(ordinary - set(counts))


@pytest.mark.parametrize("kind", ["tiny_store", "tiny_bpe_store"])
def test_documents_are_parted_where_words_begin(kind: str, request: pytest.FixtureRequest) -> None:
    store = TokenStore.open(request.getfixturevalue(kind))
    split = store.split("train")
    for number, (ids, starts) in zip(range(20), split.documents(), strict=False):
        whole = worded(store, split, number, len(ids))
        assert [len(word) for word in whole.words] == np.diff([*np.flatnonzero(starts), len(ids)]).tolist()
        assert whole.tokens == len(ids)
        text = "".join(token for word in whole.words for token in word)
        plain = store.tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False)
        assert text.replace(" ", "") == plain.replace(" ", "")
        begun = worded(store, split, number, 5)
        assert sum(map(len, begun.words)) == min(5, len(ids))
        assert begun.tokens == len(ids)

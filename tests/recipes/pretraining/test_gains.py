"""The table of tokens that are predicted better: which, and how they are written."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.recipes.pretraining.report.gains import improved_tokens, keep_first_scores
from fmlm_cli.recipes.shared.held_out import Scores


@pytest.mark.parametrize(
    ("kind", "mark", "words"),
    [("tiny_store", "", ["were", "than", "about"]), ("tiny_bpe_store", "Ġ", ["your", "run"])],
)
def test_tokens_are_written_as_the_text_has_them(
    kind: str, mark: str, words: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Without a tokenizer's marks; those that fell most first, and none that rose, is common or hardly occurs."""
    store = TokenStore.open(request.getfixturevalue(kind), verify=())
    vocabulary = store.tokenizer.get_vocab()
    before, counts = np.full(len(vocabulary), 100.0), np.full(len(vocabulary), 10.0)
    run: Any = SimpleNamespace(first_scores=tmp_path / "scores")
    keep_first_scores(run, Scores({}, before, counts))
    after = before + 1
    after[vocabulary[f"{mark}the"]] = 1
    for place, word in enumerate(words):
        after[vocabulary[mark + word]] = 50 + place
    table = improved_tokens(run, Scores({}, after, counts), store)
    assert list(table) == words and table[words[0]] == "10.00 to 5.00 (10 times)"
    counts[vocabulary[mark + words[0]]] = 4
    assert list(improved_tokens(run, Scores({}, after, counts), store)) == words[1:]

"""What training changed: held-out loss before and after, and the tokens that are predicted better."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fmlm_cli import storage
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.tokenizer.words import fragment_tokens, punctuation_tokens
from fmlm_cli.recipes.shared.held_out import Scores
from fmlm_cli.storage.arrays import read_arrays, write_arrays

MIN_OCCURRENCES = 5  # of a token among the masked ones, to be worth a word
COMMON = 2e-3  # share of the training tokens above which a token is one of any text: `which`, `these`
_SHOWN = 10


Evaluations = Mapping[str, Sequence[Mapping[str, Any]]]  # records of metrics.jsonl by held-out text


def before_and_after(evaluations: Evaluations) -> dict[str, str]:
    """For each held-out text its first and last loss and accuracy."""
    rows = {}
    for name, records in evaluations.items():
        first, last = records[0], records[-1]
        rows[name] = (
            f"{first['eval_loss']:.3f} to {last['eval_loss']:.3f} "
            f"({last['eval_loss'] - first['eval_loss']:+.3f}), accuracy {first['eval_accuracy']:.1%} to "
            f"{last['eval_accuracy']:.1%}"
        )
    return rows


def has_learnt(evaluations: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a model came to predict a held-out text better than word frequencies do."""
    last = evaluations[-1]
    return bool(last["eval_loss"] < last["unigram_loss"])


def held_out_lines(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """How a held-out text came out, beside word frequencies."""
    first, last = evaluations[0], evaluations[-1]
    below = last["unigram_loss"] - last["eval_loss"]
    compared = (
        f"{below:.2f} below"
        if has_learnt(evaluations)
        else f"{-below:.2f} above: it has not yet learnt more than"
    )
    return {
        "held-out loss": f"{last['eval_loss']:.3f} (perplexity {last['eval_perplexity']:,.1f}, accuracy "
        f"{last['eval_accuracy']:.1%}), from {first['eval_loss']:.3f}",
        "unigram loss": f"{last['unigram_loss']:.3f}; the model is {compared} word frequencies",
    }


def keep_first_scores(run: storage.RunDirectory, scores: Scores) -> None:
    """Keep the losses by token that the model begins with, for the end of a run that may be interrupted."""
    tensors = {"token_losses": scores.token_losses, "token_counts": scores.token_counts}
    write_arrays(run.first_scores, tensors)


def telling_tokens(store: TokenStore) -> npt.NDArray[np.bool_]:
    """Tokens that say what a text is about: bool[vocabulary].

    They begin a word, are more than a letter and no punctuation, and are rare enough in the training split to
    be no `the` and `of`, whose losses fall in any training.
    """
    backend, counts = store.tokenizer.backend_tokenizer, store.token_counts
    begin = np.array([text.startswith(" ") for text in store.token_texts])
    parts, letters = fragment_tokens(backend)
    rare = counts <= COMMON * counts.sum()
    rare[list(store.special.never_masked)] = False
    return begin & rare & ~(parts | letters | punctuation_tokens(backend))


def improved_tokens(run: storage.RunDirectory, after: Scores, store: TokenStore) -> dict[str, str]:
    """The `telling_tokens` whose mean loss fell most since `keep_first_scores`, as rows of a table.

    Raises `UserError` where what that kept is gone or damaged.
    """
    before, texts = read_arrays(run.first_scores), store.token_texts
    enough = np.flatnonzero((after.token_counts >= MIN_OCCURRENCES) & telling_tokens(store))
    counts = after.token_counts[enough]
    old, new = before["token_losses"][enough] / counts, after.token_losses[enough] / counts
    best = np.argsort(new - old, kind="stable")[:_SHOWN]
    return {
        texts[enough[at]].strip(): f"{old[at]:.2f} to {new[at]:.2f} ({counts[at]:.0f} times)"
        for at in best
        if new[at] < old[at]
    }

"""A few texts and their ids, by which a tokenizer that was saved is known again.

A fingerprint is of the pipeline; whoever loads the files may build another one of them, or put other ends
around a text, without a word. What counts is what comes out.
"""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerFast

from fmlm_cli.corpus.tokenizer.panics import failures_as_errors
from fmlm_cli.errors import UserError

_TEXTS = (
    "The quick brown FOX doesn't jump, over 13 lazy dogs!",
    "  two  blanks,\ta tab\nand lines\n\nof (some) [brackets] - 3.14% + $5 ``quoted'' ",
    "na\u00efve caf\u00e9, cafe\u0301, \u00dcber STRASSE stra\u00dfe \u0130stanbul \u1ec7",
    "\u0447\u0442\u043e \u0419\u043e\u0433\u0430 \u03ac\u03bb\u03c6\u03b1 \u03a3\u03c3\u03c2",
    "\u0643\u0650\u062a\u064e\u0627\u0628 \u05e9\u05b8\u05dc \u0939\u093f\u0928\u094d\u0926\u0940",
    "\u65e5\u672c\u8a9e\u3002\u3072\u3089 \u30ab\u30ca \ud55c\uad6d\uc5b4",
    "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u0e20\u0e32\u0e29\u0e32\uff21\uff11\ufb01",
    "\U0001f600 \u2600\ufe0f \u201cquotes\u201d \u2014 \u20ac5 \u00bd x\u00b2 a\u200bb",
)


def probe(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Texts of several scripts, with the mask token in one, and the ids of each, special tokens with them."""
    texts = [*_TEXTS, f"one {tokenizer.mask_token} two"]
    return {"texts": texts, "ids": _ids(tokenizer, texts)}


def _ids(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    with failures_as_errors("the tokenizer cannot encode a text"):
        return [tokenizer(text)["input_ids"] for text in texts]


def check_probe(
    tokenizer: PreTrainedTokenizerFast, expected: Mapping[str, Any], name: str, remedy: str
) -> None:
    """Raise a `UserError` that names the first text of a probe of which a tokenizer makes other ids."""
    texts: list[str] = expected["texts"]
    for text, ids, found in zip(texts, expected["ids"], _ids(tokenizer, texts), strict=True):
        if ids != found:
            at = next(i for i in range(len(ids) + 1) if ids[: i + 1] != found[: i + 1])
            tokens = [tokenizer.convert_ids_to_tokens(some[at : at + 1]) for some in (found, ids)]
            made, wanted = (repr(token[0]) if token else "nothing more" for token in tokens)
            raise UserError(
                f"{name} makes other ids of {text!r} than it did: token {at + 1} is {made} and was {wanted}: "
                f"{remedy}"
            )

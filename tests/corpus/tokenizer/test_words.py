"""Words are the same thing under all tokenizers: letters and digits between blanks, and every mark by itself."""

import string
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.corpus.tokenizer.learning import train_tokenizer
from fmlm_cli.corpus.tokenizer.words import (
    is_punctuation,
    punctuation_tokens,
    token_texts,
    words_by_themselves,
)

HAN, THAI = "\u65e5\u672c\u8a9e", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35"
TEXTS = [
    "the cat, the cat's toys; cats and dogs (and mice) don't eat apples, do they?",
    'she said: "well-known facts are 3.14 or 42%!" ... and so on',
    f"{HAN} and {THAI} and \u3072\u3089\u304c\u306a have no blanks",
] * 20
KINDS = ("wordpiece", "bpe", "metaspace", "whitespace-metaspace")


@cache
def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """BERT's kind, RoBERTa's, and Unigram as ALBERT's and as XLM-R's pipelines have it."""
    if kind in ("wordpiece", "bpe"):
        return train_tokenizer(kind, TEXTS, vocab_size=420, lowercase=False)  # type: ignore[arg-type]
    backend = Tokenizer(models.Unigram())
    split = [pre_tokenizers.WhitespaceSplit()] if kind.startswith("whitespace") else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*split, pre_tokenizers.Metaspace()])
    backend.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(
            vocab_size=130, show_progress=False, unk_token="<unk>", special_tokens=special
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", mask_token="<mask>"
    )


def words_of(kind: str, text: str) -> list[str]:
    """The words that an encoder finds, as text."""
    encoded = Encoder(tokenizer(kind))([text])
    texts = token_texts(tokenizer(kind).backend_tokenizer)
    words: list[str] = []
    for token, starts in zip(encoded.input_ids[0].tolist(), encoded.word_starts[0].tolist(), strict=True):
        if starts:
            words.append("")
        words[-1] += texts[token]
    return [word.strip() for word in words if word.strip()]


@pytest.mark.parametrize("kind", KINDS)
def test_punctuation_is_a_word_of_its_own(kind: str) -> None:
    assert words_of(kind, "the cat, and dogs (mice)") == ["the", "cat", ",", "and", "dogs", "(", "mice", ")"]
    assert words_of(kind, "well-known facts") == ["well", "-", "known", "facts"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_word_is_a_run_of_letters_or_marks(kind: str) -> None:
    for text in TEXTS[:2]:
        for word in words_of(kind, text):
            inner = word.strip(string.punctuation)
            # GPT-2's pattern keeps contractions such as 's and 't together, as words of their own.
            assert not inner or inner == word or word in ("'s", "'t"), word


@pytest.mark.parametrize("kind", ["wordpiece", "metaspace", "whitespace-metaspace"])
def test_what_is_written_without_blanks_is_no_single_word(kind: str) -> None:
    """(Byte-level BPE cuts rare characters into bytes, which stay together; its pre-tokenizer decides there.)"""
    assert len(words_of(kind, HAN)) > 1
    assert "".join(words_of(kind, HAN)) == HAN


def test_a_sign_that_goes_on_a_letter_begins_no_word() -> None:
    """A Thai vowel sign as a token of its own belongs to the consonant before it."""
    backend = Tokenizer(
        models.WordPiece({"[UNK]": 0, "\u0e2a": 1, "##\u0e31": 2, "##\u0e27": 3}, unk_token="[UNK]")
    )
    backend.decoder = decoders.WordPiece()
    assert words_by_themselves(backend).tolist() == [False, True, False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_the_texts_of_a_texts_tokens_are_the_text(kind: str) -> None:
    texts = token_texts(tokenizer(kind).backend_tokenizer)
    for text in ("the cat and dogs eat apples", "so on and on"):
        (ids,) = Encoder(tokenizer(kind))([text]).input_ids
        assert "".join(texts[i] for i in ids.tolist()).strip() == text


@pytest.mark.parametrize("kind", KINDS)
def test_tables_have_an_entry_for_every_id(kind: str) -> None:
    backend = tokenizer(kind).backend_tokenizer
    size = len(tokenizer(kind))
    assert (
        len(token_texts(backend))
        == len(words_by_themselves(backend))
        == len(punctuation_tokens(backend))
        == size
    )
    assert not (punctuation_tokens(backend) & ~words_by_themselves(backend)).any()
    assert not words_by_themselves(backend)[
        [*map(tokenizer(kind).convert_tokens_to_ids, tokenizer(kind).all_special_tokens)]
    ].any()


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=4))
def test_punctuation_as_bert_understands_it(text: str) -> None:
    """Against the pre-tokenizer of the Rust library: it cuts around punctuation and nothing else."""
    cutter = pre_tokenizers.Punctuation("isolated")
    cut = [[piece for piece, _ in cutter.pre_tokenize_str(f"a{char}a")] == ["a", char, "a"] for char in text]
    assert is_punctuation(text) == (bool(text) and all(cut))


def test_punctuation_table() -> None:
    backend = tokenizer("bpe").backend_tokenizer
    found = {token_texts(backend)[i].strip() for i in np.flatnonzero(punctuation_tokens(backend))}
    assert {",", ".", "?", "(", "-", "!"} <= found
    assert all(is_punctuation(text) for text in found)

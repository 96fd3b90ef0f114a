"""Where words begin, beyond what a tokenizer's pre-tokenizer tells.

Pre-tokenizers differ: BERT's splits at blanks and around punctuation, GPT-2's keeps runs of punctuation
together, SentencePiece's (Unigram) splits at blanks alone, so that "cat," is one word and a Chinese sentence
too. For masking whole words, a token of punctuation is a word of its own under all of them, and so is a token
of a script that is written without blanks. What a token joins stays joined: byte-level BPE's "'t" and "..."
are single words, and parts of characters, which have no text, go with what stands before them.
"""

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders

_BLANK = "\u2581"  # SentencePiece's sign for a blank
_WITHOUT_BLANKS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")  # as Unicode names begin


def decoder_kinds(decoder: Mapping[str, Any] | None) -> frozenset[str]:
    """The types of a decoder, as a tokenizer.json has it, and of those that it consists of."""
    if not decoder:
        return frozenset()
    return frozenset({decoder["type"]}).union(*map(decoder_kinds, decoder.get("decoders", ())))


def token_texts(backend: Tokenizer) -> list[str]:
    """The text that each id stands for, with the blank before it where the token holds one. [vocabulary]"""
    texts = _texts_of_pieces(backend)
    for number, token in backend.get_added_tokens_decoder().items():
        if (
            token.single_word and not token.special
        ):  # as a word it has a blank before it, whatever the decoder
            texts[number] = f" {token.content}"
    return texts


def _texts_of_pieces(backend: Tokenizer) -> list[str]:
    decoder = json.loads(backend.to_str()).get("decoder") or {}
    tokens = [
        backend.id_to_token(number) or "" for number in range(backend.get_vocab_size(with_added_tokens=True))
    ]
    if decoder.get("type") == "WordPiece":
        prefix = decoder["prefix"]
        return [token.removeprefix(prefix) if token.startswith(prefix) else f" {token}" for token in tokens]
    if "ByteLevel" in decoder_kinds(decoder):
        special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
        bytes_of = decoders.ByteLevel()
        return [token if token in special else bytes_of.decode([token]) for token in tokens]
    return [token.replace(_BLANK, " ") for token in tokens]


def is_punctuation(text: str) -> bool:
    """Whether a text is nothing but punctuation, as BERT's tokenizer understands it, and holds some."""
    return bool(text) and all(
        unicodedata.category(c).startswith("P")
        or (c.isascii() and c.isprintable() and not c.isalnum() and c != " ")
        for c in text
    )


def _of_script_without_blanks(text: str) -> bool:
    return (
        bool(text)
        and not unicodedata.category(text[0]).startswith(
            "M"
        )  # a vowel sign or accent belongs to what precedes it
        and any(unicodedata.name(c, "").startswith(_WITHOUT_BLANKS) for c in text)
    )


def punctuation_tokens(backend: Tokenizer) -> npt.NDArray[np.bool_]:
    """Which ids are punctuation: bool[vocabulary]."""
    return np.array([is_punctuation(text.strip()) for text in token_texts(backend)], np.bool_)


def words_by_themselves(backend: Tokenizer) -> npt.NDArray[np.bool_]:
    """Which ids are words of their own wherever they stand: bool[vocabulary]."""
    texts = (text.strip() for text in token_texts(backend))
    return np.array([is_punctuation(text) or _of_script_without_blanks(text) for text in texts], np.bool_)

"""Where words begin: told by the characters of the text, so that it is the same under every tokenizer.

Pre-tokenizers differ: BERT's splits at blanks and around punctuation, GPT-2's cuts at combining marks and
between letters and digits, SentencePiece's (Unigram) splits at blanks alone. Here a word begins after a
blank, at a mark of punctuation and behind it, and in scripts that are written without blanks at every
grapheme and behind it. Letters, digits and all other signs do not cut. Combining marks and invisible
characters belong to what they follow, blanks to the word that they stand before.

A token begins a word if a word begins at its first character, or at one between it and the token before that
the tokenizer left out. So what a token joins stays joined: byte-level BPE's "'t" and "..." are single words,
a part of a character goes with the part before it, and a token of blanks alone, such as SentencePiece's lone
"\u2581", is the beginning of the word after it.
"""

import json
import re
import string
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders

_BLANK_SIGN = "\u2581"  # SentencePiece's

_PART = re.compile("\ufffd|^<0x[89A-F][0-9A-F]>$")  # of a character, decoded by itself or not
# What a character means for the borders of words.
_LETTER, _BLANK, _FOLLOWER, _LINKER, _PUNCTUATION, _SYLLABLE = range(6)
# Unicode blocks, first and last, of scripts that are written without blanks.
_WITHOUT_BLANKS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x2E80, 0x2FFF),  # Han radicals
    (0x3004, 0x3029),  # Han iteration mark and numbers
    (0x3031, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31FF),  # Bopomofo, strokes, Katakana extensions
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),  # Han
    (0xA980, 0xA9FF),  # Javanese, Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),  # Han
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x1AFF0, 0x1B16F),  # Kana extensions
    (0x20000, 0x3FFFD),  # Han
)
_LINKERS = "\u1039\u17d2\u1a60\u1b44\ua9c0"  # stack the next consonant under the one before
_VOWELS_THAT_FOLLOW = "\u0e33\u0eb3\uff9e\uff9f"  # part of a grapheme without being of a category of marks


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
    return [token.replace(_BLANK_SIGN, " ") for token in tokens]


def is_punctuation(text: str) -> bool:
    """Whether a text is nothing but punctuation, as BERT's tokenizer understands it, and holds some."""
    kinds = _kinds()
    return bool(text) and all(kinds[ord(character)] == _PUNCTUATION for character in text)


def is_follower(character: str) -> bool:
    """Whether a character belongs to the one before it: marks, and characters that are not seen."""
    return _kinds()[ord(character)] in (_FOLLOWER, _LINKER)


def is_linker(character: str) -> bool:
    """Whether a character draws the next one, where `may_follow_linker`, into the grapheme that it is in."""
    return character in _LINKERS


def may_follow_linker(character: str) -> bool:
    """Whether a character is of a script without blanks, so that a linker before it would draw it in."""
    return bool(_kinds()[ord(character)] == _SYLLABLE)


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    """The kind of every character: uint8[code point]. Punctuation is what BERT's tokenizer takes for it."""
    kinds = np.full(sys.maxunicode + 1, _LETTER, np.uint8)
    of_category = {"Cc": _FOLLOWER, "Cf": _FOLLOWER, "M": _FOLLOWER, "P": _PUNCTUATION, "Z": _BLANK}
    for first, last in ((0, 0x1FFFF), (0xE0000, 0xE01EF)):  # of the rest all that is assigned is Han
        categories = (unicodedata.category(chr(code)) for code in range(first, last + 1))
        kinds[first : last + 1] = [of_category.get(c, of_category.get(c[0], _LETTER)) for c in categories]
    for kind, characters in (
        (_PUNCTUATION, string.punctuation),
        (_BLANK, [chr(code) for code in range(256) if chr(code).isspace()]),
        (_FOLLOWER, _VOWELS_THAT_FOLLOW),
        (_LINKER, _LINKERS),
    ):
        kinds[list(map(ord, characters))] = kind
    for first, last in _WITHOUT_BLANKS:
        block = kinds[first : last + 1]
        block[block == _LETTER] = _SYLLABLE
    return kinds


def _of_graphemes(kinds: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """The kinds of the graphemes that characters are in, and which characters begin one."""
    follows = (kinds == _FOLLOWER) | (kinds == _LINKER)
    if not follows.any():
        return kinds, ~follows
    follows[1:] |= (kinds[1:] == _SYLLABLE) & (kinds[:-1] == _LINKER)
    first = np.maximum.accumulate(np.where(follows, 0, np.arange(len(kinds))))
    return kinds[first], ~follows


class Borders:
    """Where words begin in some well-formed texts, which are laid end to end with blanks around each."""

    def __init__(self, texts: Sequence[str]) -> None:
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        self._end = np.cumsum(lengths + 1)
        self._begin = self._end - lengths
        kinds = _kinds()[np.frombuffer(f" {' '.join(texts)} ".encode("utf-32-le"), np.uint32)]
        kinds, begins = _of_graphemes(kinds)
        cuts = kinds != _LETTER
        begins &= kinds != _BLANK
        begins[1:] &= cuts[1:] | cuts[:-1]
        self._before = np.concatenate([[0], np.cumsum(begins)])  # words begun before a character
        self._reached = self._before[:-1] + (begins | (kinds == _BLANK))  # with what a blank stands before

    def word_starts(
        self, counts: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Which tokens begin a word: bool[tokens]. The first one of a text does.

        `counts`: tokens of each text. `offsets`: int64[tokens, 2], the characters of its text that each
        stands for, from and to (exclusive).
        """
        begin, end = (offsets + np.repeat(self._begin, counts)[:, None]).T
        of_text = np.repeat(self._before[self._end], counts)
        reached = np.minimum(self._reached[begin], of_text)  # blanks at a text's end stand before nothing
        begun = np.maximum(reached, self._before[end])
        starts = np.ones(len(offsets), np.bool_)
        starts[1:] = reached[1:] > begun[:-1]
        starts[(np.cumsum(counts) - counts)[counts > 0]] = True
        return starts


def punctuation_tokens(backend: Tokenizer) -> npt.NDArray[np.bool_]:
    """Which ids are punctuation, or blanks, which belong to what follows: bool[vocabulary]."""
    texts = (text.strip() for text in token_texts(backend))
    return np.array([not text or is_punctuation(text) for text in texts], np.bool_)


def fragment_tokens(backend: Tokenizer) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Ids that are parts of characters, and single letters of scripts with blanks: bool[vocabulary] each."""
    in_bytes = decoder_kinds(json.loads(backend.to_str()).get("decoder")) & {"ByteLevel", "ByteFallback"}
    texts, kinds = [text.strip() for text in token_texts(backend)], _kinds()
    parts = [bool(in_bytes and _PART.search(text)) for text in texts]
    letters = [len(text) == 1 and text.isalpha() and kinds[ord(text)] == _LETTER for text in texts]
    return np.array(parts, np.bool_), np.array(letters, np.bool_)

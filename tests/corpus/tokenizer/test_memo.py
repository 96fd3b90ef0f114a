"""The memo of words: the tokens of every text are those of the whole text, whatever was met before."""

import gettext
import itertools
import string
import sys
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlm_cli.corpus.tokenizer import cuts, memo
from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.corpus.tokenizer.literal import Encoded
from tests.corpus.tokenizer.pipelines import ADDED, GAPS, KINDS, WORDS, odd_texts, trained

CASES = [(kind, "") for kind in KINDS] + [(k, a) for k in ("bert", "gpt2", "nmt") for a in ADDED]
NASTY = st.lists(
    st.tuples(st.sampled_from(WORDS) | st.text(max_size=3), st.sampled_from(GAPS)), max_size=12
).map(lambda parts: "".join(itertools.chain.from_iterable(parts)))


@cache
def encoders(kind: str, added: str = "") -> tuple[Encoder, Encoder]:
    """One that looks words up, and one that encodes every text whole."""
    tokenizer = trained(kind, added)
    return Encoder(tokenizer), Encoder(tokenizer, memo=False)


def same(found: Encoded, expected: Encoded) -> None:
    for name in ("lengths", "input_ids", "word_starts"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs), name


def check(kind: str, added: str, texts: list[str]) -> None:
    looking_up, whole = encoders(kind, added)
    found, expected = looking_up(texts), whole(texts)
    for text, one, other in zip(texts, found.each(), expected.each(), strict=True):
        assert one[0].tolist() == other[0].tolist(), repr(text)
        assert one[1].tolist() == other[1].tolist(), repr(text)
    same(found, expected)


@pytest.mark.parametrize(("kind", "added"), CASES)
def test_odd_texts_have_the_tokens_of_the_whole(kind: str, added: str) -> None:
    for seed in (1, 2):
        check(kind, added, list(odd_texts(seed, 70)))


@pytest.mark.parametrize("kind", KINDS)
def test_any_texts_have_the_tokens_of_the_whole(kind: str) -> None:
    @settings(max_examples=15, deadline=None)
    @given(st.lists(NASTY, max_size=4))
    def checked(texts: list[str]) -> None:
        check(kind, "", texts)

    checked()


# Letters, and what may join them: accents, contractions, digits, what a normalizer replaces.
MIXED = st.text("aes'txyZ=-.,(_0\u00e9\u0338\u0301\u200d\u65e5 \n", max_size=14)


@pytest.mark.parametrize(
    "kind", ["bert", "bert-composed", "gpt2", "letters", "stripped", "xlm-r", "word level"]
)
def test_letters_among_punctuation_have_the_tokens_of_the_whole(kind: str) -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(MIXED, max_size=4))
    def checked(texts: list[str]) -> None:
        check(kind, "", texts)

    check(
        kind,
        "",
        ["a=\u0338b a=\u0338", "a=\x00\u0338", "cat's a't,'s (s)", "(e\u0301a aex-t", "a-9 9-a a,\u65e5"],
    )
    checked()


@pytest.mark.parametrize(
    ("kind", "letters", "marks"),
    [
        ("bert", True, set(string.punctuation)),
        ("bert-cased", True, set(string.punctuation)),
        ("gpt2", True, set(string.punctuation) - {"'"}),
        ("roberta-nfkc", True, set()),
        ("xlm-r", True, set()),
        ("letters", False, set()),
        ("newer", False, set()),
    ],
)
def test_which_tokenizers_are_given_letters_and_parted_at_marks(
    kind: str, letters: bool, marks: set[str]
) -> None:
    found = encoders(kind)[0]._cuts
    assert (found.letters is not None, set(found.marks)) == (letters, marks)


@pytest.mark.parametrize("kind", KINDS)
def test_which_texts_can_be_cut(kind: str) -> None:
    assert bool(encoders(kind)[0]._cuts.separators) == KINDS[kind][3]


# ---------------------------------------------------------------- languages

PANGRAMS = {
    "Latin": "Cats drink fresh milk, don't they? \u010de\u0161tina, \u1ec7, stra\u00dfe.",
    "Greek": "\u03b7 \u03b3\u03ac\u03c4\u03b1 \u03c0\u03af\u03bd\u03b5\u03b9 \u03bd\u03b5\u03c1\u03cc; \u03bf\u03b4\u03cc\u03c2.",
    "Cyrillic": "\u043a\u043e\u0442 \u043f\u044c\u0451\u0442 \u0432\u043e\u0434\u0443, \u0439\u043e\u0433\u0430",
    "Armenian": "\u056f\u0561\u057f\u0578\u0582\u0576 \u057b\u0578\u0582\u0580 \u056d\u0574\u0578\u0582\u0574 \u0567\u0589",
    "Georgian": "\u10d9\u10d0\u10e2\u10d0 \u10ec\u10e7\u10d0\u10da\u10e1 \u10e1\u10d5\u10d0\u10db\u10e1",
    "Hebrew": "\u05d4\u05d7\u05ea\u05d5\u05dc \u05e9\u05c1\u05d5\u05b9\u05ea\u05b6\u05d4 \u05de\u05b7\u05d9\u05b4\u05dd",
    "Arabic": "\u0627\u0644\u0642\u0637\u0629\u064f \u062a\u064e\u0634\u0631\u0628\u064f \u0627\u0644\u0645\u0627\u0621\u060c \u0645\u06cc\u200c\u0631\u0648\u062f",
    "Devanagari": "\u092c\u093f\u0932\u094d\u0932\u0940 \u092a\u093e\u0928\u0940 \u092a\u0940\u0924\u0940 \u0939\u0948\u0964",
    "Bengali": "\u09ac\u09bf\u09a1\u09bc\u09be\u09b2 \u099c\u09b2 \u0996\u09be\u09af\u09bc",
    "Gurmukhi": "\u0a2c\u0a3f\u0a71\u0a32\u0a40 \u0a2a\u0a3e\u0a23\u0a40 \u0a2a\u0a40\u0a02\u0a26\u0a40",
    "Gujarati": "\u0aac\u0abf\u0ab2\u0abe\u0aa1\u0ac0 \u0aaa\u0abe\u0aa3\u0ac0 \u0aaa\u0ac0\u0a8f",
    "Tamil": "\u0baa\u0bc2\u0ba9\u0bc8 \u0ba4\u0ba3\u0bcd\u0ba3\u0bc0\u0bb0\u0bcd \u0b95\u0bc1\u0b9f\u0bbf\u0b95\u0bcd\u0b95\u0bbf\u0bb1\u0ba4\u0bc1",
    "Telugu": "\u0c2a\u0c3f\u0c32\u0c4d\u0c32\u0c3f \u0c28\u0c40\u0c33\u0c4d\u0c33\u0c41 \u0c24\u0c3e\u0c17\u0c41\u0c24\u0c41\u0c02\u0c26\u0c3f",
    "Kannada": "\u0cac\u0cc6\u0c95\u0ccd\u0c95\u0cc1 \u0ca8\u0cc0\u0cb0\u0cc1 \u0c95\u0cc1\u0ca1\u0cbf\u0caf\u0cc1\u0ca4\u0ccd\u0ca4\u0ca6\u0cc6",
    "Malayalam": "\u0d2a\u0d42\u0d1a\u0d4d\u0d1a \u0d35\u0d46\u0d33\u0d4d\u0d33\u0d02 \u0d15\u0d41\u0d1f\u0d3f\u0d15\u0d4d\u0d15\u0d41\u0d28\u0d4d\u0d28\u0d41",
    "Sinhala": "\u0db4\u0dd6\u0dc3\u0dcf \u0dc0\u0dad\u0dd4\u0dbb \u0db6\u0ddc\u0dba\u0dd2",
    "Thai": "\u0e41\u0e21\u0e27\u0e14\u0e37\u0e48\u0e21\u0e19\u0e49\u0e33 \u0e01\u0e33\u0e25\u0e31\u0e07",
    "Khmer": "\u1786\u17d2\u1798\u17b6 \u1795\u17b9\u1780\u1791\u17b9\u1780\u17d4",
    "Myanmar": "\u1000\u103c\u1031\u102c\u1004\u103a \u101b\u1031\u101e\u1031\u102c\u1000\u103a\u1010\u101a\u103a\u104b \u1000\u1039\u1000",
    "Ethiopic": "\u12f5\u1218\u1275 \u12cd\u1203 \u1275\u1320\u1323\u1208\u127d\u1362",
    "Hangul": "\uace0\uc591\uc774\uac00 \ubb3c\uc744 \ub9c8\uc2e0\ub2e4.",
    "Han": "\u732b\u559d\u6c34\u3002 \u72d7\uff0c \u9b5a",
    "Kana": "\u306d\u3053\u304c \u307f\u305a\u3092\u3001 \u30cd\u30b3\uff9e",
}


@pytest.mark.parametrize("kind", ["bert", "gpt2", "xlm-r", "plain unigram"])
def test_many_scripts_have_the_tokens_and_words_of_the_whole(kind: str) -> None:
    texts = [
        unicodedata.normalize(form, between.join(text.split(" ")))
        for text in PANGRAMS.values()
        for form in ("NFC", "NFD", "NFKC")
        for between in (" ", "\n", "  ")
    ]
    check(kind, "", [*texts, " ".join(texts)])


def _catalogues() -> list[Path]:
    """Some sixty of the translations that happen to be installed."""
    folders = [Path(sys.prefix), Path("/usr/share/locale"), Path("/usr/share/vim")]
    every = sorted(itertools.chain.from_iterable(f.rglob("*.mo") for f in folders if f.is_dir()))
    return every[:: max(1, len(every) // 60)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "gpt2", "xlm-r"])
def test_installed_translations_have_the_tokens_and_words_of_the_whole(kind: str) -> None:
    catalogues = _catalogues()
    if not catalogues:
        pytest.skip("no translations are installed")
    for path in catalogues:
        with path.open("rb") as file:
            try:
                found: Any = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
            except (OSError, UnicodeDecodeError):
                continue
        check(kind, "", [text for text in found.values() if isinstance(text, str)][:300])


# ---------------------------------------------------------------- what is kept


def counted(number: int, first: int = 0) -> list[str]:
    return [" ".join(f"w{n}" for n in range(first, first + number))]


def rows_of(encoder: Encoder) -> int:
    assert encoder._memo is not None
    return len(encoder._memo._index)


def test_a_full_memo_grows_no_more_and_begins_anew_for_other_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "_WORDS", 100)
    monkeypatch.setattr(memo, "_GRACE", 1500)
    encoder, whole = Encoder(trained("gpt2")), encoders("gpt2")[1]
    for texts in (counted(80) * 3, counted(60, 60) * 3, counted(100, 1000) * 3):
        same(encoder(texts), whole(texts))
        assert rows_of(encoder) <= 101
    held = set(encoder._memo._index)  # type: ignore[union-attr]
    assert b" w5" in held
    assert b" w1050" not in held
    for turn in range(20):
        texts = counted(90, 1000 + turn % 2) * 3
        same(encoder(texts), whole(texts))
    held = set(encoder._memo._index)  # type: ignore[union-attr]
    assert b" w1050" in held
    assert b" w5" not in held


def test_texts_of_new_words_alone_go_to_the_tokenizer_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "_GRACE", 2000)
    encoder, whole = Encoder(trained("gpt2")), encoders("gpt2")[1]
    for turn in range(30):
        texts = counted(100, 1000 * turn)
        same(encoder(texts), whole(texts))
    assert rows_of(encoder) < 700
    usual = counted(50)
    for _ in range(60):
        same(encoder(usual * 3), whole(usual * 3))
    assert b" w30" in encoder._memo._index  # type: ignore[union-attr]


def test_a_call_that_fails_leaves_nothing_half_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, whole = Encoder(trained("gpt2")), encoders("gpt2")[1]
    encoder(["the cat"])
    for fails_at in (0, 1, 2):
        calls = itertools.count()

        def interrupted(
            texts: Any, *, of: Any = encoder._encode_anew, at: int = fails_at, n: Any = calls
        ) -> Any:
            if next(n) == at:
                raise KeyboardInterrupt
            return of(texts)

        monkeypatch.setattr(encoder._memo, "_encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            encoder([f"some {fails_at} new  words" + "x" * 50, "here  too"])
        monkeypatch.setattr(encoder._memo, "_encode", encoder._encode_anew)
        texts = [f"the new some {fails_at} cat words"]
        same(encoder(texts), whole(texts))


def test_long_words_are_not_kept() -> None:
    encoder = Encoder(trained("gpt2"))
    encoder(["the " + "x" * 41 + " cat the " + "y" * 40])
    assert encoder._memo is not None
    assert b" " + b"y" * 40 in encoder._memo._index
    assert b" " + b"x" * 41 not in encoder._memo._index


def test_letters_that_clusters_join_to_what_follows_are_all_known() -> None:
    """By another library's tables; those of category Cf are unfit by that."""
    every = regex.findall(r"\p{GCB=Prepend}", "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)])))
    assert [c for c in every if cuts.may_end(c)] == []

"""Words are the same thing under all tokenizers: letters and digits between blanks, and every mark by itself."""

import itertools
import random
import string
import unicodedata
from functools import cache

import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.corpus.tokenizer.learning import train_tokenizer
from fmlm_cli.corpus.tokenizer.literal import plain_pipeline
from fmlm_cli.corpus.tokenizer.words import (
    Borders,
    is_punctuation,
    punctuation_tokens,
    token_texts,
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
    for token, starts in zip(encoded.input_ids.tolist(), encoded.word_starts.tolist(), strict=True):
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
    assert len(words_of(kind, HAN)) > 1
    assert "".join(words_of(kind, HAN)) == HAN


@pytest.mark.parametrize("kind", KINDS)
def test_the_texts_of_a_texts_tokens_are_the_text(kind: str) -> None:
    texts = token_texts(tokenizer(kind).backend_tokenizer)
    for text in ("the cat and dogs eat apples", "so on and on"):
        ids = Encoder(tokenizer(kind))([text]).input_ids
        assert "".join(texts[i] for i in ids.tolist()).strip() == text


@pytest.mark.parametrize("kind", KINDS)
def test_tables_have_an_entry_for_every_id(kind: str) -> None:
    backend = tokenizer(kind).backend_tokenizer
    size = len(tokenizer(kind))
    assert len(token_texts(backend)) == len(punctuation_tokens(backend)) == size
    special = map(tokenizer(kind).convert_tokens_to_ids, tokenizer(kind).all_special_tokens)
    assert not punctuation_tokens(backend)[[*special]].any()


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
    assert {",", ".", "?", "(", "-", "!", ""} <= found  # blanks belong to what follows them
    assert all(is_punctuation(text) for text in found - {""})


# ---------------------------------------------------------------- the same words under every tokenizer

WORDS = {
    "Latin": "18th H2O mp3 1990s m\u00f6chte \u00e9t\u00e9 na\u00efve don't well-known \u1ec7",
    "Cyrillic": "\u0447\u0442\u043e \u0439\u043e\u0433\u0430 \u0451\u043b\u043a\u0430",
    "Greek": "\u03ac\u03bb\u03c6\u03b1 \u1f00\u03c1\u03c7\u03ae",
    "Arabic": "\u0643\u0650\u062a\u064e\u0627\u0628 \u0627\u0644\u0623\u064e \u06f1\u06f2 "
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "Hebrew": "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u05e6\u05d4\u05f4\u05dc",
    "Devanagari": "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902 \u0915\u093c",
    "Tamil": "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u0b95\u0bca",
    "Hangul": "\ud55c\uad6d\uc5b4 \uac00\ub098",
    "signs": "\u20ac5 5\u20ac \U0001f468\u200d\U0001f469 \u2600\ufe0f",
}
WITHOUT_BLANKS = {
    "Thai": "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e04\u0e23\u0e31\u0e1a\u0e19\u0e49\u0e33\u0e40\u0e25\u0e48\u0e19",
    "Lao": "\u0eaa\u0eb0\u0e9a\u0eb2\u0e8d\u0e94\u0eb5\u0e99\u0ec9\u0eb3",
    "Khmer": "\u1797\u17b6\u179f\u17b6\u1781\u17d2\u1798\u17c2\u179a",
    "Myanmar": "\u1019\u103c\u1014\u103a\u1019\u102c\u1005\u1000\u1039\u1000",
    "Han": "\u65e5\u672c\u8a9e\u3005\u3007\U00020021",
    "Kana": "\u304b\u3099\u30d1\u30fc\uff8a\uff9f\u3072\u3089",
}
SCRIPTS = WORDS | WITHOUT_BLANKS
BETWEEN = [
    " ",
    "  ",
    "\n",
    "\u3000",
    " \u0301",
    ", ",
    ".",
    "...",
    "(",
    "\u2014",
    "\u3002",
    "'",
    "\u0964",
    "",
    "",
]
PIECES = [
    unicodedata.normalize(form, word)
    for text in SCRIPTS.values()
    for word in text.split()
    for form in ("NFC", "NFD")
]
LEARNT = ("wordpiece", "bpe", "unigram", "unigram of normalized text")
_SYLLABLE = r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Han}\p{Hiragana}\p{Katakana}\u30fc]"


@cache
def learnt(kind: str) -> PreTrainedTokenizerFast:
    """Learnt on the spot from all the scripts; small, so that words fall into several tokens."""
    rng = random.Random(1)
    parts = ("".join(rng.choice(PIECES) + rng.choice(BETWEEN) for _ in range(12)) for _ in range(300))
    texts = list(parts)
    if kind in ("wordpiece", "bpe"):
        return train_tokenizer(kind, texts, vocab_size=700, lowercase=False)  # type: ignore[arg-type]
    backend = Tokenizer(models.Unigram())
    if kind != "unigram":
        backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<pad>", "<mask>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=400, show_progress=False, unk_token="<unk>", special_tokens=special
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", mask_token="<mask>"
    )


def graphemes(text: str) -> list[str]:
    """As the `regex` library cuts, but that every combining mark belongs to what it follows."""
    found: list[str] = []
    for cluster in regex.findall(r"\X", text):
        if found and (unicodedata.category(cluster[0])[0] == "M" or cluster[0] in "\u200c\u200d"):
            found[-1] += cluster
        else:
            found.append(cluster)
    return found


def read(text: str) -> tuple[list[bool], list[bool]]:
    """For each character whether a word begins with it, and whether it is a blank (or a mark on one)."""
    begins, blank, before = [], [], " "
    for grapheme in graphemes(text):
        cut = [
            bool(c in string.punctuation or regex.match(rf"\s|\p{{P}}|{_SYLLABLE}", c))
            for c in (before[0], grapheme[0])
        ]
        is_blank = grapheme[0].isspace() or regex.match(r"\p{M}", grapheme) is not None
        begins += [any(cut) and not is_blank] + [False] * (len(grapheme) - 1)
        blank += [is_blank] * len(grapheme)
        before = " " if is_blank else grapheme
    return begins, blank


@cache
def pipeline_and_encoder(kind: str) -> tuple[Tokenizer, Encoder]:
    return plain_pipeline(learnt(kind)), Encoder(learnt(kind))


def borders_of(kind: str, text: str) -> tuple[set[int], set[int]]:
    """The characters with which tokens begin, and words; blanks count to what follows them.

    A token of bytes may begin in the middle of a character: with a part that the token before it has begun.
    """
    blank = read(text)[1]
    visible = [next((j for j in range(i, len(text)) if not blank[j]), len(text)) for i in range(len(text))]
    pipeline, encoder = pipeline_and_encoder(kind)
    offsets = pipeline.encode(text, add_special_tokens=False).offsets
    places = [[*visible, len(text)][begin] for begin, _ in offsets]
    starts = encoder([text]).word_starts
    words = [p for p, starts_word in zip(places, starts, strict=True) if starts_word and p < len(text)]
    assert len(set(words)) == len(words), "a word begins twice"
    reached = [0, *itertools.accumulate((end for _, end in offsets), max)]
    whole = {place for place, (begin, _), end in zip(places, offsets, reached, strict=False) if begin >= end}
    assert set(words) <= whole, "a word begins in the middle of a character"
    return whole - {len(text)}, set(words)


# Learnt from such a text, BPE joins the last byte of one script with the first of the next.
BYTES_OF_TWO_SCRIPTS = unicodedata.normalize("NFD", "\ud55c\uad6d\uc5b4") + WITHOUT_BLANKS["Han"]
texts = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(BETWEEN)), min_size=1, max_size=8).map(
    lambda pairs: "".join(itertools.chain.from_iterable(pairs))
)


@settings(max_examples=100, deadline=None)
@example(BYTES_OF_TWO_SCRIPTS)
@given(texts)
def test_borders_of_words_agree_where_tokenizers_have_borders_of_tokens(text: str) -> None:
    found = [borders_of(kind, text) for kind in LEARNT]
    for (tokens, words), (other_tokens, other_words) in itertools.combinations(found, 2):
        assert words & other_tokens == other_words & tokens


@settings(max_examples=100, deadline=None)
@example(BYTES_OF_TWO_SCRIPTS)
@given(texts)
def test_words_begin_where_the_text_says(text: str) -> None:
    begins, _ = read(text)
    for kind in LEARNT:
        tokens, words = borders_of(kind, text)
        first = {min(tokens)} if tokens else set()
        assert words == {place for place in tokens if begins[place]} | first, kind


@pytest.mark.parametrize("kind", LEARNT)
@pytest.mark.parametrize("script", WORDS)
def test_letters_digits_and_marks_are_one_word(kind: str, script: str) -> None:
    for form in ("NFC", "NFD"):
        for word in regex.split(r"\s|\p{P}", unicodedata.normalize(form, WORDS[script])):
            assert Encoder(learnt(kind))([word]).word_starts.sum() == 1, word


@pytest.mark.parametrize("script", WITHOUT_BLANKS)
def test_each_grapheme_begins_a_word_where_there_are_no_blanks(script: str) -> None:
    """Byte-level BPE without merges has a token border at every character."""
    bpe = train_tokenizer("bpe", ["a"], vocab_size=261, lowercase=False)
    text = WITHOUT_BLANKS[script]
    assert Encoder(bpe)([text]).word_starts.sum() == len(graphemes(text))


def test_a_token_of_several_graphemes_is_one_word() -> None:
    bpe = train_tokenizer("bpe", [HAN] * 9, vocab_size=400, lowercase=False)
    starts = Encoder(bpe)([f"{HAN}{HAN}"]).word_starts
    assert starts.tolist() == [True, True]


def test_every_letter_of_a_script_without_blanks_is_known() -> None:
    every = regex.findall(_SYLLABLE, "".join(map(chr, range(0xD7FF))) + "\U00020000\uff71")
    letters = [c for c in every if regex.fullmatch(r"\p{L}", c) and c not in "\u0e33\u0eb3\uff9e\uff9f"]
    offsets = np.array([[0, 1], [1, 2], [2, 3]] * len(letters))
    starts = Borders([f"a{c}a" for c in letters]).word_starts(np.full(len(letters), 3), offsets)
    assert [c for c, cut in zip(letters, starts.reshape(-1, 3).all(axis=1), strict=True) if not cut] == []


def test_a_lone_sign_for_a_blank_is_no_word() -> None:
    backend = Tokenizer(
        models.Unigram([("<unk>", 0.0), ("\u2581", -1.0), ("a", -1.0), (",", -1.0)], unk_id=0)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    single = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", mask_token="<mask>"
    )
    encoded = Encoder(single)(["a a, a", "a "])
    first, second = encoded.each()
    assert single.convert_ids_to_tokens(first[0]) == ["\u2581", "a", "\u2581", "a", ",", "\u2581", "a"]
    assert first[1].tolist() == [True, False, True, False, True, True, False]
    assert single.convert_ids_to_tokens(second[0]) == ["\u2581", "a", "\u2581"]
    assert second[1].tolist() == [True, False, False]  # nothing follows


@pytest.mark.parametrize("kind", LEARNT)
def test_a_text_has_the_same_words_among_others(kind: str) -> None:
    """Texts are looked at many at a time."""
    some = ["", "\u0301a", " ", "b", *TEXTS[:3], *WITHOUT_BLANKS.values(), "  ", "\u200d"]
    encoder = Encoder(learnt(kind))
    for text, (_, starts) in zip(some, encoder(some).each(), strict=True):
        assert starts.tolist() == encoder([text]).word_starts.tolist()

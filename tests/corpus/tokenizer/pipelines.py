"""Pipelines of every family, trained on odd texts, so that a blank in another place has another id."""

import random
import unicodedata
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

WORDS = [
    "the",
    "cat",
    "cat's",
    "Dogs",
    "don't",
    "``x''",
    "c++",
    "3.5",
    "1,000",
    "été",
    "naïve",
    "café",
    "ẞ",
    "İi",
    "Σς",
    "straße",
    "日本",
    "x日",
    "あア",
    "한국",
    "한",
    "กำ",
    "น้ำ",
    "क़",
    "हिन्",
    "שָׁ",
    "كِ",
    "می\u200cخ",
    "္က",
    "က္က",
    "្ម",
    "ൎ",
    "𑇂",
    "😀",
    "🏻",
    "👨\u200d👩",
    "☀️",
    "🇩🇪",
    "ạ́",
    "́x",
    "x⃝",
    "ﬁ",
    "Ａ，",
    "ﾞ",
    "´",
    "¨x",
    "ͺ",
    "‗",
    "ﱞ",
    "ﹰ",
    "▁",
    "▁x",
    "x▁",
    "__",
    "--",
    "...",
    "<s>",
    "[MASK]",
    "�",
    "\xad",
    "\u200b",
    "x\u200b",
    "\u200dx",
    "\ufeff",
    "\xa0",
    "a\xa0b",
    "\u3000",
    "\u2028",
    "\x85",
    "\x00",
    "\x1f",
    "a\tb",
    "\r",
    "\ue000",
    "\u0378",
    "\U000e0041",
    "foo<|code|>bar",
    "New",
    "York",
    "C#",
    "new",
]
GAPS = [" ", " ", " ", " ", " ", "  ", "   ", "\n", "\n", "\n\n", "\n\n\n", " \n", "\n ", "\r\n", "\t", ""]


def odd_text(rng: random.Random, words: int) -> str:
    text = "".join(rng.choice(WORDS) + rng.choice(GAPS) for _ in range(words))
    return unicodedata.normalize(rng.choice(["NFC", "NFD", "NFC"]), text)


@cache
def odd_texts(seed: int = 0, number: int = 300) -> tuple[str, ...]:
    rng = random.Random(seed)
    return tuple(odd_text(rng, rng.randrange(40)) for _ in range(number))


@cache
def table_of_characters() -> normalizers.Normalizer:
    """SentencePiece's own (nmt_nfkc), as XLM-R, ALBERT and DeBERTa-v2 have it."""
    sentencepiece: Any = pytest.importorskip("sentencepiece")
    pb2: Any = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    with TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["abc abd abe"] * 9),
            model_prefix=f"{folder}/m",
            vocab_size=14,
            minloglevel=2,
            hard_vocab_limit=False,
        )
        model = pb2.ModelProto()
        model.ParseFromString((Path(folder) / "m.model").read_bytes())
    return normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)


def _normalizer(name: str) -> normalizers.Normalizer | None:
    n = normalizers
    quotes = [n.Replace("``", '"'), n.Replace("''", '"')]
    made = {
        "uncased": n.BertNormalizer,
        "cased": lambda: n.BertNormalizer(lowercase=False),
        "composed": lambda: n.Sequence([n.BertNormalizer(strip_accents=False), n.NFC()]),
        "letters": lambda: n.Sequence([n.Replace("ae", "e"), n.Replace("x-", "y")]),
        "nfkc": n.NFKC,
        "nfd": lambda: n.Sequence([n.NFD(), n.StripAccents()]),
        "xlm-r": lambda: n.Sequence([table_of_characters(), n.Replace(Regex(" {2,}"), " ")]),
        "albert": lambda: n.Sequence(
            [*quotes, n.NFKD(), n.StripAccents(), n.Lowercase(), table_of_characters()]
        ),
        "deberta": lambda: n.Sequence(
            [n.Strip(), table_of_characters(), n.Replace(Regex(" {2,}"), "\u2581")]
        ),
        "nmt": lambda: n.Sequence([n.Nmt(), n.NFKC(), n.Replace(Regex(" {2,}"), " ")]),
        "blanks": lambda: n.Sequence([n.Replace(Regex(r"\s+"), " "), n.Lowercase()]),
        "blank of a sign": lambda: n.Sequence([n.Replace("_", " "), n.Replace("-", "")]),
        "blank of two signs": lambda: n.Replace("--", " "),
    }
    return made[name]() if name in made else None


def _splitter(name: str) -> pre_tokenizers.PreTokenizer:
    p = pre_tokenizers
    newer = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    return {
        "bert": p.BertPreTokenizer,
        "bytes": lambda: p.ByteLevel(add_prefix_space=False),
        "bytes after a blank": lambda: p.ByteLevel(add_prefix_space=True),
        "newer bytes": lambda: p.Sequence(
            [p.Split(Regex(newer), "isolated"), p.ByteLevel(False, use_regex=False)]
        ),
        "metaspace": p.Metaspace,
        "metaspace first": lambda: p.Metaspace(prepend_scheme="first"),
        "words metaspace": lambda: p.Sequence([p.WhitespaceSplit(), p.Metaspace()]),
        "metaspace punctuation": lambda: p.Sequence([p.Metaspace(), p.Punctuation()]),
        "words": lambda: p.Sequence([p.Whitespace(), p.Digits(individual_digits=True)]),
        "behind blanks": lambda: p.Split(" ", "merged_with_previous"),
        "two words": lambda: p.Sequence(
            [p.Split(Regex(r"\w+ \w+"), "isolated"), p.ByteLevel(False, use_regex=False)]
        ),
        "hyphens": lambda: p.Split("-", "isolated"),
    }[name]()


# Name: normalizer, splitter, model, and whether texts can be cut.
KINDS = {
    "bert": ("uncased", "bert", "wordpiece", True),
    "bert-cased": ("cased", "bert", "wordpiece", True),
    "bert-composed": ("composed", "bert", "wordpiece", True),
    "letters": ("letters", "bytes", "bpe", True),
    "gpt2": ("", "bytes", "bpe", True),
    "roberta-nfkc": ("nfkc", "bytes after a blank", "bpe", True),
    "newer": ("", "newer bytes", "bpe", True),
    "stripped": ("nfd", "bytes", "bpe", True),
    "bert in bytes": ("uncased", "bytes", "bpe", True),
    "bert in pieces": ("uncased", "metaspace", "unigram", True),
    "xlm-r": ("xlm-r", "words metaspace", "unigram", True),
    "albert": ("albert", "metaspace", "unigram", True),
    "deberta-v2": ("deberta", "metaspace", "unigram", True),
    "t5": ("xlm-r", "metaspace first", "unigram", True),
    "plain unigram": ("", "metaspace", "unigram", True),
    "nmt": ("nmt", "metaspace punctuation", "unigram", True),
    "word level": ("blanks", "words", "wordlevel", True),
    "blank of a sign": ("blank of a sign", "bytes", "bpe", True),
    "blank of a sign in pieces": ("blank of a sign", "words metaspace", "unigram", True),
    "blank of two signs": ("blank of two signs", "bytes", "bpe", False),
    "behind blanks": ("", "behind blanks", "unigram", False),
    "two words": ("", "two words", "bpe", False),
    "hyphens": ("", "hyphens", "bpe", False),
}
ADDED = {
    "words": [
        AddedToken("cat"),
        AddedToken("c++", single_word=True),
        AddedToken("\u00e9t\u00e9", normalized=True),
    ],
    "blanks": [AddedToken(run, normalized=False) for run in ("  ", "   ", "\n\n", "\n\n\n", " ")],
    "with blank": [AddedToken(" the"), AddedToken("the", lstrip=True), AddedToken("<|code|>")],
    "words with a blank": [AddedToken(" the", single_word=True)],
    "phrase": [AddedToken("New York"), AddedToken("the\ncat")],
    "lines": [AddedToken("cat\n"), AddedToken("\nthe")],
    "rstrip": [AddedToken("the", rstrip=True)],
    "blank when normalized": [AddedToken("cat\u00a0the", normalized=True)],
}


@cache
def trained(kind: str, added: str = "") -> PreTrainedTokenizerFast:
    normalizer, splitter, model, _ = KINDS[kind]
    classes: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "wordpiece": (models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer, {}),
        "bpe": (
            models.BPE(),
            trainers.BpeTrainer,
            {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()},
        ),
        "unigram": (models.Unigram(), trainers.UnigramTrainer, {"unk_token": "[UNK]"}),
        "wordlevel": (models.WordLevel(unk_token="[UNK]"), trainers.WordLevelTrainer, {}),
    }
    empty, trainer, settings = classes[model]
    backend = Tokenizer(empty)
    if made := _normalizer(normalizer):
        backend.normalizer = made
    backend.pre_tokenizer = _splitter(splitter)
    backend.decoder = decoders.ByteLevel() if model == "bpe" else decoders.Metaspace()
    special = ["[PAD]", "[UNK]", "[MASK]"]
    backend.train_from_iterator(
        odd_texts(), trainer(vocab_size=700, show_progress=False, special_tokens=special, **settings)
    )
    backend.add_tokens(ADDED.get(added, []))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]"
    )

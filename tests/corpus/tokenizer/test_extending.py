"""More tokens: found, added, and nothing else changed."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.corpus.tokenizer.extending import extended, frequent_splits, pieces_of_new, read_words
from fmlm_cli.corpus.tokenizer.learning import train_tokenizer
from fmlm_cli.corpus.tokenizer.loading import extends, fingerprint, load_tokenizer, save_tokenizer
from fmlm_cli.corpus.tokenizer.words import token_texts
from fmlm_cli.errors import UserError
from tests.conftest import generate_documents

NEW = ["gardening", "unwritten", "teachers", "Stationmaster"]
KINDS = ["lower-case wordpiece", "wordpiece", "bpe", "unigram", "xlm-r"]
OLD = [
    "the",
    "garden",
    "x-ray",
    "write",
    "(we)",
    ",",
    "it\u2019s",
    "caf\u00e9",
    "Stationmasters",
    "gardeningx",
]


def _unigram(texts: list[str]) -> PreTrainedTokenizerFast:
    """Blanks as a letter at the beginning of words."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    roles = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **{f"{role}_token": token for role, token in roles.items()}
    )


def _like_xlm_r(texts: list[str]) -> PreTrainedTokenizerFast:
    """The same as XLM-R has it: a blank before every stretch of text, and a mask that the model does not
    know.
    """
    unigram = _unigram(texts).backend_tokenizer
    pieces = json.loads(unigram.to_str())["model"]["vocab"]
    backend = Tokenizer(models.Unigram([(t, score) for t, score in pieces if t != "<mask>"], unk_id=3))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    backend.decoder = decoders.Metaspace()
    mask = AddedToken("<mask>", lstrip=True, special=True)
    roles = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": mask}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **{f"{role}_token": token for role, token in roles.items()}
    )


@pytest.fixture(scope="module")
def tokenizers_by_kind() -> dict[str, PreTrainedTokenizerFast]:
    texts = generate_documents(100)
    return {
        "lower-case wordpiece": train_tokenizer("wordpiece", texts, vocab_size=160, lowercase=True),
        "wordpiece": train_tokenizer("wordpiece", texts, vocab_size=160, lowercase=False),
        "bpe": train_tokenizer("bpe", texts, vocab_size=400, lowercase=False),
        "unigram": _unigram(texts),
        "xlm-r": _like_xlm_r(texts),
    }


def tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    ids: Any = Encoder(tokenizer)([text]).input_ids.tolist()
    return tokenizer.convert_ids_to_tokens(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_is_one_token_wherever_it_is_a_word(
    tokenizers_by_kind: dict[str, PreTrainedTokenizerFast], kind: str
) -> None:
    base = tokenizers_by_kind[kind]
    more, left_out = extended(base, NEW)
    assert left_out == []
    assert len(more) == len(base) + len(NEW)
    assert len(base) == len(tokenizers_by_kind[kind]), "the original is as it was"
    for number, word in enumerate(word.lower() if "lower" in kind else word for word in NEW):
        assert more.convert_tokens_to_ids(word) == len(base) + number
        for text in (f"the {word} and", f"the {word}, and", f"{word} and"):
            found = tokens(more, text)
            assert found.count(word) == 1, (text, found)
        encoded = Encoder(more)([f"the {word} and"])
        place = encoded.input_ids.tolist().index(len(base) + number)
        assert encoded.word_starts[place]
        assert encoded.word_starts[place + 1]
        assert word not in tokens(more, f"the x{word} and {word}x")


def pairs(encoder: Encoder, text: str) -> list[tuple[int, bool]]:
    """Ids and word starts."""
    encoded = encoder([text])
    return list(zip(encoded.input_ids.tolist(), encoded.word_starts.tolist(), strict=True))


@pytest.fixture(scope="module")
def encoders(tokenizers_by_kind: dict[str, PreTrainedTokenizerFast]) -> dict[str, tuple[Encoder, Encoder]]:
    """Without and with the new words, the latter such that it cuts even short texts."""
    return {
        kind: (Encoder(base), Encoder(extended(base, NEW)[0], piece_length=50))
        for kind, base in tokenizers_by_kind.items()
    }


@pytest.mark.parametrize("kind", KINDS)
@given(words=st.lists(st.sampled_from(OLD + NEW), max_size=12))
def test_new_words_take_the_place_of_their_pieces_and_nothing_else_changes(
    tokenizers_by_kind: dict[str, PreTrainedTokenizerFast],
    encoders: dict[str, tuple[Encoder, Encoder]],
    kind: str,
    words: list[str],
) -> None:
    old, new = encoders[kind]
    before = len(pairs(old, "a"))
    expected: list[tuple[int, bool]] = []
    for number, word in enumerate(words):
        if word in NEW:
            expected.append((len(tokenizers_by_kind[kind]) + NEW.index(word), True))
        else:
            expected += pairs(old, f"a {word}")[before:] if number else pairs(old, word)
    assert pairs(new, " ".join(words)) == expected


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
@pytest.mark.parametrize("text", ["({}), {}!", "{}-{}", "{}'s", "x ({}) {}."])
def test_punctuation_beside_new_words_stays_too(
    tokenizers_by_kind: dict[str, PreTrainedTokenizerFast], kind: str, text: str
) -> None:
    base = tokenizers_by_kind[kind]
    more, _ = extended(base, NEW)
    text = text.format("unwritten", "unwritten")
    kept = [token for token in tokens(base, text) if not set("unwriten#\u0120") >= set(token)]
    assert [token for token in tokens(more, text) if token not in ("unwritten", "\u0120")] == kept


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_puts_blanks_before_new_words(
    tokenizers_by_kind: dict[str, PreTrainedTokenizerFast], kind: str
) -> None:
    """A byte-level decoder would take the accented letter of an added token for a byte."""
    words = [*NEW, "cafeowner" if "lower" in kind else "caf\u00e9owner"]
    more, left_out = extended(tokenizers_by_kind[kind], words[:2])
    more, others = extended(more, words[2:])
    assert left_out == others == []
    ids = [more.convert_tokens_to_ids(word) for word in ("gardening", words[-1], "teachers")]
    assert (
        more.decode(ids)
        == f"{'' if 'piece' in kind or kind[0] in 'ux' else ' '}gardening {words[-1]} teachers"
    )
    texts = token_texts(more.backend_tokenizer)
    assert [texts[number] for number in ids] == [" gardening", f" {words[-1]}", " teachers"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_added_is_left_out(
    tokenizers_by_kind: dict[str, PreTrainedTokenizerFast], kind: str
) -> None:
    base = tokenizers_by_kind[kind]
    mask = base.mask_token
    more, left_out = extended(base, ["teachers", "Teachers", "the", mask, "", "gardening"])
    same = ["Teachers"] if "lower" not in kind else []
    assert left_out == ["the", mask, ""]
    assert len(more) == len(base) + 2 + len(same)
    assert extended(base, [])[1] == []
    assert len(extended(base, ["the"])[0]) == len(base)


def test_words_with_signs_in_them(tokenizers_by_kind: dict[str, PreTrainedTokenizerFast]) -> None:
    more, left_out = extended(tokenizers_by_kind["lower-case wordpiece"], ["COVID-19", "C++", "p53"])
    assert left_out == []
    assert tokens(more, "a covid-19. COVID-19, c++ p53") == [
        "a",
        "covid-19",
        ".",
        "covid-19",
        "[UNK]",
        "c++",
        "p53",
    ]
    encoded = Encoder(more)(["c++ covid-19"])
    assert encoded.word_starts.tolist() == [True, True]


def test_a_lower_casing_tokenizer_knows_all_written_forms(
    tokenizers_by_kind: dict[str, PreTrainedTokenizerFast],
) -> None:
    more, _ = extended(tokenizers_by_kind["lower-case wordpiece"], ["gardening"])
    assert tokens(more, "Gardening GARDENING gardening") == ["gardening"] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_is_the_same(
    tokenizers_by_kind: dict[str, PreTrainedTokenizerFast], kind: str, tmp_path: Path
) -> None:
    more, _ = extended(tokenizers_by_kind[kind], NEW)
    save_tokenizer(more, tmp_path / "more")
    text = "The gardening of teachers, unwritten."
    ids = more(text)["input_ids"]
    for again in (load_tokenizer(str(tmp_path / "more")), AutoTokenizer.from_pretrained(tmp_path / "more")):
        assert fingerprint(again) == fingerprint(more)
        assert again(text)["input_ids"] == ids
        assert tokens(again, text) == tokens(more, text)
        assert again.decode(ids) == more.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_what_extends_what(tokenizers_by_kind: dict[str, PreTrainedTokenizerFast], kind: str) -> None:
    base = tokenizers_by_kind[kind]
    once, _ = extended(base, NEW[:2])
    twice, _ = extended(once, NEW[2:])
    other = tokenizers_by_kind[KINDS[KINDS.index(kind) - 1]]
    chain = [base, once, twice]
    for i, mine in enumerate(chain):
        for j, theirs in enumerate(chain):
            assert extends(mine, fingerprint(theirs), len(theirs)) == (i >= j)
        assert not extends(mine, fingerprint(other), len(other))
    another, _ = extended(base, NEW[1:3])
    assert not extends(twice, fingerprint(another), len(another))


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_are_what_the_word_was_split_into(
    tokenizers_by_kind: dict[str, PreTrainedTokenizerFast], kind: str
) -> None:
    base = tokenizers_by_kind[kind]
    more, _ = extended(base, NEW)
    pieces = pieces_of_new(more, len(base), base)
    assert list(pieces) == list(range(len(base), len(more)))
    for word, own in zip(NEW, pieces.values(), strict=True):
        assert len(own) > 1
        assert Encoder(base)([f"the {word}"]).input_ids.tolist()[-len(own) :] == own


def test_a_vocabulary_with_a_gap_is_refused(tokenizers_by_kind: dict[str, PreTrainedTokenizerFast]) -> None:
    base = tokenizers_by_kind["wordpiece"]
    content = json.loads(base.backend_tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    del vocabulary[next(token for token, number in vocabulary.items() if number == 100)]
    backend = Tokenizer.from_str(json.dumps(content))
    gap = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", mask_token="[MASK]")
    with pytest.raises(UserError, match="ids have gaps"):
        extended(gap, NEW)


# ---------------------------------------------------------------- which words


def test_the_words_that_save_most_come_first(
    tokenizers_by_kind: dict[str, PreTrainedTokenizerFast],
) -> None:
    """Against counting them one by one."""
    base = tokenizers_by_kind["lower-case wordpiece"]
    texts = ["zygote Zygote xylem, the quorum"] * 3 + ["xylem quorum quorum"] * 4 + ["rarely seen"]
    found = frequent_splits(texts, base, 9)
    counts = {"zygote": 6, "xylem": 7, "quorum": 11}
    assert {token.text: token.count for token in found} == counts
    saved = [token.count * (len(token.pieces) - 1) for token in found]
    assert saved == sorted(saved, reverse=True)
    assert all(list(token.pieces) == tokens(base, token.text) for token in found)
    assert frequent_splits(texts, base, 1) == found[:1]
    assert frequent_splits(reversed(texts), base, 9) == found


@pytest.mark.parametrize("kind", KINDS)
def test_words_that_are_found_can_be_added(
    tokenizers_by_kind: dict[str, PreTrainedTokenizerFast], kind: str
) -> None:
    base = tokenizers_by_kind[kind]
    found = frequent_splits(["Phosphate binding of zygotes"] * 5, base, 9)
    more, left_out = extended(base, [token.text for token in found])
    assert left_out == []
    assert len(tokens(more, "Phosphate binding")) < len(tokens(base, "Phosphate binding"))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "holds no words"),
        (b"\n\n", "holds no words"),
        (b"zygote\ntwo words\n", r"words.txt:2: 'two words' holds a blank"),
        (b"zygote\n\nxylem\nzygote\n", r"words.txt:4: 'zygote' stands in line 1"),
        (
            b"zygote\n\nZygote\n",
            r"words.txt:3: 'Zygote' stands in line 1 already, to the tokenizer as 'zygote'",
        ),
        (b"zygote\n\xff\n", r"words.txt:2: not UTF-8"),
        (b"zygote\n\xe2\x80\x8b\n", r"words.txt:2: the tokenizer leaves nothing of '\\u200b'"),
    ],
)
def test_bad_files_of_words(
    wordpiece_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, contents: bytes, message: str
) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(contents)
    with pytest.raises(UserError, match=message):
        read_words(path, wordpiece_tokenizer)
    with pytest.raises(UserError, match="no such file of words"):
        read_words(tmp_path / "none.txt", wordpiece_tokenizer)


def test_words_that_are_tokens_already_are_read_but_not_added(
    wordpiece_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffthe\r\n Xylem \n\n".encode())
    words = read_words(path, wordpiece_tokenizer)
    assert [(token.text, token.count, token.saved) for token in words] == [("the", 0, 0), ("xylem", 0, 0)]
    assert words[0].pieces == ("the",)
    more, left_out = extended(wordpiece_tokenizer, [token.text for token in words])
    assert left_out == ["the"]
    assert tokens(more, "the XYLEM") == ["the", "xylem"]

"""Tokenizers: BERT's own against independent ones, training, saving beside models, errors, and fast encoding."""

import gzip
import itertools
import json
import os
import socket
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    BertWordPieceTokenizer,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, BertTokenizer, BertTokenizerFast, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from fmlm_cli import hub
from fmlm_cli.corpus.tokenizer import cuts, encoding, literal, pipelines
from fmlm_cli.corpus.tokenizer import learning as tokenizer_training
from fmlm_cli.corpus.tokenizer import loading as tokenizers_module
from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.corpus.tokenizer.learning import train_tokenizer
from fmlm_cli.corpus.tokenizer.loading import fingerprint, load_tokenizer, save_tokenizer, special_tokens
from fmlm_cli.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT.parent / "shared" / "data"
VOCABULARY = DATA / "vocab" / "bert-base-uncased" / "vocab.txt"
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PARTS = [
    "the",
    "cat",
    "Dogs",
    "don't",
    "5%",
    "\u00c9t\u00e9",
    "na\u00efve",
    "\u65e5\u672c",
    "x_y",
    "[MASK]",
    "</s>",
    "caf\u0065\u0301",
]
TEXTS = [f"the {a} and a {b}, over {c}-{a} (again)." for a in PARTS for b in PARTS[:4] for c in PARTS[4:8]]
KINDS = ("wordpiece", "bpe", "unigram")

needs_vocabulary = pytest.mark.skipif(not VOCABULARY.is_file(), reason="shared/data/vocab is not there")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that tries to reach anything but this machine, even if a library hides the attempt."""
    asked: list[str] = []
    look_up = socket.getaddrinfo

    def guarded(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in ("127.0.0.1", "localhost", None):
            asked.append(str(host))
            raise socket.gaierror("no network in tests")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", guarded)
    yield
    assert not asked, f"looked up {asked}"


@cache
def trained(kind: Any, lowercase: bool = True) -> PreTrainedTokenizerFast:
    return train_tokenizer(kind, TEXTS, vocab_size=420, lowercase=lowercase)


@cache
def uncased() -> PreTrainedTokenizerFast:
    return load_tokenizer(str(VOCABULARY))


@cache
def unigram() -> PreTrainedTokenizerFast:
    """A SentencePiece-like tokenizer, as XLM-R's: Unigram, and blanks as a letter at the start of words."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        show_progress=False,
        unk_token="<unk>",
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    )
    backend.train_from_iterator(TEXTS, trainer)
    ends = [("<s>", 0), ("</s>", 2)]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", mask_token="<mask>"
    )


def write_vocabulary(folder: Path, lines: list[str]) -> Path:
    path = folder / "vocab.txt"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def ids_of(tokenizer: PreTrainedTokenizerFast, texts: list[str], **settings: Any) -> list[list[int]]:
    return [ids.tolist() for ids, _ in Encoder(tokenizer, **settings)(texts).each()]


def error_of(name: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_tokenizer(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- vocab.txt


@needs_vocabulary
def test_bert_base_uncased_is_whole_and_lower_cases() -> None:
    special = special_tokens(uncased())
    assert len(uncased()) == 30_522
    assert (special.prefix, special.suffix, special.separator) == ((101,), (102,), 102)
    assert (special.pad, special.mask, special.never_masked) == (0, 103, {0, 100, 101, 102, 103})
    assert uncased()("Hello W\u00f6rld")["input_ids"] == [101, 7592, 2088, 102]
    assert uncased().init_kwargs["do_lower_case"] is True


@needs_vocabulary
def test_the_fingerprint_is_the_same_in_every_version() -> None:
    """Made with transformers 5.17 and 5.23; stored corpora and checkpoints are compared by it."""
    assert fingerprint(uncased()) == "3a022a454e4168623fe8d1d3274ff1739276eed6ae596cfca7b4c8a2d6ab270b"


@needs_vocabulary
def test_a_folder_with_only_a_vocabulary_will_do() -> None:
    assert fingerprint(load_tokenizer(str(VOCABULARY.parent))) == fingerprint(uncased())


@needs_vocabulary
def test_it_is_the_tokenizer_that_transformers_makes_of_the_same_vocabulary() -> None:
    assert fingerprint(BertTokenizer(vocab=uncased().get_vocab())) == fingerprint(uncased())


@cache
def uncased_encoder() -> Encoder:
    return Encoder(uncased())


@cache
def python_bert() -> Any:
    """BERT's tokenization in pure Python, as Google published it."""
    legacy = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy")
    return legacy.BertTokenizerLegacy(str(VOCABULARY))


@needs_vocabulary
def test_real_text_is_tokenized_as_by_independent_tokenizers() -> None:
    path = DATA / "corpora" / "wikipedia-en.valid.txt.gz"
    if not path.is_file():
        pytest.skip("shared/data/corpora is not there")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [line for line in file.read().split("\n")[:400] if line]
    rust = BertWordPieceTokenizer(str(VOCABULARY), lowercase=True)
    found = ids_of(uncased(), texts)
    assert found == [rust.encode(text, add_special_tokens=False).ids for text in texts]
    plain = python_bert()
    assert found[:60] == [plain.convert_tokens_to_ids(plain.tokenize(text)) for text in texts[:60]]


# Letters of old standing (Unicode versions differ in new ones); a capital sigma is lower-cased by its place
# in Python
_LETTERS = st.characters(min_codepoint=9, max_codepoint=0x24F) | st.sampled_from(
    "\u03b1\u0416\u4e00\u65e5\u2014\u20ac\u3000 "
)


@needs_vocabulary
@settings(max_examples=80, deadline=None)
@given(st.text(_LETTERS, max_size=60))
def test_any_text_is_tokenized_as_by_python_bert(text: str) -> None:
    plain = python_bert()
    expected = plain.convert_tokens_to_ids(plain.tokenize(text.replace("[", "(")))
    assert uncased_encoder()([text.replace("[", "(")]).input_ids.tolist() == expected


@pytest.mark.parametrize(
    ("tokens", "lowers"), [(["a", "##b"], True), (["a", "B"], False), (["[X1]", "\u0251"], True)]
)
def test_lower_casing_is_read_off_the_ordinary_entries(
    tmp_path: Path, tokens: list[str], lowers: bool
) -> None:
    tokenizer = load_tokenizer(str(write_vocabulary(tmp_path, SPECIALS + tokens)))
    assert tokenizer.init_kwargs["do_lower_case"] is lowers
    assert len(tokenizer) == len(SPECIALS) + len(tokens)
    assert ids_of(tokenizer, ["A"]) == ([[5]] if tokens[0] == "a" and lowers else [[1]])


def test_odd_vocabulary_lines_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_bytes("\ufeff".encode() + "\r\n".join([*SPECIALS, "\u2028", "", "z"]).encode())
    assert load_tokenizer(str(path)).convert_tokens_to_ids("z") == 7


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "is empty"),
        (["[PAD]", "[UNK]", "[CLS]", "a"], "lacks [SEP], [MASK]"),
        ([*SPECIALS, "a", "b", "a"], "vocab.txt:8: 'a' stands in line 6"),
        ([*SPECIALS], "nothing but special tokens"),
    ],
)
def test_a_bad_vocabulary_says_what_is_wrong(tmp_path: Path, lines: list[str], says: str) -> None:
    assert says in error_of(write_vocabulary(tmp_path, lines))


def test_a_vocabulary_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\x00")
    assert "not a UTF-8 text file" in error_of(tmp_path / "vocab.txt")


# ---------------------------------------------------------------- names and folders


@pytest.mark.parametrize("name", ["./none", "/no/such", "~/no-such-x", "a/b/c", "none.json", "none.txt", " "])
def test_a_missing_path_is_not_looked_for_on_the_hub(name: str) -> None:
    assert "empty" in error_of(name) or "does not exist" in error_of(name)


def test_a_hub_that_cannot_be_reached_fails_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    begun = time.monotonic()
    assert "http://127.0.0.1:9 cannot be reached" in error_of("fmlm-tests/none")
    assert time.monotonic() - begun < 8


def test_offline_mode_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    assert "HF_HUB_OFFLINE is set" in error_of("fmlm-tests/none")


def test_offline_the_local_cache_serves(tmp_path: Path) -> None:
    """In a process of its own, as the cache's place is read when the library is imported."""
    repository = tmp_path / "hub" / "models--fmlm-tests--some"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    folder = repository / "snapshots" / ("0" * 40)
    save_tokenizer(trained("bpe"), folder)
    (folder / "config.json").write_text('{"model_type": "roberta"}')
    code = (
        "from fmlm_cli.corpus.tokenizer.loading import *; "
        "print(fingerprint(load_tokenizer('fmlm-tests/some')))"
    )
    settings_ = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=settings_, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == (fingerprint(trained("bpe")), "")


def test_a_folder_without_a_vocabulary_does_not_become_five_tokens(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert "holds no tokenizer" in error_of(tmp_path)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_damage_is_reported_with_its_file(tmp_path: Path, file: str) -> None:
    save_tokenizer(trained("wordpiece"), tmp_path)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:100])
    assert f"{file}:" in error_of(tmp_path)


def test_json_that_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"version": "1.0", "model": {"type": "WordPiece"}}')
    assert "not a tokenizer.json" in error_of(tmp_path / "other.json")


@pytest.mark.parametrize("role", ["mask", "pad"])
def test_a_tokenizer_for_other_models_is_refused(tmp_path: Path, role: str) -> None:
    backend = trained("bpe").backend_tokenizer
    roles = {"mask_token": "<mask>", "pad_token": "<pad>", "eos_token": "</s>"}
    del roles[f"{role}_token"]
    PreTrainedTokenizerFast(tokenizer_object=backend, **roles).save_pretrained(tmp_path)
    assert f"has no {role} token" in error_of(tmp_path)


@needs_vocabulary
def test_a_tokenizer_that_is_not_rust_backed_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tokenizers_module, "_from_folder", lambda folder: python_bert())
    assert "not Rust-backed" in error_of(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bare_tokenizer_json_knows_its_special_tokens_by_name(tmp_path: Path, kind: str) -> None:
    trained(kind).backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    for name in (tmp_path, tmp_path / "tokenizer.json"):
        assert special_tokens(load_tokenizer(str(name))) == special_tokens(trained(kind))
        assert ids_of(load_tokenizer(str(name)), TEXTS) == ids_of(trained(kind), TEXTS)


def test_a_tokenizer_json_is_read_with_the_settings_beside_it(tmp_path: Path) -> None:
    save_tokenizer(trained("bpe"), tmp_path)
    assert fingerprint(load_tokenizer(str(tmp_path / "tokenizer.json"))) == fingerprint(trained("bpe"))


# ---------------------------------------------------------------- saving


@pytest.mark.parametrize("model", [None, "bert", "roberta", "modernbert", "distilbert", "electra"])
@pytest.mark.parametrize("kind", [*KINDS, "a given unigram"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_a_saved_tokenizer_comes_back_beside_any_model(
    tmp_path: Path, kind: str, lowercase: bool, model: str | None
) -> None:
    tokenizer = unigram() if kind == "a given unigram" else trained(kind, lowercase)
    if model:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model}))
    save_tokenizer(tokenizer, tmp_path)
    again, direct = load_tokenizer(str(tmp_path)), AutoTokenizer.from_pretrained(tmp_path)
    assert fingerprint(tokenizer) == fingerprint(again) == fingerprint(direct)
    assert direct(TEXTS[:20])["input_ids"] == tokenizer(TEXTS[:20])["input_ids"]
    assert direct.model_input_names == tokenizer.model_input_names
    assert special_tokens(direct) == special_tokens(tokenizer)


@pytest.mark.parametrize("family", [None, *tokenizers_module._CLASSES, "electra"])
@pytest.mark.parametrize("named", [None, *tokenizers_module._PLAIN, "BertTokenizer", "RobertaTokenizerFast"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_class_is_the_one_that_transformers_takes(
    tmp_path: Path, kind: str, family: str | None, named: str | None
) -> None:
    save_tokenizer(trained(kind), tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": named}
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    if family:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    ours, theirs = tokenizers_module._from_folder(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert type(ours) is type(theirs)
    assert fingerprint(ours) == fingerprint(theirs)


def test_families_have_the_class_that_transformers_gives_them() -> None:
    assert {
        family: TOKENIZER_MAPPING_NAMES[family] for family in tokenizers_module._CLASSES
    } == tokenizers_module._CLASSES


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_saved_wordpiece_also_comes_back_by_berts_own_class(tmp_path: Path, lowercase: bool) -> None:
    save_tokenizer(trained("wordpiece", lowercase), tmp_path)
    assert fingerprint(BertTokenizer.from_pretrained(tmp_path)) == fingerprint(
        trained("wordpiece", lowercase)
    )


@needs_vocabulary
def test_a_tokenizer_of_berts_own_class_survives(tmp_path: Path) -> None:
    tokenizer = BertTokenizer(vocab=uncased().get_vocab(), model_max_length=512)
    save_tokenizer(tokenizer, tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert (fingerprint(again), again.model_max_length) == (fingerprint(tokenizer), 512)
    assert again.model_input_names == tokenizer.model_input_names


def test_a_large_vocabulary_in_a_folder_asks_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers asks the Hub about vocabularies of more than 100,000 tokens unless it knows them for
    local.
    """
    words = [f"w{number}" for number in range(100_100)]
    tokenizer = load_tokenizer(str(write_vocabulary(tmp_path, SPECIALS + words)))
    monkeypatch.chdir(tmp_path)
    save_tokenizer(tokenizer, Path("folder"))
    assert fingerprint(load_tokenizer("folder")) == fingerprint(tokenizer)


def test_saving_where_nothing_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("")
    with pytest.raises(UserError, match="file"):
        save_tokenizer(trained("bpe"), target)


# ---------------------------------------------------------------- fingerprints


def test_what_does_not_decide_the_ids_does_not_count() -> None:
    before = fingerprint(trained("wordpiece"))
    copy = PreTrainedTokenizerFast(
        tokenizer_object=trained("wordpiece").backend_tokenizer,
        **{f"{role}_token": token for role, token in pipelines.BERT.items()},
        model_max_length=7,
        name_or_path="elsewhere",
    )
    copy(["a"], truncation=True, max_length=5, padding="max_length")
    assert fingerprint(copy) == before


def test_what_decides_the_ids_counts() -> None:
    found = {fingerprint(trained(kind, lowercase)) for kind in KINDS for lowercase in (True, False)}
    changed = PreTrainedTokenizerFast(tokenizer_object=trained("bpe").backend_tokenizer, mask_token="<mask>")
    found.add(fingerprint(changed))
    changed.add_tokens(["again"])
    found.add(fingerprint(changed))
    assert len(found) == 2 * len(KINDS) + 2


# ---------------------------------------------------------------- training


def test_training_gives_the_expected_pipelines() -> None:
    wordpiece, bpe = trained("wordpiece"), trained("bpe")
    assert wordpiece.convert_ids_to_tokens(range(5)) == SPECIALS
    assert bpe.convert_ids_to_tokens(range(5)) == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert wordpiece("The \u00c9t\u00e9")["input_ids"] == wordpiece("the \u00e9t\u00e9")["input_ids"]
    assert bpe("The")["input_ids"] == bpe("the")["input_ids"]
    assert wordpiece("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]
    assert len(bpe("a", "b")["input_ids"]) == 6
    assert bpe("a <mask>")["input_ids"] == bpe("a<mask>")["input_ids"]
    assert wordpiece.decode(wordpiece("over again")["input_ids"], skip_special_tokens=True) == "over again"
    assert bpe.decode(bpe("caf\u00e9 \u65e5")["input_ids"], skip_special_tokens=True) == "caf\u00e9 \u65e5"
    assert len(wordpiece) <= 420 >= len(bpe)


def test_case_and_accents_are_kept_on_demand() -> None:
    wordpiece = trained("wordpiece", False)
    assert "\u00c9" in wordpiece.get_vocab()
    assert wordpiece("The")["input_ids"] != wordpiece("the")["input_ids"]


SPELLINGS = [
    {"lowercase": lowercase, "strip_accents": strip, "normalize": form}
    for lowercase in (False, True)
    for strip in (False, True)
    for form in (None, "nfc", "nfkc")
]
HINDI, UMLAUT, HANGUL = "\u0939\u0948", "m\u00f6chte", "\ud55c\uad6d"
WRITTEN = [HINDI, UMLAUT, HANGUL, "\u2121", "\ufb01x", "\u0130\u00c9", *TEXTS]


@cache
def spelt(kind: Any, number: int) -> PreTrainedTokenizerFast:
    return train_tokenizer(kind, WRITTEN, vocab_size=700, **SPELLINGS[number])  # type: ignore[arg-type]


def spelling_of(text: str, *, lowercase: bool, strip_accents: bool, normalize: str | None) -> str:
    """In plain Python."""
    if normalize == "nfkc":
        text = unicodedata.normalize("NFKC", text)
    if strip_accents:
        decomposed = unicodedata.normalize("NFD", text)
        text = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
    if lowercase:
        text = text.lower()
    return unicodedata.normalize("NFC", text) if normalize else text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(len(SPELLINGS)))
def test_a_spelling_is_the_same_for_all_kinds(kind: str, number: int) -> None:
    normalizer = spelt(kind, number).backend_tokenizer.normalizer

    @settings(max_examples=40, deadline=None)
    @given(st.text(_LETTERS | st.sampled_from("".join(WRITTEN[:6])).filter(str.isalnum), max_size=20))
    def check(text: str) -> None:
        text = "".join(filter(str.isalpha, text))  # with the rest, WordPiece also has its way
        found = (normalizer.normalize_str(text) if normalizer else text).replace(" ", "")
        assert found == spelling_of(text, **SPELLINGS[number])  # type: ignore[arg-type]

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_lower_casing_keeps_accents_and_vowel_signs(kind: str) -> None:
    for word in (HINDI, UMLAUT):
        tokenizer = spelt(
            kind, SPELLINGS.index({"lowercase": True, "strip_accents": False, "normalize": None})
        )
        assert tokenizer.decode(ids_of(tokenizer, [word])[0]) == word
        stripped = spelt(kind, SPELLINGS.index({"lowercase": True, "strip_accents": True, "normalize": None}))
        assert stripped.decode(ids_of(stripped, [word])[0]) in ("\u0939", "mochte")


@pytest.mark.parametrize("number", range(len(SPELLINGS)))
@pytest.mark.parametrize("kind", KINDS)
def test_a_spelling_survives_saving(tmp_path: Path, kind: str, number: int) -> None:
    """Also by BERT's own class, but for normal forms, which no flag of that class tells."""
    tokenizer = spelt(kind, number)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    save_tokenizer(tokenizer, tmp_path)
    loaded = [load_tokenizer(str(tmp_path)), AutoTokenizer.from_pretrained(tmp_path)]
    if kind == "wordpiece" and SPELLINGS[number]["normalize"] is None:
        loaded += [cls.from_pretrained(tmp_path) for cls in (BertTokenizer, BertTokenizerFast)]

    @settings(max_examples=40, deadline=None)
    @given(st.text(max_size=30) | _LONG)
    def check(text: str) -> None:
        text = literal.well_formed(text)
        ids = tokenizer(text)["input_ids"]
        assert all(again(text)["input_ids"] == ids for again in loaded)

    check()


def test_special_tokens_of_the_roberta_kind() -> None:
    special = special_tokens(trained("bpe"))
    assert (special.prefix, special.suffix, special.separator) == ((0,), (2,), 2)
    assert (special.pad, special.mask, special.never_masked) == (1, 4, frozenset(range(5)))


def test_special_tokens_without_a_separator_or_a_template() -> None:
    assert special_tokens(unigram()).separator == 2
    backend = Tokenizer.from_str(unigram().backend_tokenizer.to_str())
    backend.post_processor = processors.ByteLevel()
    bare = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", mask_token="<mask>")
    special = special_tokens(bare)
    assert (special.prefix, special.suffix, special.separator) == ((), (), None)
    assert special.never_masked == frozenset(range(5))


def test_training_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    code = (
        "import json, sys; from fmlm_cli.corpus.tokenizer.loading import fingerprint; from "
        "fmlm_cli.corpus.tokenizer.learning import train_tokenizer; texts = json.load(open(sys.argv[1]))\n"
        "for kind in ('wordpiece', 'bpe', 'unigram'):"
        "  print(fingerprint(train_tokenizer(kind, texts, vocab_size=420, lowercase=True)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "texts.json")]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    runs = [subprocess.Popen(command, env=os.environ | {"PYTHONHASHSEED": seed}, **pipes) for seed in "12"]
    expected = [fingerprint(trained(kind)) for kind in KINDS]
    for run in runs:
        out, err = run.communicate(timeout=60)
        assert (out.split(), err) == (expected, "")


def test_unigram_names_the_package_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(
        UserError, match=r"needs the package sentencepiece: pip install 'fmlm\[sentencepiece\]'"
    ):
        train_tokenizer("unigram", TEXTS, vocab_size=420, lowercase=True)


def test_wordpiece_learns_what_the_librarys_trainer_learns() -> None:
    """All but ties: word counts are whole, and characters get the same places."""
    texts = ["low lower lowest"] * 40 + ["new newer, newest"] * 30 + ["wide wider widest"] * 20
    reference = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    reference.normalizer = normalizers.BertNormalizer()
    reference.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=500, min_frequency=2, special_tokens=SPECIALS, show_progress=False
    )
    reference.train_from_iterator(texts, trainer)
    found = train_tokenizer("wordpiece", texts, vocab_size=500, lowercase=True)
    assert {"lowest", "newer", "wide"} <= set(found.get_vocab())
    singles = [
        {t for t in v if len(t.removeprefix("##")) == 1} for v in (found.get_vocab(), reference.get_vocab())
    ]
    assert singles[0] == singles[1]


@pytest.mark.parametrize("kind", KINDS)
def test_too_small_a_vocabulary_names_the_smallest(kind: str) -> None:
    with pytest.raises(UserError, match="ask for") as caught:
        train_tokenizer(kind, TEXTS, vocab_size=20, lowercase=True)
    smallest = int(str(caught.value).split("ask for ")[1].split()[0])
    assert len(train_tokenizer(kind, TEXTS, vocab_size=smallest, lowercase=True)) == smallest
    with pytest.raises(UserError):
        train_tokenizer(kind, TEXTS, vocab_size=smallest - 1, lowercase=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_text_is_an_error(kind: str, texts: list[str]) -> None:
    with pytest.raises(UserError, match="no text"):
        train_tokenizer(kind, iter(texts), vocab_size=1000, lowercase=True)


@pytest.mark.parametrize("kind", KINDS)
def test_odd_texts_can_be_trained_on(kind: str) -> None:
    texts = iter(["half \ud800 a character", "x" * 40_000, "\x00\x1c", "half a character"])
    tokenizer = train_tokenizer(kind, texts, vocab_size=300, lowercase=False)
    assert len(tokenizer) < 300
    assert 0 < len(ids_of(tokenizer, ["half a"])[0]) <= 6


def test_the_alphabet_is_limited_to_the_commonest_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_training, "_ALPHABET", 3)
    tokenizer = train_tokenizer("wordpiece", ["aabbccd cba", "e"], vocab_size=50, lowercase=True)
    assert not {"d", "e", "##d"} & set(tokenizer.get_vocab())
    assert {"a", "b", "c", "##c"} <= set(tokenizer.get_vocab())


# ---------------------------------------------------------------- encoding


def every_kind() -> list[PreTrainedTokenizerFast]:
    return [trained("wordpiece"), trained("bpe", False), unigram(), prefixed()]


@cache
def prefixed() -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts a blank before every text."""
    backend = Tokenizer.from_str(trained("bpe").backend_tokenizer.to_str())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", mask_token="<mask>")


def test_ids_are_the_tokenizers_own() -> None:
    texts = ["", "Dogs don't", " again,  the \u65e5\u672c", *TEXTS[:20]]
    for tokenizer in every_kind():
        found = Encoder(tokenizer)(texts)
        for text, (ids, starts) in zip(texts, found.each(), strict=True):
            assert (ids.dtype, starts.dtype) == (np.uint32, np.bool_)
            if "[" not in text and "<" not in text:
                assert ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
            assert len(starts) == len(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_words_begin_where_they_begin(kind: str) -> None:
    tokenizer = train_tokenizer(kind, ["bb"], vocab_size=300, lowercase=False)
    tokenizer.add_tokens(["bbb"])
    starts = Encoder(tokenizer)(["bb bbb b"]).word_starts.tolist()
    expected = {
        "wordpiece": [True, False, True, True],
        "bpe": [True, False, True, False, True, False],
        "unigram": [True, False, False, True, True, False],
    }
    assert starts == expected[kind]


def test_special_tokens_in_a_text_are_only_text() -> None:
    literal = "a [MASK] b</s> <mask> [SEP] <s>"
    for tokenizer in every_kind():
        found = set(ids_of(tokenizer, [literal])[0])
        assert not found & (special_tokens(tokenizer).never_masked - {tokenizer.unk_token_id})


def test_hidden_special_tokens_change_no_other_ids() -> None:
    backend = Tokenizer(
        models.WordLevel({"<unk>": 0, "<mask>": 1, "a": 2, "b": 3, "<pad>": 4}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<unk>", "<mask>", "<pad>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", mask_token="<mask>")
    assert ids_of(tokenizer, ["a <mask> b <unk> <pad> c"]) == [[2, 0, 3, 0, 0, 0]]


def test_limits_and_padding_of_the_tokenizer_do_not_matter() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained("bpe").backend_tokenizer,
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=4,
    )
    tokenizer(["a"], truncation=True, padding="max_length", max_length=4)
    assert ids_of(tokenizer, TEXTS[:3]) == ids_of(trained("bpe"), TEXTS[:3])


def test_half_characters_become_question_marks() -> None:
    assert ids_of(trained("bpe"), ["a\ud800b"]) == ids_of(trained("bpe"), ["a?b"])


def test_no_texts_and_no_tokens() -> None:
    assert list(Encoder(trained("bpe"))([]).each()) == []
    assert Encoder(trained("wordpiece"))(["", " "]).lengths.tolist() == [0, 0]


_LONG = st.lists(
    st.sampled_from(
        [*PARTS, "  ", "\n", " \t", "\u00a0", "\u0301", "\x00", ".", "'s", "\u3000", "\ufb01", "\u200b"]
    )
    | st.text(max_size=6),
    max_size=60,
).flatmap(lambda parts: st.sampled_from([" ", "", "  "]).map(lambda gap: gap.join(parts)))


@pytest.mark.parametrize("number", range(4))
def test_texts_in_pieces_give_the_same_tokens(number: int) -> None:
    tokenizer = every_kind()[number]
    encoder, whole = Encoder(tokenizer, piece_length=12), Encoder(tokenizer)
    assert encoder._cuts.separators

    @settings(max_examples=200, deadline=None)
    @given(st.lists(_LONG, max_size=3))
    def check(texts: list[str]) -> None:
        texts = [text for text in map(literal.well_formed, texts) if not hard_cut(text, 12)]
        found, expected = encoder(texts), whole(texts)
        for name in ("input_ids", "word_starts", "lengths"):
            assert getattr(found, name).tolist() == getattr(expected, name).tolist()

    check()


def hard_cut(text: str, length: int) -> bool:
    """Whether a text has a stretch without a place to cut, so that it is cut anywhere."""
    pieces = cuts.pieces_of(text, length)
    return any(not cuts.lone_blank(left + right, len(left)) for left, right in itertools.pairwise(pieces))


@given(_LONG, st.integers(1, 30))
def test_pieces_are_the_text_and_of_bounded_length(text: str, length: int) -> None:
    pieces = cuts.pieces_of(text, length)
    assert "".join(pieces) == text
    assert all(len(piece) <= 2 * length for piece in pieces)
    assert all(len(piece) >= length for piece in pieces[:-1])


def test_a_text_without_blanks_is_cut_anywhere() -> None:
    found = Encoder(trained("bpe"), piece_length=10)(["x" * 45])
    assert "".join(trained("bpe").convert_ids_to_tokens(found.input_ids)) == "x" * 45
    assert found.word_starts.sum() == 3


def test_batches_keep_the_order_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_BATCH", 50)
    texts = [*TEXTS[:10], " ".join(TEXTS), "", *TEXTS[:5]]
    backend = literal.plain_pipeline(trained("bpe"))
    expected = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    assert ids_of(trained("bpe"), texts, piece_length=30) == expected


def unsafe_tokenizers() -> Iterator[PreTrainedTokenizerFast]:
    for change in ("no words", "blank before", "blank after", "rstrip", "phrase"):
        backend = Tokenizer.from_str(trained("bpe").backend_tokenizer.to_str())
        if change == "no words":
            backend.pre_tokenizer = None
        elif change == "blank before":
            backend.normalizer = normalizers.Prepend("x")
        elif change == "blank after":
            backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        else:
            backend.add_tokens(
                [AddedToken("the cat" if change == "phrase" else "the", rstrip=change == "rstrip")]
            )
        yield PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", mask_token="<mask>")


def test_tokenizers_whose_words_run_across_blanks_get_texts_whole() -> None:
    text = " ".join(["the cat"] * 50)
    for tokenizer in unsafe_tokenizers():
        backend = literal.plain_pipeline(tokenizer)
        expected = backend.encode(text, add_special_tokens=False).ids
        assert ids_of(tokenizer, [text], piece_length=10) == [expected]


def test_encoding_is_silent_and_quick(capfd: pytest.CaptureFixture[str]) -> None:
    """A very low bar for the speed: no second pass in Python, no copy a token."""
    texts = [" ".join(TEXTS)] * 20
    begun = time.monotonic()
    count = len(Encoder(trained("wordpiece"))(texts).input_ids)
    assert count / (time.monotonic() - begun) > 20_000
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_a_pipeline_makes_the_same_encoder() -> None:
    texts = ["", "Dogs don't [MASK] </s>", *TEXTS[:20]]
    for tokenizer in every_kind():
        encoder = Encoder(tokenizer)
        again = Encoder(encoder.pipeline)
        assert again.pipeline == encoder.pipeline
        for (ids, starts), (expected, expected_starts) in zip(
            again(texts).each(), encoder(texts).each(), strict=True
        ):
            assert ids.tolist() == expected.tolist()
            assert starts.tolist() == expected_starts.tolist()


def test_an_encoder_made_of_a_pipeline_does_without_transformers() -> None:
    program = (
        "import sys; from fmlm_cli.corpus.tokenizer.encoding import Encoder\n"
        "assert Encoder(sys.stdin.read())(['the cat']).lengths.sum() > 0\n"
        "assert 'transformers' not in sys.modules and 'torch' not in sys.modules"
    )
    pipeline = Encoder(trained("wordpiece")).pipeline
    subprocess.run([sys.executable, "-c", program], input=pipeline, encoding="utf-8", check=True)

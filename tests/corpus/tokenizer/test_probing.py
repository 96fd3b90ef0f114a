"""What a tokenizer makes of a few texts is known again after it was saved; the fast ones of every family."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import (
    AlbertTokenizer,
    AutoTokenizer,
    BertTokenizer,
    DebertaV2Tokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.corpus.tokenizer.learning import train_tokenizer
from fmlm_cli.corpus.tokenizer.loading import (
    check_probe,
    fingerprint,
    load_tokenizer,
    probe,
    save_tokenizer,
)
from fmlm_cli.errors import UserError

TEXTS = [
    "the quick brown fox doesn't jump over 13 lazy dogs, caf\u00e9 and na\u00efve",
    "The cat (and THE dog).",
] * 30


def _pieces() -> list[tuple[str, float]]:
    pytest.importorskip("sentencepiece")
    tokenizer = train_tokenizer("unigram", TEXTS, vocab_size=90, lowercase=False)
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
    return [(piece, score) for piece, score in vocabulary[5:]]


def _bert() -> PreTrainedTokenizerFast:
    return BertTokenizer(
        vocab=train_tokenizer("wordpiece", TEXTS, vocab_size=120, lowercase=True).get_vocab()
    )


def _bytes() -> tuple[dict[str, int], list[tuple[str, str]]]:
    backend = train_tokenizer("bpe", TEXTS, vocab_size=330, lowercase=False).backend_tokenizer
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _roberta() -> PreTrainedTokenizerFast:
    vocabulary, merges = _bytes()
    return RobertaTokenizer(vocab=vocabulary, merges=merges)


def _modernbert() -> PreTrainedTokenizerFast:
    """BERT's names around bytes, and tokens of blanks, in a class of no name."""
    backend = Tokenizer.from_str(_roberta().backend_tokenizer.to_str())
    backend.add_tokens(["  ", "   "])
    roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    names: dict[str, Any] = {f"{role}_token": token for role, token in roles.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def _xlm_roberta() -> PreTrainedTokenizerFast:
    first = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    return XLMRobertaTokenizer(vocab=[*first, *_pieces(), ("<mask>", 0.0)])


def _albert() -> PreTrainedTokenizerFast:
    first = [(token, 0.0) for token in ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")]
    return AlbertTokenizer(vocab=[*first, *_pieces()])


def _deberta() -> PreTrainedTokenizerFast:
    first = [(token, 0.0) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")]
    return DebertaV2Tokenizer(vocab=[*first, *_pieces(), ("[MASK]", 0.0)])


FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bert": _bert,
    "roberta": _roberta,
    "modernbert": _modernbert,
    "xlm-roberta": _xlm_roberta,
    "albert": _albert,
    "deberta-v2": _deberta,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tokenizer_of_every_family_gives_its_ids_however_it_is_loaded(tmp_path: Path, family: str) -> None:
    given = FAMILIES[family]()
    known = probe(given)
    assert len({tuple(ids) for ids in known["ids"]}) > 4
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "config.json").write_text(json.dumps({"model_type": family}))
    given.save_pretrained(tmp_path / "given")
    loaded = load_tokenizer(str(tmp_path / "given"))
    save_tokenizer(loaded, tmp_path / "again")
    for folder in ("given", "again"):
        for load in (load_tokenizer, AutoTokenizer.from_pretrained):
            check_probe(load(str(tmp_path / folder)), known, folder, "")
    assert fingerprint(load_tokenizer(str(tmp_path / "again"))) == fingerprint(loaded)
    found = Encoder(loaded)(known["texts"][:-1])
    own = [given(text, add_special_tokens=False)["input_ids"] for text in known["texts"][:-1]]
    assert [ids.tolist() for ids, _ in found.each()] == own


def test_a_tokenizer_that_reads_otherwise_is_named_with_the_text(tmp_path: Path) -> None:
    cased = train_tokenizer("wordpiece", TEXTS, vocab_size=120, lowercase=False)
    uncased = train_tokenizer("wordpiece", TEXTS, vocab_size=120, lowercase=True)
    with pytest.raises(UserError) as caught:
        check_probe(uncased, probe(cased), "x", "do this")
    said = str(caught.value)
    assert said.startswith('x makes other ids of "The quick brown FOX')
    assert said.endswith(": do this")
    assert "\n" not in said


def test_a_setting_beside_the_pipeline_that_matters_is_noticed(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bpe", TEXTS, vocab_size=330, lowercase=False)
    known = probe(tokenizer)
    save_tokenizer(tokenizer, tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(
        json.dumps(
            json.loads(path.read_text()) | {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}
        )
    )
    with pytest.raises(UserError, match="makes other ids"):
        check_probe(load_tokenizer(str(tmp_path)), known, "x", "")


@pytest.fixture
def sentencepiece_folder(tmp_path: Path) -> Path:
    """As XLM-R's was before there was a tokenizer.json."""
    sentencepiece: Any = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=80,
        hard_vocab_limit=False,
        minloglevel=3,
    )
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    return tmp_path


def test_a_sentencepiece_model_is_read_as_sentencepiece_reads_it(sentencepiece_folder: Path) -> None:
    pytest.importorskip("google.protobuf")
    import sentencepiece

    tokenizer = load_tokenizer(str(sentencepiece_folder))
    path = str(sentencepiece_folder / "sentencepiece.bpe.model")
    theirs: Any = sentencepiece.SentencePieceProcessor(model_file=path)
    for text in TEXTS[:2]:
        found = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert found == theirs.encode(text, out_type=str)
    save_tokenizer(tokenizer, sentencepiece_folder / "saved")
    check_probe(load_tokenizer(str(sentencepiece_folder / "saved")), probe(tokenizer), "saved", "")


def test_what_a_sentencepiece_model_needs_is_said(
    sentencepiece_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="give the folder"):
        load_tokenizer(str(sentencepiece_folder / "sentencepiece.bpe.model"))
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match=r"sentencepiece and protobuf: pip install 'fmlm\[sentencepiece\]'"):
        load_tokenizer(str(sentencepiece_folder))

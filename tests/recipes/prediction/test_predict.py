"""What `predict` says, against the stock classes and pipelines of transformers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
    pipeline,
)

from fmlm_cli import storage
from fmlm_cli.config import FinetuneSettings, PredictSettings, build, nested
from fmlm_cli.corpus.tokenizer.loading import save_tokenizer
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event
from fmlm_cli.recipes import finetuning, prediction
from fmlm_cli.recipes.prediction.run import FilledText, LabelledText, ScoredText

SIZE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "initializer_range": 0.3,  # so that what is predicted depends on the text
}
TEXTS = [
    "The long [MASK] is yellow.",
    "walking",
    "Each [MASK] and every [MASK] of the mountain",
    "un[MASK]able",
]
MASKED = tuple(text for text in TEXTS if "[MASK]" in text)
PAIRS = [
    ("The river is long.", "It is little."),
    ("Children walked.", "No."),
    ("See the station", "a b c d e"),
]


def saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, **facts: Any) -> Path:
    """A checkpoint with its tokenizer; with `facts`, one as `fmlm finetune` leaves it."""
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    if facts:
        storage.write_sealed(folder / "finetuned.json", {"score": 0.5, "max_length": 24, **facts})
    return folder


def bert(tokenizer: PreTrainedTokenizerFast, **more: Any) -> BertConfig:
    return BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **SIZE, **more)


def roberta(tokenizer: PreTrainedTokenizerFast, **more: Any) -> RobertaConfig:
    pad = tokenizer.pad_token_id
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 33 + pad, "pad_token_id": pad}
    return RobertaConfig(**size, **SIZE, **more)


@pytest.fixture(scope="module", params=["bert", "roberta"])
def masked_lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked LM of random weights; its tokenizer writes [MASK], or <mask>."""
    folder = tmp_path_factory.mktemp("masked") / request.param
    torch.manual_seed(3)
    if request.param == "bert":
        tokenizer = request.getfixturevalue("wordpiece_tokenizer")
        return saved(BertForMaskedLM(bert(tokenizer)), tokenizer, folder)
    tokenizer = request.getfixturevalue("bpe_tokenizer")
    return saved(RobertaForMaskedLM(roberta(tokenizer)), tokenizer, folder)


@pytest.fixture(scope="module")
def labels(wordpiece_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of random weights that does not say whether it takes pairs. Not to be written to."""
    torch.manual_seed(4)
    config = bert(wordpiece_tokenizer, id2label={0: "bad", 1: "good", 2: "so-so"})
    folder = tmp_path_factory.mktemp("labels") / "model"
    return saved(BertForSequenceClassification(config), wordpiece_tokenizer, folder)


def predict(checkpoint: Path, *texts: str, **settings: Any) -> list[Any]:
    chosen = {"checkpoint": str(checkpoint), "texts": texts, "device": "cpu", **settings}
    return list(prediction.predict(PredictSettings(**chosen)))


def stock_logits(folder: Path, texts: Any, pairs: Any = None, max_length: int = 32) -> torch.Tensor:
    """Logits float32[texts, labels] as a user of transformers has them, each text alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = []
    for text, pair in zip(texts, pairs or [None] * len(texts), strict=True):
        inputs = tokenizer(text, pair, truncation=True, max_length=max_length, return_tensors="pt")
        rows.append(model(**inputs).logits[0].detach())
    return torch.stack(rows)


def likely(found: LabelledText) -> dict[str, float]:
    return {guess.label: guess.probability for guess in found.predictions}


# ---------------------------------------------------------------- masks


def test_masks_are_filled_as_the_stock_pipeline_does(masked_lm: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(masked_lm)
    stock = pipeline("fill-mask", str(masked_lm), top_k=7, device="cpu")
    found = predict(masked_lm, *MASKED, top=7)
    assert [each.text for each in found] == list(MASKED)
    for text, each in zip(MASKED, found, strict=True):
        assert isinstance(each, FilledText)
        wanted = stock(text.replace("[MASK]", tokenizer.mask_token))
        wanted = wanted if isinstance(wanted[0], list) else [wanted]  # where there is one mask
        assert len(each.predictions) == len(wanted) == text.count("[MASK]")
        for guesses, expected in zip(each.predictions, wanted, strict=True):
            assert [g.id for g in guesses] == [e["token"] for e in expected]
            assert [g.token for g in guesses] == [e["token_str"] for e in expected]
            assert [g.probability for g in guesses] == pytest.approx([e["score"] for e in expected], abs=1e-5)


def test_either_way_of_writing_a_mask(masked_lm: Path) -> None:
    one, other = predict(masked_lm, "The [MASK] of a [MASK].", "The <mask> of a <mask>.")
    assert one.predictions == other.predictions


def test_batches_change_nothing(masked_lm: Path) -> None:
    texts = [f"{'the long river ' * (n * 7 % 4)}and [MASK] {'is little ' * (n % 3)}" for n in range(11)]
    alone = [predict(masked_lm, text)[0] for text in texts]
    for size in (1, 3, 32):
        together = predict(masked_lm, *texts, batch_size=size)
        assert [each.text for each in together] == texts
        for got, wanted in zip(together, alone, strict=True):
            (mine,), (theirs,) = got.predictions, wanted.predictions
            assert [g.id for g in mine] == [g.id for g in theirs]
            assert [g.probability for g in mine] == pytest.approx([g.probability for g in theirs], abs=1e-6)


def test_more_guesses_than_tokens(masked_lm: Path) -> None:
    (found,) = predict(masked_lm, "[MASK]", top=10_000)
    assert sum(guess.probability for guess in found.predictions[0]) == pytest.approx(1, abs=1e-4)


def test_long_texts_are_cut_and_counted(masked_lm: Path) -> None:
    events: list[Event] = []
    texts = ("the [MASK] " + "river " * 60, "a [MASK]")
    settings = PredictSettings(checkpoint=str(masked_lm), texts=texts, device="cpu")
    found = prediction.predict(settings, emit=events.append)
    assert len(found) == 2
    assert [e.text for e in events if isinstance(e, Caution)] == [
        "1 of 2 texts cut to the 32 tokens that the model reads"
    ]
    with pytest.raises(UserError, match=r"text 2: a mask lies beyond the 32 tokens"):
        predict(masked_lm, "a [MASK]", "river " * 60 + "[MASK]")


# ---------------------------------------------------------------- labels and scores


def test_labels_are_the_stock_models(labels: Path) -> None:
    found = predict(labels, *TEXTS)
    wanted = stock_logits(labels, TEXTS).softmax(-1)
    for text, each, row in zip(TEXTS, found, wanted, strict=True):
        assert each.text == text
        assert each.pair is None
        assert likely(each) == pytest.approx(
            dict(zip(("bad", "good", "so-so"), row.tolist(), strict=True)), abs=1e-5
        )
        probabilities = [guess.probability for guess in each.predictions]
        assert probabilities == sorted(probabilities, reverse=True)


def test_pairs_and_batches_of_them(labels: Path) -> None:
    first, second = (list(texts) for texts in zip(*PAIRS, strict=True))
    wanted = stock_logits(labels, first, second).softmax(-1)
    for size in (1, 2, 32):
        found = predict(labels, *first, pairs=second, batch_size=size)
        assert [(each.text, each.pair) for each in found] == PAIRS
        for each, row in zip(found, wanted, strict=True):
            assert likely(each)["good"] == pytest.approx(float(row[1]), abs=1e-5)


def test_labels_that_do_not_exclude_each_other(labels: Path, tmp_path: Path) -> None:
    shutil.copytree(labels, tmp_path / "several")
    path = tmp_path / "several" / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "problem_type": "multi_label_classification"})
    )
    (found,) = predict(tmp_path / "several", TEXTS[0])
    assert likely(found)["good"] == pytest.approx(
        float(stock_logits(labels, TEXTS[:1]).sigmoid()[0, 1]), abs=1e-5
    )


def test_scores(bpe_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = RobertaForSequenceClassification(roberta(bpe_tokenizer, num_labels=1))
    folder = saved(model, bpe_tokenizer, tmp_path / "scores")
    first, second = (list(texts) for texts in zip(*PAIRS, strict=True))
    wanted = stock_logits(folder, first, second)[:, 0]
    found = predict(folder, *first, pairs=second)
    assert all(isinstance(each, ScoredText) for each in found)
    assert [each.predictions[0].score for each in found] == pytest.approx(wanted.tolist(), abs=1e-5)


def test_texts_are_cut_as_in_fine_tuning(labels: Path, tmp_path: Path) -> None:
    shutil.copytree(labels, tmp_path / "tuned")
    facts = {"task": "mood", "pair": False, "max_length": 9, "score": 0.5}
    storage.write_sealed(tmp_path / "tuned" / "finetuned.json", facts)
    text = "river mountain station children " * 9
    events: list[Event] = []
    settings = PredictSettings(checkpoint=str(tmp_path / "tuned"), texts=(text, "river"), device="cpu")
    found = prediction.predict(settings, emit=events.append)
    assert "1 of 2 texts cut to the 9 tokens" in next(e.text for e in events if isinstance(e, Caution))
    wanted = stock_logits(labels, [text], max_length=9).softmax(-1)[0, 0]
    assert likely(found[0])["bad"] == pytest.approx(float(wanted), abs=1e-5)


def test_a_fine_tuned_model_says_what_it_said_of_its_development_split(
    wordpiece_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows = [{"text": f"the {w} is {w}", "label": f"{w}ish"} for w in ("river", "mountain", "yellow")] * 3
    for name in ("train", "dev"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    torch.manual_seed(6)
    start = saved(BertForMaskedLM(bert(wordpiece_tokenizer)), wordpiece_tokenizer, tmp_path / "start")
    chosen = {
        "checkpoint": str(start),
        "out": str(tmp_path / "tuned"),
        "device": "cpu",
        "seeds": 1,
        "tasks.train": str(tmp_path / "train.jsonl"),
        "tasks.dev": str(tmp_path / "dev.jsonl"),
        "tasks.name": "words",
        "training.epochs": 2,
        "training.learning_rate": 0.01,
    }
    finetuning.finetune(build(FinetuneSettings, nested(chosen)))
    (path,) = (tmp_path / "tuned" / "cells").rglob("dev.jsonl")
    said = [json.loads(line) for line in path.read_text().splitlines()]
    for name in ("tuned", "tuned/models/words"):
        found = predict(tmp_path / name, *(row["text"] for row in rows))
        for each, before in zip(found, said, strict=True):
            assert each.predictions[0].label == before["prediction"]
            wanted = torch.tensor(list(before["logits"].values())).softmax(-1).tolist()
            assert likely(each) == pytest.approx(dict(zip(before["logits"], wanted, strict=True)), abs=1e-5)

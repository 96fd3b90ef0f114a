"""Fine-tuning on pairs of texts, with models that do not tell two types of tokens apart."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from fmlm_cli.config import FinetuneSettings, PredictSettings, build, nested
from fmlm_cli.corpus.tokenizer.loading import save_tokenizer
from fmlm_cli.hub import quiet
from fmlm_cli.recipes import finetuning, prediction


def test_a_model_of_one_type_is_fine_tuned_on_pairs(
    wordpiece_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And both the stock pair call and `predict` work on what is left."""
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(
        **shape, max_position_embeddings=34, vocab_size=len(wordpiece_tokenizer), type_vocab_size=1
    )
    with quiet():
        RobertaForMaskedLM(config).save_pretrained(tmp_path / "model")
    save_tokenizer(wordpiece_tokenizer, tmp_path / "model")
    rows = [{"text": "the water", "text_pair": "the river", "label": f"l{i % 2}"} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fixed = {
        "checkpoint": str(tmp_path / "model"),
        "out": str(tmp_path / "tuned"),
        "tasks.train": str(tmp_path / "rows.jsonl"),
        "tasks.dev": str(tmp_path / "rows.jsonl"),
        "tasks.name": "pairs",
        "tasks.text_field": "text",
        "tasks.text_pair_field": "text_pair",
        "seeds": 1,
        "training.epochs": 1,
        "max_length": 16,
    }
    report = finetuning.finetune(build(FinetuneSettings, nested(fixed)))
    assert report is not None and report.results.tasks["pairs"].mean is not None
    folder = tmp_path / "tuned" / "models" / "pairs"
    inputs = AutoTokenizer.from_pretrained(folder)("the water", "the river", return_tensors="pt")
    with torch.no_grad():
        likely = AutoModelForSequenceClassification.from_pretrained(folder)(**inputs).logits.softmax(-1)[0]
    asked = {"checkpoint": str(folder), "texts": ["the water"], "pairs": ["the river"], "device": "cpu"}
    (said,) = prediction.predict(build(PredictSettings, asked))
    assert {g.label: g.probability for g in said.predictions} == pytest.approx(  # type: ignore[union-attr]
        {"l0": float(likely[0]), "l1": float(likely[1])}, abs=1e-5
    )

"""The stock side trains as run_mlm.py does, and counts what it is said to."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import BertConfig, PreTrainedTokenizerFast

from fmlm_cli.corpus.store.reading import TokenStore
from tests.benchmarks import stock_trainer
from tests.benchmarks.contest import Pace


@pytest.fixture(scope="module")
def tokenizer(tiny_store: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(tiny_store / "tokenizer")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertConfig(**sizes).to_json_file(folder / "config.json", use_diff=False)
    return folder


def documents(store: Path) -> list[list[int]]:
    return [ids.tolist() for ids, _ in TokenStore.open(store).split("train").documents()]


def test_full_rows_are_the_documents_joined_and_cut(
    tiny_store: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = stock_trainer.read_rows(tiny_store, tokenizer, 32, "full", 20)
    assert rows.shape == (20, 32)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    joined = [token for ids in documents(tiny_store) for token in (cls, *ids, sep)]
    assert rows.ravel().tolist() == joined[: 20 * 32]
    few = stock_trainer.read_rows(tiny_store, tokenizer, 32, "full", 10**6)
    assert few.ravel().tolist() == joined[: len(joined) // 32 * 32]


def test_real_lengths_stand_one_to_a_row(tiny_store: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = stock_trainer.read_rows(tiny_store, tokenizer, 32, "real", 50)
    for row, ids in zip(rows.tolist(), documents(tiny_store), strict=False):
        kept = [tokenizer.cls_token_id, *ids[:30], tokenizer.sep_token_id]
        assert row == kept + [tokenizer.pad_token_id] * (32 - len(kept))


def test_columns_are_the_tokenizers_own(tiny_store: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = stock_trainer.read_rows(tiny_store, tokenizer, 32, "real", 8)
    made = stock_trainer.make_dataset(rows, tokenizer)
    text = tokenizer.decode(rows[0], skip_special_tokens=True)
    known = tokenizer(
        text, padding="max_length", truncation=True, max_length=32, return_special_tokens_mask=True
    )
    assert made[0].keys() == known.keys()
    for name in ("attention_mask", "special_tokens_mask"):
        assert made[0][name] == known[name]


@pytest.mark.parametrize("text", ["full", "real"])
def test_it_trains_and_reports(text: str, tiny_store: Path, config: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ["--store", str(tiny_store), "--config", str(config), "--report", str(report), "--text", text]
    pace = Pace(warm_up=1, windows=2, steps=2)
    arguments += ["--rows=4", "--length=32", "--warm-up=1", "--windows=2", "--steps=2"]
    stock_trainer.main(arguments)
    found = json.loads(report.read_text())
    assert len(found["windows"]) == pace.windows and found["warm_up"] > 0 and found["memory"] is None
    most = 4 * 32 * pace.steps
    for tokens, seconds in found["windows"]:
        assert seconds > 0
        assert tokens == most if text == "full" else most // 8 < tokens < most


def test_a_configuration_of_another_vocabulary_is_fitted(
    config: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    fitted = stock_trainer.fitted_config(config, tokenizer)
    assert fitted.vocab_size == len(tokenizer) and fitted.pad_token_id == tokenizer.pad_token_id
    assert isinstance(fitted, BertConfig) and np.isclose(fitted.hidden_dropout_prob, 0.1)

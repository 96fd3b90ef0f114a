"""The model card as independent readers of Markdown and YAML see it, whatever things are called."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from fmlm_cli.config import PretrainSettings, build
from fmlm_cli.corpus.store.writing import StoreWriter
from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.recipes.pretraining import run as pretraining
from tests.recipes.runs import KINDS, Settings

pytestmark = pytest.mark.usefixtures("quick")

EVIL = "`<img onerror=alert(1)>` | [x](y) *z*\n---\n# \"'no: heading\n```\n<b>"


def test_names_are_shown_and_nothing_else(settings: Settings, tiny_store: Path, tmp_path: Path) -> None:
    evil = tmp_path / EVIL.replace("/", "")
    shutil.copytree(tiny_store, evil / "store")
    (tmp_path / "model").rename(evil / "model")
    store = (evil / "store").rename(evil / f"store {evil.name}")
    changed = {"data.stores": [str(store)], "model.name": str(evil / "model")}
    result = pretraining.pretrain(settings(str(evil / "run"), **KINDS["steps"] | changed))
    card = (result.run.final / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["tags"] == ["fmlm", "bert"]
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    inside = [token for block in tokens for token in block.children or ()]
    assert {token.type for token in inside} <= {"text", "text_special", "strong_open", "strong_close"}
    assert not [token for token in tokens if token.type.startswith("html")]
    shown = ["".join(token.content for token in block.children or ()) for block in tokens]
    name = " ".join(evil.name.split())
    assert any(f"token store store {name}, fingerprint" in text for text in shown)
    assert f"store {name}: accuracy" in shown
    [use, written, cited] = [token for token in tokens if token.type == "fence"]
    assert (use.info, written.info, cited.info) == ("python", "yaml", "bibtex")
    compile(use.content, "card", "exec")
    assert build(PretrainSettings, yaml.safe_load(written.content)).data.stores == (store.name,)
    assert str(tmp_path) not in card


def test_a_card_of_going_on_names_what_others_can_find_and_no_path(
    settings: Settings, small_encoder: Path, documents: list[str], wordpiece_tokenizer: Any, tmp_path: Path
) -> None:
    store = tmp_path / "secret stores" / "domain"
    store.mkdir(parents=True)
    writer = StoreWriter(store, wordpiece_tokenizer)
    encode = Encoder(wordpiece_tokenizer)
    writer.add("train", encode(documents[5:]), 1)
    writer.add("validation", encode(["the"]), 1)  # too small to be evaluated on, which the card says
    sources = [{"name": "hub:someone/texts:en", "commit": "a" * 40}, {"name": "texts.txt"}]
    writer.finish({"sources": sources}, {"empty_documents": 0, "bad_text_documents": 0})
    encoder = tmp_path / "secret checkpoints" / "bert"
    shutil.copytree(small_encoder, encoder)
    changed = {"model.name": "bert-mini", "model.checkpoint": str(encoder), "data.stores": [f"{store}:1"]}
    asked = {"hub.license": "apache-2.0", "hub.language": "en"}
    run = pretraining.pretrain(settings("run", **KINDS["steps"] | changed | asked)).run
    text = (run.final / "README.md").read_text(encoding="utf-8")
    for file in run.final.iterdir():  # transformers remembers where a model was loaded from
        assert b"secret" not in file.read_bytes() and str(tmp_path).encode() not in file.read_bytes(), file
    assert (
        "# bert, pre-trained with fully-explored masking" in text and "of domain is too small to mask" in text
    )
    card = ModelCard(text).data
    assert card.datasets == ["someone/texts"] and card.base_model is None
    assert (card.license, card.language, card.eval_results) == ("apache-2.0", ["en"], None)

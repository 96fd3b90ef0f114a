"""The model card as independent readers of Markdown and YAML see it, whatever things are called."""

import shutil
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from fmlm_cli.config import PretrainSettings, build
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

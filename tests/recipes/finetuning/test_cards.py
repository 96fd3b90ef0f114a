"""The cards of fine-tuned models, as readers of Markdown and YAML see them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from transformers import pipeline

from fmlm_cli.config import FinetuneSettings, build, nested
from fmlm_cli.recipes import finetuning
from fmlm_cli.recipes.shared.checkpoints import find_checkpoint
from tests.recipes.finetuning.test_finetune import sentences

EVIL = "a|b *c* <b>`d` [x](y)"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)


def tune(encoder: Path, folder: Path, rows: list[dict[str, Any]], **changed: Any) -> Any:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fixed = {
        "checkpoint": str(encoder),
        "out": str(folder / "tuned"),
        "tasks.train": str(path),
        "tasks.dev": str(path),
        "tasks.name": EVIL,
        "seeds": 1,
        "training.epochs": 1,
    }
    report = finetuning.finetune(build(FinetuneSettings, nested({**fixed, **changed})), resume=True)
    assert report is not None
    return report


def cells_of(card: str) -> list[str]:
    tokens = MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])
    assert not [
        token for block in tokens for token in (block, *(block.children or ())) if "html" in token.type
    ]
    return ["".join(part.content for part in block.children or ()) for block in tokens]


def test_a_card_says_what_the_model_is_and_how_good(small_encoder: Path, tmp_path: Path) -> None:
    rows = [{"text": text, "label": f"{label}|<i>"} for text, label in sentences(24, 1)]
    report = tune(small_encoder, tmp_path, rows, seeds=2)
    folder = tmp_path / "tuned/models" / EVIL
    card = (folder / "README.md").read_text(encoding="utf-8")
    facts = json.loads((folder / "finetuned.json").read_text())
    front = yaml.safe_load(card.split("---\n", 2)[1])
    assert front["pipeline_tag"] == "text-classification" and "base_model" not in front  # it is no Hub name
    (indexed,) = front["model-index"][0]["results"]
    measured = {metric["type"]: metric["value"] for metric in indexed["metrics"]}
    assert measured == pytest.approx({k: v for k, v in facts["dev"]["dev"].items() if k != "score"}, abs=1e-4)
    shown = cells_of(card)
    task = report.results.tasks[EVIL]
    place = shown.index("macro-f1")
    wanted = (
        facts["dev"]["dev"]["macro_f1"],
        task.dev["dev"]["macro_f1"].mean,
        task.dev["dev"]["macro_f1"].sd,
    )
    figures = [text for text in shown[place + 1 :] if text][:3]
    assert figures == [f"{100 * value:.1f}" for value in wanted]
    assert "flowing|<i>, wet|<i>" in shown and facts["cell"] in shown
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    asked: dict[str, Any] = {}
    exec(code.replace("PATH/OF/THIS/FOLDER", str(folder)), asked)
    assert asked["classify"]("the river")[0]["label"] in ("wet|<i>", "flowing|<i>")
    find_checkpoint(str(folder))  # the card is none of the files that must not change


def test_a_card_is_written_anew_with_more_seeds_unless_somebody_has_written_on_it(
    small_encoder: Path, tmp_path: Path
) -> None:
    rows = [{"text": text, "label": label} for text, label in sentences(24, 1)]
    card = tmp_path / "tuned/models" / EVIL / "README.md"
    tune(small_encoder, tmp_path, rows)
    assert "over all 1 seed." in card.read_text()
    tune(small_encoder, tmp_path, rows, seeds=2)
    assert "over all 2 seeds." in card.read_text()
    card.write_text("mine")
    tune(small_encoder, tmp_path, rows, seeds=3)
    assert card.read_text() == "mine"


def test_a_card_of_scores_for_pairs(small_encoder: Path, tmp_path: Path) -> None:
    rows = [
        {"text": text, "text_pair": text[::-1], "label": number / 7}
        for number, (text, _) in enumerate(sentences(12, 1))
    ]
    tune(small_encoder, tmp_path, rows)
    folder = tmp_path / "tuned/models" / EVIL
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "A regression model of pairs of texts" in card and "## Labels" not in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    asked: dict[str, Any] = {"pipeline": pipeline}
    exec(code.replace("PATH/OF/THIS/FOLDER", str(folder)), asked)
    texts = {"text": "a text", "text_pair": "another text"}
    raw = asked["classify"].model(**asked["classify"].tokenizer(*texts.values(), return_tensors="pt")).logits
    answer = asked["classify"](texts)
    assert (answer[0] if isinstance(answer, list) else answer)["score"] == pytest.approx(raw.item(), abs=1e-5)

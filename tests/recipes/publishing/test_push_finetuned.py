"""Fine-tuned models on a small server in the Hub's place."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from fmlm_cli.config import FinetuneSettings, PredictSettings, PushSettings, build, nested
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event, ignore
from fmlm_cli.recipes import publishing
from fmlm_cli.recipes.finetuning import finetune
from fmlm_cli.recipes.prediction import predict
from tests.standin_hub import Hub

Tune = Callable[..., FinetuneSettings]
UPLOADED = {
    *("README.md", "config.json", "finetuned.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json"),
}


@pytest.fixture
def tune(small_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tune:
    """`tune(**dotted names)`: settings for one seed on a set of one's own, or on two tasks of GLUE."""
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    rows = [{"text": f"the {'river' if i % 2 else 'water'} is {i}", "label": f"c{i % 2}"} for i in range(24)]
    (tmp_path / "rivers").mkdir()
    (tmp_path / "rivers" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for task, number, columns in (("CoLA", 2, ("", "{}")), ("RTE", 2, ())):
        (tmp_path / "glue" / task).mkdir(parents=True)
        for split in ("train", "dev"):
            lines = [f"x\t{i % number}\t\tthe river {i}" for i in range(24)]
            if not columns:
                labels = ("entailment", "not_entailment")
                lines = ["index\tsentence1\tsentence2\tlabel"]
                lines += [f"{i}\tthe river {i}\twater\t{labels[i % 2]}" for i in range(24)]
            (tmp_path / "glue" / task / f"{split}.tsv").write_text("\n".join(lines) + "\n")

    def make(**changed: Any) -> FinetuneSettings:
        own = {f"tasks.{name}": str(tmp_path / "rivers" / "rows.jsonl") for name in ("train", "dev")}
        if "tasks.names" in changed:
            own = {"tasks.folder": str(tmp_path / "glue")}
        fixed = {"checkpoint": str(small_encoder), "out": str(tmp_path / "tuned"), "seeds": 1}
        short = {"training.epochs": 1, "device": "cpu"}
        return build(FinetuneSettings, nested({**fixed, **short, **own, **changed}))

    return make


def test_a_model_is_pushed_and_answers_from_there(tune: Tune, served: Hub, tmp_path: Path) -> None:
    finetune(tune(**{"hub.push_to": "lab/rivers", "hub.license": "mit", "hub.language": ["en"]}))
    repository = served.repositories["lab/rivers"]
    assert repository.private and set(repository.files) == UPLOADED
    for name, content in repository.files.items():
        assert str(tmp_path).encode() not in content and str(Path.home()).encode() not in content, name
    text = repository.files["README.md"].decode()
    card = ModelCard(text).data
    assert (card.license, card.language, card.pipeline_tag) == ("mit", ["en"], "text-classification")
    assert card.base_model is None  # a folder here is nothing that anybody else could find
    assert {(result.dataset_name, result.dataset_split) for result in card.eval_results} == {
        ("rivers", "dev")
    }
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    asked: dict[str, Any] = {}
    exec(code, asked)
    assert asked["classify"]("the river")[0]["label"] in ("c0", "c1")
    here = str(tmp_path / "tuned/models/rivers")
    [mine], [theirs] = (
        list(predict(PredictSettings(checkpoint=name, texts=("the river",)), emit=ignore))
        for name in (here, "lab/rivers")
    )
    assert mine == theirs
    publishing.push(PushSettings(run=str(tmp_path / "tuned"), name="only"))  # it has one model
    assert set(served.repositories["somebody/only"].files) == UPLOADED


def test_several_tasks_are_several_repositories(tune: Tune, served: Hub, tmp_path: Path) -> None:
    finetune(tune(**{"tasks.names": ["cola", "rte"], "hub.push_to": "small"}))
    assert set(served.repositories) == {"somebody/small-cola", "somebody/small-rte"}
    card = ModelCard(served.repositories["somebody/small-rte"].files["README.md"].decode()).data
    assert card.datasets == ["nyu-mll/glue"]
    assert {(result.dataset_type, result.dataset_config) for result in card.eval_results} == {
        ("nyu-mll/glue", "rte")
    }
    with pytest.raises(
        UserError, match=r"has 2 models, and a repository holds one: give one of them, such as .*cola"
    ):
        publishing.push(PushSettings(run=str(tmp_path / "tuned"), name="x"))


def test_one_that_fails_is_in_no_others_way(tune: Tune, served: Hub, tmp_path: Path) -> None:
    told: list[Event] = []
    served.broken = "small-cola/commit"
    with pytest.raises(
        UserError, match=r"small-cola could not be written to .*; then `fmlm push .*models/cola small-cola`"
    ):
        finetune(tune(**{"tasks.names": ["cola", "rte"], "hub.push_to": "small"}), emit=told.append)
    assert set(served.repositories["somebody/small-rte"].files) == UPLOADED
    served.broken = "commit"
    with pytest.raises(UserError, match=r"small-rte could not be written to"):
        finetune(
            tune(**{"tasks.names": ["cola", "rte"], "hub.push_to": "small"}), resume=True, emit=told.append
        )
    assert any("small-cola could not be" in event.text for event in told if isinstance(event, Caution))
    assert (tmp_path / "tuned" / "results.json").is_file()


def test_what_cannot_be_pushed_is_known_before_anything_is_written(
    tune: Tune, served: Hub, small_encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="you may not write to other's models"):
        finetune(tune(**{"hub.push_to": "other/x"}))
    several = [f"{name}={small_encoder}" for name in ("a", "b")]
    with pytest.raises(UserError, match=r"hub.push_to is for one checkpoint"):
        finetune(tune(**{"hub.push_to": "x", "checkpoint": several}))
    assert not (tmp_path / "tuned").exists() and not served.written

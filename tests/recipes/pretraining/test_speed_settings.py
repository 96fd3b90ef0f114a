"""What `speed.*` sets changes a run's results by rounding alone."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli.config import PretrainSettings
from fmlm_cli.errors import UserError
from fmlm_cli.events import Event, Facts, Note, Trained
from fmlm_cli.model.attention import AttentionBackend, MaskOnRows
from fmlm_cli.model.layerwise.compiling import compiled_graphs
from fmlm_cli.recipes import pretraining
from fmlm_cli.recipes.shared import speed
from tests.model.backends import Traceable
from tests.recipes.runs import TINY, Settings

pytestmark = pytest.mark.usefixtures("quick")

LONG: dict[str, Any] = {
    "budget.steps": 50, "model.dropout": 0.0, "logging.every_steps": 1, "evaluation.every_steps": 25, "optimizer.epsilon": 1e-3,
}  # fmt: skip
compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", os.environ.get("CXX", "")))),
    reason="torch.compile needs a C++ compiler",
)


def losses(result: pretraining.PretrainResult) -> list[float]:
    return [record.get("loss", record.get("eval_loss")) for record in result.records]


@pytest.mark.parametrize("packing", ["documents", "none", "concat"])
def test_how_documents_are_kept_apart_changes_no_loss(settings: Settings, packing: str) -> None:
    told: list[Event] = []
    chosen = {**LONG, "data.packing": packing}
    mask = pretraining.pretrain(settings("mask", **chosen, **{"speed.attention": "mask"}))
    flat = pretraining.pretrain(
        settings("flat", **chosen, **{"speed.attention": "documents"}), emit=told.append
    )
    assert len(losses(mask)) == 53
    assert losses(flat) == pytest.approx(losses(mask), rel=1e-4)
    assert max(losses(mask)) > 1.05 * min(losses(mask))  # it learns
    facts = next(event for event in told if isinstance(event, Facts))
    assert facts.rows["attention"].startswith("documents: documents end to end ")


DEEP = {**TINY, "num_hidden_layers": 3}


@pytest.mark.parametrize("attention", ["mask", pytest.param("documents", marks=pytest.mark.slow)])
def test_recomputing_changes_no_loss(settings: Settings, attention: str, tmp_path: Path) -> None:
    (tmp_path / "model" / "config.json").write_text(json.dumps(DEEP))
    rate = 0.1 if attention == "mask" else 0.0
    chosen = {**LONG, "model.dropout": rate, "speed.attention": attention}
    kept = pretraining.pretrain(settings("kept", **chosen))
    again = pretraining.pretrain(settings("again", **chosen, **{"speed.recompute": True}))
    assert len(losses(kept)) == 53 and max(losses(kept)) > 1.05 * min(losses(kept))
    assert losses(again) == pytest.approx(losses(kept), rel=1e-5)


@pytest.mark.slow
@compiler
@pytest.mark.filterwarnings("ignore")  # of torch's own insides
def test_recomputing_what_is_compiled_changes_no_loss(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "model" / "config.json").write_text(json.dumps(DEEP))
    chosen = {**LONG, "data.packing": "concat", "speed.compile": True}
    kept = pretraining.pretrain(settings("kept", **chosen))
    again = pretraining.pretrain(settings("again", **chosen, **{"speed.recompute": True}))
    assert losses(again) == pytest.approx(losses(kept), rel=1e-4)


def test_a_model_without_layers_to_recompute_is_refused_before_anything_is_written(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"speed\.recompute: the model has one layer"):
        pretraining.pretrain(settings(**LONG, **{"speed.recompute": True}))
    assert not list((tmp_path / "run").glob("*"))


@pytest.mark.slow
@compiler
@pytest.mark.filterwarnings("ignore")  # of torch's own insides
@pytest.mark.parametrize(("backend", "packing"), [(MaskOnRows, "concat"), (Traceable, "documents")])
def test_compiling_changes_no_loss_and_is_done_once(
    settings: Settings,
    backend: type[AttentionBackend],
    packing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In rows, and on flat rows: there a kernel of a GPU would stand where `Traceable` has a dense mask.

    (Rows of several documents, of one, and full ones have masks of three kinds, each compiled for.) Of two
    layers the last is left as it is, for it ends on masked positions.
    """
    (tmp_path / "model" / "config.json").write_text(json.dumps({**TINY, "num_hidden_layers": 2}))
    monkeypatch.setattr(speed, "BY_NAME", {"mask": MaskOnRows, "documents": backend})
    told: list[Event] = []
    graphs: list[int] = []

    def listen(event: Event) -> None:
        told.append(event)
        if isinstance(event, Trained):
            graphs.append(compiled_graphs())

    chosen = {**LONG, "batch.micro_size": 8, "data.packing": packing}
    plain = pretraining.pretrain(settings("plain", **chosen, **{"speed.attention": "mask"}))
    fast = {"speed.attention": "documents", "speed.compile": True}
    compiled = pretraining.pretrain(settings("compiled", **chosen, **fast), emit=listen)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)
    [note] = [event.text for event in told if isinstance(event, Note) and "compiled" in event.text]
    assert note.startswith("1 layer compiled as 1 graph in ")
    assert len(graphs) == 50 and len(set(graphs)) == 1  # nothing after the first step
    for name in ("config.json", "model.safetensors"):
        assert (compiled.run.final / name).stat().st_size == (plain.run.final / name).stat().st_size


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_one_graph_is_refused(settings: Settings) -> None:
    """The reference looks at each document: a graph cannot."""
    asked = settings(**LONG, **{"speed.attention": "documents", "speed.compile": True})
    refused_before_anything_is_written(asked)


def test_rows_of_many_lengths_are_refused(settings: Settings) -> None:
    refused_before_anything_is_written(settings(**LONG, **{"data.packing": "none", "speed.compile": True}))


def refused_before_anything_is_written(asked: PretrainSettings) -> None:
    assert asked.out is not None
    with pytest.raises(UserError, match=r"^speed\.compile: .*; set it to auto or false$"):
        pretraining.pretrain(asked)
    assert not Path(asked.out).exists()

"""Every command that reads a model, given one that is damaged: one line that says so, and no result."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from tests.cli.refusals import assert_refused

LAST = "cls.predictions.bias"
POSITIONS = "bert.embeddings.position_embeddings.weight"
DAMAGES: dict[str, tuple[str, float, str]] = {
    "NaN": (
        "bert.encoder.layer.1.output.dense.weight",
        float("nan"),
        "its weights are damaged (bert.encoder",
    ),
    "infinite": (POSITIONS, float("inf"), f"its weights are damaged ({POSITIONS}"),
    "NaN in the head": (LAST, float("nan"), f"its weights are damaged ({LAST}"),
    "huge": (POSITIONS, 3e38, "outputs that are not finite"),
}


@pytest.fixture
def words(tiny_store: Path, tmp_path: Path) -> dict[str, list[Any]]:
    """What each command is given beside the checkpoint."""
    rows = [json.dumps({"text": f"the water {i}", "label": f"{i % 2}"}) for i in range(16)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    labelled = ["--train", tmp_path / "rows.jsonl", "--dev", tmp_path / "rows.jsonl"]
    out = ["--out", tmp_path / "out"]
    return {
        "evaluate": ["--data", tiny_store],
        "continue": ["--data", tiny_store, "--steps", 2, *out],
        "finetune": [*labelled, "--epochs", 1, "--seeds", 1, *out],
        "predict": ["the [MASK]"],
    }


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", ["evaluate", "continue", "finetune", "predict"])
def test_damaged_weights_are_refused(
    small_encoder: Path, words: dict[str, list[Any]], tmp_path: Path, command: str, damage: str
) -> None:
    name, value, says = DAMAGES[damage]
    folder = shutil.copytree(small_encoder, tmp_path / "damaged")
    tensors = load_file(folder / "model.safetensors")
    tensors[name][0] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    given = [command, "--from", folder, *words[command], "--set", "device=cpu"]
    assert_refused(CliRunner().invoke(app, [*map(str, given)]), says)
    assert not (tmp_path / "out").exists()

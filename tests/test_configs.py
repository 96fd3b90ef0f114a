"""The shipped configurations: the commands in their heads are run as they are written, scaled down."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.config import PretrainSettings, build, flat, read_yaml
from tests.environment import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
by_file = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SMALLER = {"pretrain": ("--model", "small.json"), "continue": ()}
SHORTER = ("--budget", "2-steps", "--set", "batch.size=2", "--set", "evaluation.max_rows=2")


def commands(path: Path) -> list[list[str]]:
    """Words of the commands in a file's first comment, after `fmlm`."""
    head = path.read_text(encoding="utf-8").split("\n\n")[0].split("\nsequence_length:")[0]
    return [shlex.split(line) for line in re.findall(r"^#   fmlm (.*)$", head, flags=re.MULTILINE)]


@pytest.fixture
def place(documents: list[str], small_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user would be: with text, the configurations, and what is downloaded elsewhere, all small."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "all.txt").write_text("\n\n".join(documents), encoding="utf-8")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(small_encoder, tmp_path / "roberta-base")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small_config(place: Path, path: Path) -> None:
    """small.json: the configuration's kind of model, with room for its rows."""
    settings = build(PretrainSettings, read_yaml(path, PretrainSettings))
    family = settings.model.name.partition("-")[0]
    positions = {"max_position_embeddings": settings.sequence_length}
    (place / "small.json").write_text(json.dumps({"model_type": family, **SHAPE, **positions}))


@by_file
def test_the_commands_of_a_configuration_run(path: Path, place: Path) -> None:
    pytest.importorskip("sentencepiece")
    pytest.importorskip("datasketch")
    small_config(place, path)
    *before, last = commands(path)
    assert last[:2] in (["pretrain", f"configs/{path.name}"], ["continue", f"configs/{path.name}"])
    shorter = [*SMALLER[last[0]], *SHORTER]
    if last[0] == "continue":
        shorter += ["--set", "sequence_length=64"]  # all that the small encoder has
    for command in [*before, [*last, *shorter]]:
        words = [word.replace("python-docs", "corpus/*.txt") for word in command]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (words, result.output)
    run = place / last[last.index("--out") + 1]
    assert (run / "final" / "config.json").is_file()
    resolved = flat(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")))
    changed = {"model.name", "model.checkpoint", "sequence_length", "batch.size", "evaluation.max_rows"}
    for name, value in flat(read_yaml(path, PretrainSettings)).items():
        assert name in changed or name.startswith("budget.") or resolved[name] == value, name


@by_file
def test_what_a_configuration_says_is_shown_with_its_line(path: Path) -> None:
    result = CliRunner().invoke(app, ["config", "show", str(path)])
    assert result.exit_code == 0, result.output
    lines = path.read_text(encoding="utf-8").splitlines()
    origins = re.findall(rf"^ *(\w+): (.*?) +# .*{path.name}:(\d+)$", result.stdout, flags=re.MULTILINE)
    told = []
    for name, value, number in origins:
        written = yaml.safe_load(lines[int(number) - 1].partition("#")[0])
        if written == {name: yaml.safe_load(value)}:
            told.append(name)
        else:  # a budget excludes those that are not written
            assert value == "null" and written == {"budget": None}
    assert len(told) == len(flat(read_yaml(path, PretrainSettings)))


@by_file
def test_full_exploration_is_complete_twice_in_the_passes_of_a_configuration(path: Path) -> None:
    settings: Any = build(PretrainSettings, read_yaml(path, PretrainSettings))
    assert settings.masking.strategy == "fully-explored" and settings.masking.scope in (None, "epoch")
    cycles = settings.budget.epochs / settings.masking.segments
    assert cycles >= 2 and cycles == int(cycles)

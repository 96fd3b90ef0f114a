"""`fmlm config`, as it is typed."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.cli.commands.config_ import SECTIONS
from fmlm_cli.config import CompareSettings, FinetuneSettings, PretrainSettings, build, read_yaml, to_yaml
from tests.cli.refusals import assert_refused

ROOT = Path(__file__).resolve().parents[2]


def config(*words: Any) -> Result:
    return CliRunner().invoke(app, ["config", *map(str, words)])


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.name)
def test_a_shipped_file_is_shown_as_what_it_becomes(path: Path) -> None:
    section = CompareSettings if path.parent.name == "paper" else PretrainSettings
    shown = config("show", path)
    assert shown.exit_code == 0, shown.output
    assert yaml.safe_load(shown.stdout) == yaml.safe_load(to_yaml(build(section, read_yaml(path, section))))
    assert f"# {path}:" in shown.stdout and "# default" in shown.stdout


def test_whose_settings_they_are_is_found_or_given(tmp_path: Path) -> None:
    tuned = tmp_path / "tuned.yaml"
    tuned.write_text("tasks: {names: [mrpc]}\nseeds: 3\n")
    shown = config("show", tuned, "--set", "training.epochs=4")
    tree = yaml.safe_load(shown.stdout)
    assert tree.keys() == FinetuneSettings.model_fields.keys() and tree["training"]["epochs"] == 4
    assert "# to be given" in next(
        line for line in shown.stdout.splitlines() if line.startswith("checkpoint:")
    )
    assert "to be given" not in config("show", tuned, "--set", "checkpoint=run").stdout
    assert_refused(config("show", tuned, "--command", "pretrain"), f"{tuned}:1: unknown setting 'tasks")
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    for name, section in SECTIONS.items():
        shown = config("show", empty, "--command", name)
        assert yaml.safe_load(shown.stdout).keys() == section.model_fields.keys()


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"\xff\x00garbage")
    assert_refused(config("show", bad), "bad.yaml")
    assert_refused(config("show", tmp_path), "cannot read it")
    assert_refused(config("show", tmp_path / "none.yaml"), "no such configuration file")
    demo = ROOT / "configs" / "demo.yaml"
    assert_refused(config("show", demo, "--set", "sed=1"), "did you mean 'seed'?")
    assert_refused(
        config("show", demo, "--command", "tune"), "unknown command with a file of settings 'tune'"
    )
    assert_refused(config("schema", "fine-tune"), "did you mean 'finetune'?")
    assert list(tmp_path.iterdir()) == [bad]


@pytest.mark.parametrize("name", SECTIONS)
def test_a_schema_is_one_json_object(name: str) -> None:
    schema = json.loads(config("schema", name).stdout)
    assert "required" not in schema  # flags may give it
    assert schema["title"] == f"settings of fmlm {name}"
    assert schema["properties"].keys() == SECTIONS[name].model_fields.keys()


def test_the_schema_is_pretrains_where_none_is_named() -> None:
    assert config("schema").stdout == config("schema", "pretrain").stdout

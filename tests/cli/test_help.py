"""`fmlm` itself: what it lists, what it loads and when."""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fmlm_cli.cli.app import COMMANDS, app

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "pyarrow",
    "matplotlib",
    "scipy",
    "sklearn",
    "numpy",
}
# Runs `fmlm` with each of these words in one process; prints the modules that were loaded.
HELP = """
import contextlib, io, json, sys
from fmlm_cli.cli.app import main
shown = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["fmlm", *words]
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.suppress(SystemExit):
        main()
    shown.append(output.getvalue())
print(json.dumps([shown, sorted(sys.modules)]))
"""


def after_help(*words: list[str]) -> tuple[list[str], set[str]]:
    """What a fresh process shows for these command lines, and the modules that it has loaded then."""
    line = [sys.executable, "-c", HELP, json.dumps(words)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
    shown, modules = json.loads(done.stdout)
    return shown, set(modules)


def test_help_loads_no_command() -> None:
    shown, modules = after_help(["--help"], ["-h"], [], ["--version"])
    assert all(
        name in text and line[:40] in text for text in shown[:2] for name, (_, line) in COMMANDS.items()
    )
    assert shown[3].startswith("fmlm ")
    assert not modules & HEAVY
    assert not [name for name in modules if name.startswith(("fmlm_cli.cli.commands", "fmlm_cli.recipes"))]
    assert "pydantic" not in modules


def test_the_help_of_commands_loads_nothing_heavy() -> None:
    shown, modules = after_help(*([name, "--help"] for name in COMMANDS))
    assert all("--debug" in text for text in shown)
    assert not modules & HEAVY
    assert not [name for name in modules if name.startswith("fmlm_cli.recipes")]


def test_a_command_loads_no_other() -> None:
    _, modules = after_help(["masks", "--help"])
    assert [name for name in modules if name.startswith("fmlm_cli.cli.commands.")] == [
        "fmlm_cli.cli.commands.masks"
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_of_help_is_the_commands_own(name: str) -> None:
    module, line = COMMANDS[name]
    documented = inspect.getdoc(importlib.import_module(f"fmlm_cli.cli.commands.{module}").command)
    assert documented is not None and documented.splitlines()[0] == line


def test_there_is_no_other_command() -> None:
    files = {path.stem for path in (ROOT / "fmlm_cli" / "cli" / "commands").glob("[!_]*.py")}
    assert files == {module for module, _ in COMMANDS.values()}


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    result = CliRunner().invoke(app, ["pretain", "--steps", "3"])
    assert result.exit_code == 2
    assert "No such command 'pretain'. Did you mean 'pretrain'?" in result.output
    assert CliRunner().invoke(app, ["--nonsense"]).exit_code == 2
    assert CliRunner().invoke(app, []).exit_code == 2


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"tokenize"}))
def test_settings_are_listed_whatever_else_is_missing(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--settings"], env={"COLUMNS": "300"})
    assert result.exit_code == 0
    assert result.stdout.split()[:3] == ["setting", "default", "meaning"]
    assert "optimizer.schedule" in result.stdout or name not in ("pretrain", "continue")

"""`fmlm` itself: what it lists, what it loads and when."""

import importlib
import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fmlm_cli.cli.app import COMMANDS, app
from fmlm_cli.config import (
    CompareSettings,
    EvaluateSettings,
    FinetuneSettings,
    InspectSettings,
    MasksSettings,
    PredictSettings,
    PretrainSettings,
    Section,
    describe_settings,
    setting_names,
)
from tests.cli.refusals import assert_refused

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

SECTIONS: dict[str, type[Section]] = {
    "inspect": InspectSettings,
    "masks": MasksSettings,
    "pretrain": PretrainSettings,
    "continue": PretrainSettings,
    "evaluate": EvaluateSettings,
    "finetune": FinetuneSettings,
    "predict": PredictSettings,
    "compare-masks": CompareSettings,
}

GROUPS = {"config": ("show", "schema")}
PAGES = [
    *((name,) for name in COMMANDS if name not in GROUPS),
    *((group, name) for group, names in GROUPS.items() for name in names),
]
by_page = pytest.mark.parametrize("words", [*PAGES, *((group,) for group in GROUPS)], ids=" ".join)


def after_help(*words: list[str]) -> tuple[list[str], set[str]]:
    """What a fresh process shows for these command lines, and the modules that it has loaded then."""
    line = [sys.executable, "-c", HELP, json.dumps(words)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
    shown, modules = json.loads(done.stdout)
    return shown, set(modules)


def test_help_loads_no_command() -> None:
    shown, modules = after_help(["--help"], ["-h"], [])
    assert all(
        name in text and line[:40] in text for text in shown[:2] for name, (_, line) in COMMANDS.items()
    )
    assert not modules & HEAVY
    assert not [name for name in modules if name.startswith(("fmlm_cli.cli.commands", "fmlm_cli.recipes"))]
    assert "pydantic" not in modules


def test_the_help_of_commands_loads_nothing_heavy() -> None:
    shown, modules = after_help(*([*words, "--help"] for words in PAGES))
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
    command = importlib.import_module(f"fmlm_cli.cli.commands.{module}").command
    documented = command.info.help if isinstance(command, typer.Typer) else inspect.getdoc(command)
    assert documented is not None and documented.splitlines()[0] == line


def test_there_is_no_other_command() -> None:
    files = {path.stem for path in (ROOT / "fmlm_cli" / "cli" / "commands").glob("[!_]*.py")}
    assert files == {module for module, _ in COMMANDS.values()}


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    result = CliRunner().invoke(app, ["pretain", "--steps", "3"])
    assert_refused(result, "unknown command 'pretain': did you mean 'pretrain'?", "--help` lists them")
    assert_refused(CliRunner().invoke(app, ["--nonsense"]), "unknown option --nonsense")
    assert CliRunner().invoke(app, []).exit_code == 2  # with the page of help


@pytest.mark.parametrize("name", SECTIONS)
def test_settings_are_listed_whatever_else_is_missing(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--settings"], env={"COLUMNS": "300"})
    assert result.exit_code == 0
    section = SECTIONS[name]
    listed = re.findall(r"^  ([^ \n]+)", result.stdout, flags=re.MULTILINE)
    assert sorted(listed) == sorted(setting_names(section))


def test_settings_are_found_by_words_of_their_names_and_meanings() -> None:
    def found(*words: str) -> set[str]:
        result = CliRunner().invoke(app, ["pretrain", "--settings", *words], env={"COLUMNS": "300"})
        assert result.exit_code == 0, result.output
        return set(re.findall(r"^  ([^ \n]+)", result.stdout, flags=re.MULTILINE))

    described = {name: meaning for name, _, meaning in describe_settings(PretrainSettings)}
    assert found("masking") == {
        name for name in described if "masking" in f"{name} {described[name]}".lower()
    }
    assert "masking.segments" in found("masking") and "seed" not in found("masking")
    assert found("Learning") >= {"optimizer.learning_rate", "optimizer.schedule"}
    assert found("learning", "peak") == found("learning") & found("peak") < found("learning")
    assert found("peak", "--steps", "3") == found("peak")  # words end at the next option
    assert found() == set(described)
    refused = CliRunner().invoke(app, ["pretrain", "--settings", "xyzzy"])
    assert_refused(refused, "no setting has 'xyzzy' in its name or meaning")


def page(words: tuple[str, ...], width: int) -> list[str]:
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="fmlm", terminal_width=width)
    assert result.exit_code == 0
    return result.stdout.splitlines()


@pytest.mark.parametrize("width", [40, 80, 120])
@by_page
def test_no_word_is_broken_and_none_is_lost(words: tuple[str, ...], width: int) -> None:
    """Whatever the width, a page holds the same words in the same order."""
    lines, wide = page(words, width), page(words, 4000)
    assert width > 40 or len(lines) > len(wide)
    assert all(len(line) <= width or " " not in line.strip() for line in lines if width > 40)
    assert [word for line in lines for word in line.split() if word != "\\"] == [
        word for line in wide for word in line.split() if word != "\\"
    ]


def test_what_is_worth_knowing_comes_last() -> None:
    described, notes = "\n".join(page(("masks",), 60)).split("\nWorth knowing:\n")
    assert "--help" in described and "--help" not in notes
    points = re.findall(r"^  - \w", notes, flags=re.MULTILINE)
    assert len(points) > 3
    assert all(line.startswith(("  - ", "    ")) for line in notes.splitlines())
    assert "Worth knowing" not in "\n".join(page(("runs",), 60))


@by_page
def test_an_example_can_be_copied(words: tuple[str, ...]) -> None:
    text = "\n".join(page(words, 80)).replace("\\\n", "")
    examples = re.findall(r"^  (fmlm .*)$", text, flags=re.MULTILINE)
    assert examples
    options = set(re.findall(r"(?<![\w-])--[a-z-]+", text))
    for example in examples:
        parts = shlex.split(example)
        assert parts[: len(words) + 1] == ["fmlm", *words]
        assert {part for part in parts if part.startswith("--")} <= options

"""What a shell completes, asked as it asks: by variables, of a process of its own, and of the names' owners."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_origin

import pytest
from pydantic import TypeAdapter

from fmlm_cli.cli.app import COMMANDS
from fmlm_cli.cli.suggestions import known_values
from fmlm_cli.config import (
    CompareSettings,
    FinetuneSettings,
    PretrainSettings,
    Section,
    setting_field,
    setting_names,
)
from fmlm_cli.masking import strategy_names
from fmlm_cli.model.presets import PRESETS
from fmlm_cli.tasks import GLUE, METRICS

ROOT = Path(__file__).resolve().parents[2]
# Completes each of these lines in one process, and prints what it offers and which modules it loaded.
ASKED = """
import contextlib, io, json, os, sys
from fmlm_cli.cli.app import main
offered = []
for line in json.loads(sys.argv[1]):
    os.environ |= {"_FMLM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    sys.argv = ["fmlm"]
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.suppress(SystemExit):
        main()
    offered.append(output.getvalue().split())
print(json.dumps([offered, sorted(sys.modules)]))
"""
CORRUPTION = [f"masking.corruption.{name}" for name in ("mask", "random", "keep", "draw")]
LINES = {
    "fmlm ": list(COMMANDS),
    "fmlm pretrain --max": ["--max-minutes"],
    "fmlm pretrain --masking who": ["whole-word"],
    "fmlm continue --masking fully-explored-p": ["fully-explored-pmi"],
    "fmlm pretrain --model bert-b": ["bert-base"],
    "fmlm pretrain --schedule ": ["linear", "cosine", "wsd"],
    "fmlm compare-masks --strategies random,wh": ["random,whole-word"],
    "fmlm finetune --task mr": ["mrpc"],
    "fmlm pretrain --set optimizer.sched": ["optimizer.schedule="],
    "fmlm pretrain --set optimizer.schedule=c": ["optimizer.schedule=cosine"],
    "fmlm compare-masks --set run.optimizer.sched": ["run.optimizer.schedule="],
    "fmlm pretrain --settings masking.co": ["masking.corruption", "masking.count", *CORRUPTION],
    "fmlm pretrain --out ": [],  # files, which the shell knows
}  # fmt: skip


def completed(*lines: str) -> tuple[list[list[str]], set[str]]:
    call = [sys.executable, "-c", ASKED, json.dumps(lines)]
    done = subprocess.run(call, capture_output=True, text=True, check=True, cwd=ROOT)
    offered, modules = json.loads(done.stdout)
    return offered, set(modules)


def test_a_shell_is_offered_names_and_loads_nothing_heavy() -> None:
    offered, modules = completed(*LINES)
    by_line = dict(zip(LINES, offered, strict=True))
    assert by_line == LINES
    assert not modules & {"torch", "transformers", "tokenizers", "datasets", "pyarrow", "numpy", "matplotlib"}
    assert not [name for name in modules if name.startswith("fmlm_cli.recipes")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str) -> None:
    call = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'fmlm'; from fmlm_cli.cli.app import main; main()",
    ]
    variables = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    line = [*call, "--show-completion", shell]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT, env=variables)
    assert "_FMLM_COMPLETE" in done.stdout


def test_what_is_offered_is_what_there_is() -> None:
    """The rooms above the settings know the names; what a shell offers is theirs."""
    assert set(known_values(PretrainSettings, "masking.strategy")) == set(strategy_names())
    assert set(known_values(CompareSettings, "strategies")) == set(strategy_names())
    assert known_values(PretrainSettings, "model.name") == tuple(PRESETS)
    assert set(known_values(FinetuneSettings, "tasks.names")) == {*GLUE, "ax", "all"}
    assert set(known_values(FinetuneSettings, "tasks.metric")) == set(METRICS)


@pytest.mark.parametrize("section", [PretrainSettings, FinetuneSettings, CompareSettings])
def test_every_value_that_is_offered_is_accepted(section: type[Section]) -> None:
    offered = [(name, value) for name in setting_names(section) for value in known_values(section, name)]
    assert len(offered) > 10
    for name, value in offered:
        kind: Any = setting_field(section, name).annotation
        TypeAdapter(kind).validate_python([value] if get_origin(kind) is tuple else value)

"""Command lines that reports name, through the real command line, up to where the work would begin."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from typer.testing import CliRunner

from fmlm_cli.cli.app import app

# What each command hands its settings to.
BODIES = {
    "pretrain": "fmlm_cli.recipes.pretraining.together.pretrain_together",
    "continue": "fmlm_cli.recipes.pretraining.together.pretrain_together",
    "compare-masks": "fmlm_cli.recipes.comparison.compare_masks",
    "finetune": "fmlm_cli.recipes.finetuning.finetune",
    "predict": "fmlm_cli.recipes.prediction.predict",
}


@contextmanager
def _caught(command: str) -> Iterator[list[tuple[Any, dict[str, Any]]]]:
    calls: list[tuple[Any, dict[str, Any]]] = []

    def body(settings: Any, **more: Any) -> tuple[()]:
        calls.append((settings, more))
        return ()

    with (
        patch(BODIES[command], body),
        # Without a device to look for, nor processes to start.
        patch("fmlm_cli.recipes.shared.launching.hand_over", lambda *_: False),
        patch(
            "fmlm_cli.recipes.shared.launching.share_out", lambda cell, jobs, device, emit: (cell, 1, emit)
        ),
    ):
        yield calls


def read_back(line: str, config: Path | None = None) -> tuple[str, Any, dict[str, Any]]:
    """The command, the settings and the options that a line comes to. `config`: its CONFIG.yaml."""
    program, command, *words = shlex.split(line)
    assert program == "fmlm" and command in BODIES, line
    if config is not None:
        words = [str(config) if word.endswith("config.yaml") else word for word in words]
    with _caught(command) as calls:
        result = CliRunner().invoke(app, [command, *words])
    assert result.exit_code == 0 and len(calls) == 1, (line, result.output)
    return command, *calls[0]

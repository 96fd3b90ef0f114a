"""A setting that stands in the way of going on is named with where its value came from."""

from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import with_options
from fmlm_cli.config import PretrainSettings
from fmlm_cli.errors import OtherSettingError
from fmlm_cli.events import Emit
from tests.cli.refusals import assert_refused


def told(name: str, *words: Any) -> str:
    """What a command says that finds this setting different."""

    @with_options(
        PretrainSettings,
        Flag("--steps", "budget.steps"),
        Flag("--epochs", "budget.epochs"),
        Flag("--seed", "seed"),
        from_file=True,
    )
    def body(settings: PretrainSettings, emit: Emit) -> None:
        raise OtherSettingError("run was started", name, "800", "null")

    alone = typer.Typer(add_completion=False)
    alone.command()(body)
    result = CliRunner().invoke(alone, [str(word) for word in words])
    assert_refused(result, f"run was started with {name} 800, not null")
    return result.stderr


def test_where_a_value_came_from(tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("seed: 1\ndata:\n  packing: none\n  max_rows: null\nmasking:\n  options: {p: 0.1}\n")
    default = "(its default, or what follows from the others): go back to that, or choose another --out"
    assert default in told("data.max_rows")
    assert default in told("data.first_row", config, "--steps", 3)
    assert f"(from {config}:4): " in told("data.max_rows", config)
    assert f"(from {config}:6): " in told("masking.options.p", config)
    assert "(from --seed): " in told("seed", config, "--seed", 3)
    assert "(from --set): " in told("seed", config, "--seed", 3, "--set", "seed=4")
    assert "(from --epochs): " in told(
        "budget.steps", config, "--epochs", 3
    )  # of one group: it replaces the other
    assert "(from --set): " in told("masking.options.p", "--set", "masking.options.p=0.3")


def test_of_a_real_run(tiny_store: Path, tmp_path: Path) -> None:
    small = [
        "--data",
        tiny_store,
        "--model",
        "bert-tiny",
        "--out",
        tmp_path / "run",
        "--set",
        "sequence_length=16",
    ]
    small += ["--set", "batch.size=2", "--set", "evaluation.max_rows=2"]

    def pretrain(*words: Any) -> Any:
        return CliRunner().invoke(app, ["pretrain", *map(str, words)])

    assert pretrain(*small, "--steps", 1, "--set", "data.max_rows=8").exit_code == 0
    other = tmp_path / "other.yaml"
    other.write_text("data: {max_rows: null}\n")
    said = f"data.max_rows 8, not null (from {other}:1)"
    assert_refused(pretrain(other, *small, "--resume"), said)
    assert_refused(pretrain(*small, "--epochs", 2, "--resume"), "(from --epochs)")

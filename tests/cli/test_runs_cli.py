"""`fmlm runs` and `fmlm plot` as they are typed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from tests.cli.refusals import assert_refused
from tests.recipes.overview.made_runs import make_run, records

LOADED = (
    "import sys; from fmlm_cli.cli.app import main; sys.argv = ['fmlm', *sys.argv[1:]]\n"
    "try: main()\nfinally: print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
)


def fmlm(*words: Any) -> Result:
    return CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})


def test_a_table_and_the_same_for_programs(tmp_path: Path) -> None:
    make_run(tmp_path / "a", records(40), seed=1)
    make_run(tmp_path / "b", records(20), finished=False, **{"budget.steps": 40})
    result = fmlm("runs", tmp_path, "--sort", "tokens")
    assert result.exit_code == 0, result.output
    rows = result.stdout.splitlines()
    assert rows[2].split() == ["state", "seed", "steps", "loss", "best", "tokens", "time", "changed"]
    assert rows[3].split()[:6] == ["b", "stopped", "at", "step", "20", "of"]
    shown = json.loads(fmlm("runs", tmp_path, "--json").stdout)
    assert [run["state"] for run in shown["runs"]] == ["finished", "stopped"]
    assert shown["differing"] == ["seed", "budget.steps"]
    assert shown["runs"][0]["settings"]["optimizer.clip"] == 1.0


def test_names_that_are_odd(tmp_path: Path) -> None:
    for name in ("[red]", "a b\n", "\x1b[2J", "\udcff", "é", "-x", "a" * 250):
        make_run(tmp_path / "made", records(10)).rename(tmp_path / name)
    assert fmlm("runs", tmp_path).exit_code == 0
    assert len(json.loads(fmlm("runs", tmp_path, "--json").stdout)["runs"]) == 7
    assert fmlm("plot", tmp_path, "--out", tmp_path / "curves.svg").exit_code == 0
    shown = fmlm("plot", tmp_path)
    assert shown.exit_code == 0 and "\x1b[2J" not in shown.stdout


def test_a_picture_in_the_terminal_or_in_a_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", records(40))
    shown = fmlm("plot", run, "--x", "tokens")
    assert shown.exit_code == 0, shown.output
    assert "held-out loss on domain" in shown.stdout and "tokens forwarded" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    out = tmp_path / "curves.svg"
    assert fmlm("plot", run, "--out", out).exit_code == 0
    assert "held-out loss on domain" in out.read_text()


def test_what_cannot_be_shown_is_named(tmp_path: Path) -> None:
    assert_refused(fmlm("runs", tmp_path / "nowhere"), "nowhere", "no such folder")
    assert_refused(fmlm("plot", tmp_path), str(tmp_path), "no run")
    assert_refused(fmlm("runs", tmp_path, "--sort", "luck"), "sort", "luck")
    assert_refused(fmlm("plot", tmp_path, "--x", "miles"), "x", "miles")


def test_a_list_of_runs_loads_nothing_heavy(tmp_path: Path) -> None:
    make_run(tmp_path / "a", records(5))
    line = [sys.executable, "-c", LOADED, "runs", str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "finished" in done.stdout
    assert not {"torch", "transformers", "numpy", "matplotlib", "scipy", "pyarrow"} & set(done.stderr.split())

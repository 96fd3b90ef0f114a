"""`fmlm compare-masks` as it is typed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from tests.cli.refusals import assert_refused
from tests.recipes.runs import TINY

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine's peak speed takes longer than these runs."""
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)


@pytest.fixture
def call(tiny_store: Path, tmp_path: Path) -> Call:
    """`call(*words)`: compare with these words; data, model, strategies and --out where they are not given."""
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    small = ["run.sequence_length=32", "run.masking.segments=4", "run.batch.size=8", "run.data.max_rows=24"]
    small += ["run.evaluation.max_rows=4", "variance.sequences=10", "variance.distances=[0, 1]"]

    def invoke(*words: Any, **options: Any) -> Result:
        given = {
            "data": tiny_store,
            "model": tmp_path / "config.json",
            "strategies": "random,fully-explored",
            "out": tmp_path / "out",
            **options,
        }
        flags = [part for name, value in given.items() if value is not None for part in (f"--{name}", value)]
        assigned = [part for each in small for part in ("--set", each)]
        return CliRunner().invoke(app, ["compare-masks", *map(str, [*words, *flags, *assigned])])

    return invoke


def test_from_a_store_to_a_verdict(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = ["--only", "coverage,race", "--seeds", 2, "--budget", "10-steps"]
    result = call(*only)
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    for said in (
        "comparing masks",
        "passes",
        "coverage of random",
        "held-out loss",
        "2 seeds can be expected to show",
        "report.html",
        "random (fresh rows)",
    ):
        assert said in result.stdout, said
    assert "step 2/10" not in result.stdout  # of the runs only what they come to
    results = json.loads((out / "results.json").read_text())
    assert results["verdict"]["headline"]
    assert results["command"] == f"fmlm compare-masks {out / 'config.yaml'} --out DIR"
    assert (out / "report.html").is_file()
    monkeypatch.setattr("fmlm_cli.recipes.comparison.run.write_report", lambda root, results: [])
    again = CliRunner().invoke(app, ["compare-masks", "--out", str(out), "--report-only"])
    assert again.exit_code == 0, again.output
    assert json.loads((out / "results.json").read_text()) == results
    second = tmp_path / "second"
    config = ["compare-masks", str(out / "config.yaml"), "--out", str(second), "--only", "coverage"]
    repeated = CliRunner().invoke(app, config)
    assert repeated.exit_code == 0, repeated.output
    assert json.loads((second / "results.json").read_text())["coverage"] == results["coverage"]


@pytest.mark.slow
def test_processes_share_the_work(call: Call, tmp_path: Path) -> None:
    result = call("--jobs", 2, "--only", "coverage,variance", "--set", "variance.checkpoints=[start]")
    assert result.exit_code == 0, result.output
    assert len(json.loads((tmp_path / "out/results.json").read_text())["variance"]) == 2
    assert (tmp_path / "out/logs/job-2.log").is_file()


def test_a_part_is_added_to_a_comparison(call: Call, tmp_path: Path) -> None:
    first = call("--only", "coverage")
    assert first.exit_code == 0, first.output
    variance = ["--only", "variance", "--set", "variance.checkpoints=[start]"]
    assert_refused(call(*variance), "is not empty", "--resume")
    out = tmp_path / "out"
    words = ["compare-masks", "--out", str(out), "--resume", *variance]
    second = CliRunner().invoke(app, words)
    assert second.exit_code == 0, second.output
    assert "gradient variance, start" in second.stdout and "coverage of" not in second.stdout
    assert yaml.safe_load((out / "config.yaml").read_text())["only"] == ["coverage", "variance"]
    results = json.loads((out / "results.json").read_text())
    assert results["coverage"] and len(results["variance"]) == 2
    before = (out / "results.json").stat().st_mtime_ns
    silent = CliRunner().invoke(app, ["compare-masks", "--out", str(out), "--resume", "--no-report"])
    assert silent.exit_code == 0, silent.output
    assert (out / "results.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("share", [["--cell", "1/2"], ["--report-only"]])
def test_what_goes_on_is_not_overwritten(tmp_path: Path, share: list[str]) -> None:
    words = ["compare-masks", "--overwrite", *share, "--out", str(tmp_path / "out")]
    assert_refused(CliRunner().invoke(app, words), "leave out --overwrite")

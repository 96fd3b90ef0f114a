"""slurm.md comes true."""

import json
import sys
from pathlib import Path

import pytest

from tests.journeys import made
from tests.journeys.pages import Scaling, execute
from tests.launching import fake_sbatch

PAGE = Path(__file__).with_name("slurm.md")
SMALL = Scaling(
    {
        "--vocab-size 30000": "--vocab-size 300",
        "--workers 16": "--workers 2",
        "bert-small": "bert-tiny",
        "  tokens: 2e9": "  tokens: 100e3\nbatch:\n  size: 8\nevaluation:\n  every_steps: 50\n  max_rows: 8",
        "sequence_length: 128": "sequence_length: 64\nlogging:\n  every_steps: 1",
        "--seeds 5": "--seeds 1 --epochs 1",
    }
)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for a process's children in /proc")
@pytest.mark.slow
def test_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.text_files(tmp_path / "text")
    made.labelled_set(tmp_path)
    (tmp_path / "bin").mkdir()
    fake_sbatch.install(tmp_path / "bin")
    monkeypatch.setenv(fake_sbatch.PREEMPTED, "SIGUSR1 SIGTERM")
    ran = {done.step.command.split()[0]: done for done in execute(PAGE, tmp_path, SMALL)}
    assert (tmp_path / "bin" / "scontrol.log").read_text() == "requeue 4711\nrequeue 4711\n"
    assert ran["cat"].said.count("=====") == 3
    records = [json.loads(line) for line in (tmp_path / "bert" / "metrics.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in records if "loss" in record]
    assert steps == list(range(1, max(steps) + 1))  # each step once, whatever came between
    one, merged = (
        json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("store", "merged-store")
    )
    assert merged["fingerprint"] == one["fingerprint"]

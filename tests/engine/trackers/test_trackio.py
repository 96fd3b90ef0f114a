"""trackio itself, in a database of the test's own; its stand-in would be its whole interface."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
from fmlm_cli.engine.records import MetricsLog
from fmlm_cli.engine.trackers.sink import tracked
from fmlm_cli.engine.trackers.tracker import RunFacts
from fmlm_cli.events import Trained

root, step = Path(sys.argv[1]), int(sys.argv[2])
log = MetricsLog(root / "metrics.jsonl")
with tracked(["trackio"], RunFacts(root, "masks", {"seed": 3}), log, lambda event: print(event.text)) as [sink]:
    for each in (log, sink):
        each.rewind(step, -1)
    for number in range(step + 1, step + 4):
        record = Trained({"step": number, "loss": float(number)}, 9, 1.0)
        for each in (log, sink):
            each.write(record)
"""


def test_a_resumed_run_has_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run = tmp_path / "run"
    run.mkdir()
    for step in (0, 2):
        line = [sys.executable, "-c", SCRIPT, str(run), str(step)]
        shown = subprocess.run(line, check=True, capture_output=True, text=True).stdout
        assert shown.startswith("trackio: run run-") and "no more records" not in shown
    with closing(sqlite3.connect(tmp_path / "trackio" / "masks.db")) as database:
        steps = [step for (step,) in database.execute("select step from metrics order by step")]
    assert steps == [1, 2, 3, 4, 5]

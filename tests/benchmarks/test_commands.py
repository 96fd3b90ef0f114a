"""Commands as they are run, and what is read of what they leave."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.commands import Bench, run_command, windows_of
from tests.benchmarks.contest import Fmlm, NotRunError, Pace, Stock, Workload
from tests.environment import python_path

PACE = Pace(warm_up=2, windows=2, steps=2)
REAL = Workload("bert-tiny", 8, 64, "real")


def records(**dropped: Any) -> list[dict[str, Any]]:
    """Of six steps of 10 tokens, the first of which take a second each and the others a half."""
    seconds = [1.0, 2.0, 2.5, 3.0, 3.5, 4.0]
    training = [
        {"step": step, "loss": 1.0, "tokens": 10 * step, "seconds": taken, "tokens_per_second": 16.0}
        for step, taken in enumerate(seconds, start=1)
    ]
    return [{"step": 0, "evaluation": "valid", "eval_loss": 2.0}, *training]


def test_windows_are_differences_of_records() -> None:
    assert windows_of(records(), PACE) == (((20, 1.0), (20, 1.0)), 2.0)
    assert windows_of(records(), Pace(0, 3, 2)) == (((20, 2.0), (20, 1.0), (20, 1.0)), 0.0)


def test_without_seconds_the_latest_speed_has_to_do() -> None:
    older = [{name: value for name, value in each.items() if name != "seconds"} for each in records()]
    windows, warm_up = windows_of(older, PACE)
    [(tokens, seconds)] = windows
    assert tokens / seconds == pytest.approx(16.0) and warm_up is None


def test_a_run_that_ended_early_is_no_measurement() -> None:
    with pytest.raises(NotRunError, match="no record of step 6"):
        windows_of(records()[:-1], PACE)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    stores = {"full": tmp_path / "full", "real": tmp_path / "real"}
    return Bench(tmp_path, "cpu", stores, tmp_path / "models", workers=3)


def test_the_bare_command_has_nothing_but_what_it_must(bench: Bench) -> None:
    command = bench.fmlm_command(Fmlm(Workload("bert-base", 256, 128), Pace(20, 5, 16), bare=True))
    assert command[3:] == [
        *("pretrain", "--data", str(bench.stores["full"]), "--model", "bert-base", "--steps", "100"),
        *("--out", "run"),
    ]


def test_both_sides_get_the_same_workload(bench: Bench) -> None:
    ours = bench.fmlm_command(Fmlm(REAL, PACE, settings=("model.dropout=0.1",)))
    theirs = bench.stock_command(Stock(REAL, PACE))
    assert {"sequence_length=64", "batch.size=8", "data.packing=none", "model.dropout=0.1"} <= set(ours)
    assert {"--length=64", "--rows=8", "--steps=2", "--warm-up=2", "--windows=2", "--workers=3"} <= set(
        theirs
    )
    store, model = str(bench.stores["real"]), str(bench.models / "bert-tiny")
    assert store in ours and store in theirs and f"{model}/config.json" in ours and model in theirs
    assert "--compiled" not in theirs
    assert "--compiled" in bench.stock_command(Stock(REAL, PACE, compiled=True))


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_a_process_is_run_and_its_memory_seen(tmp_path: Path) -> None:
    small = run_command(python("import os; print(os.getcwd())"), tmp_path, 60)
    assert small.said.strip() == str(tmp_path.resolve())
    large = run_command(python(f"a = b'x' * ({int(small.memory * 1024)} + 300 << 20)"), tmp_path, 60)
    assert large.memory > small.memory + 0.2


def test_processor_time_is_that_of_what_it_has_started_too(tmp_path: Path) -> None:
    works = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {works!r}])"
    assert 0.5 <= run_command(python(code), tmp_path, 60).cpu < 5


def test_a_process_that_fails_gives_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(NotRunError, match=r"^failed: ValueError: so it is$"):
        run_command(python("raise ValueError('so it is')"), tmp_path, 60)


def test_a_process_is_ended_with_all_it_started_when_its_time_is_up(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, pathlib, time;"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)']);"
        "pathlib.Path('child').write_text(str(child.pid)); time.sleep(600)"
    )
    begin = time.monotonic()
    with pytest.raises(NotRunError, match="no time left"):
        run_command(python(code), tmp_path, 2.0)
    assert time.monotonic() - begin < 30
    pid, end = (tmp_path / "child").read_text(), time.monotonic() + 20
    while _runs(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: str) -> bool:
    """Whether a process is there; one that is dead and waits for a parent to take notice does not run."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_bench_that_is_stopped_leaves_nothing_running(tmp_path: Path) -> None:
    command = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    bench = f"""
import sys, pathlib
from tests.benchmarks.commands import leave_in_order, run_command
leave_in_order()
run_command([sys.executable, "-c", {command!r}], pathlib.Path({str(tmp_path)!r}), 600)
"""
    process = subprocess.Popen([sys.executable, "-c", bench], env={**os.environ, "PYTHONPATH": python_path()})
    said, until = tmp_path / "said.txt", time.monotonic() + 60
    while not (said.exists() and said.read_text().strip()):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(said.read_text()), 0)

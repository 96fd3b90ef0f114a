"""The bench of tokenizing: its text, the stock rows, speeds and memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.stock_tokenizing import ROW, chunked
from tests.benchmarks.tokenizing import SIDES, Runs, memory_of_group, table_of, zipf_text


def test_the_text_is_the_same_every_time_and_some_words_are_frequent(tmp_path: Path) -> None:
    for name in "ab":
        zipf_text(tmp_path / name, 0.2)
    text = (tmp_path / "a").read_text()
    assert text == (tmp_path / "b").read_text()
    words = text.split()
    assert 0.2e6 <= len(text) < 0.3e6
    assert len(words) / len(set(words)) > 3


def test_stock_rows_are_full_and_in_order() -> None:
    rows = chunked({"input_ids": [list(range(700)), list(range(700, 1100))]})["input_ids"]
    assert rows == [list(range(ROW)), list(range(ROW, 2 * ROW))]


def test_speeds_with_the_start_and_without() -> None:
    assert Runs(whole=[9.0, 6.0, 3.0], start=[2.0, 2.0, 2.0]).speeds(12) == (2.0, 3.0)
    found = {side: Runs([2.0 * side.processes], [1.0], 0.5, [2.0]) for side in SIDES}
    assert table_of(found, 4).row_count == 4


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells of shared pages")
def test_the_memory_of_all_processes_counts() -> None:
    inner = "a = bytearray(b'x') * (64 << 20); print('made', flush=True); import sys; sys.stdin.read()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, start_new_session=True) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"made\n"
        assert os.getsid(process.pid) == process.pid
        assert 64 < memory_of_group(process.pid) * 1024 < 200
        process.stdin.close()

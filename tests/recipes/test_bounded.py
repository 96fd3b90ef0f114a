"""Tokenizing takes no more memory for more text: of the process that reads and of its workers together."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import generate_documents
from tests.environment import python_path


def processes(root: int) -> Iterator[int]:
    """A process and all that come from it."""
    yield root
    try:
        for task in Path(f"/proc/{root}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from processes(int(child))
    except OSError:
        return


def resident(root: int) -> int:
    """Bytes of memory that they take, of what is shared each its share."""
    total = 0
    for process in processes(root):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def peak(text: Path, tokenizer: Path, out: Path) -> int:
    words = ["tokenize", str(text), "--tokenizer", str(tokenizer), "--out", str(out), "--workers", "2"]
    highest = 0
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "fmlm_cli", *words, "--dedup", "exact"],
        env={**os.environ, "PYTHONPATH": python_path()},
        stdout=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None:
            highest = max(highest, resident(process.pid))
            time.sleep(0.05)
    assert process.returncode == 0
    return highest


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux says how much it takes")
def test_memory_does_not_grow_with_the_text(tmp_path: Path, wordpiece_folder: Path) -> None:
    text = "\n".join(generate_documents(4000))
    peaks = []
    for times in (20, 100):
        with (tmp_path / f"{times}.txt").open("w") as file:
            for number in range(times):
                file.write(f"{text}\nthe {number}\n")
        assert (tmp_path / f"{times}.txt").stat().st_size > times * 9e5
        peaks.append(peak(tmp_path / f"{times}.txt", wordpiece_folder, tmp_path / f"store-{times}"))
    assert max(peaks) < 1e9, peaks
    assert peaks[1] < 1.25 * peaks[0], peaks

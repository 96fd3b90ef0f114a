"""The examples of configs/slurm: every shell block and every batch script is run as it is written.

What is scaled down, and what this one machine has no other of, is in `INSTEAD`, and nothing else is changed.
torchrun is torch's own; `srun` and `scontrol` are played.
"""

import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.environment import ROOT, python_path
from tests.launching import fake_srun

FOLDER = ROOT / "configs" / "slurm"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.sbatch"))}

INSTEAD = {
    "--model bert-base": "--model bert-tiny",
    "--steps 100000": "--steps 6",
    "--tokens 10e9": "--tokens 60e3",
    "--nnodes 2 --nproc-per-node 4": "--nnodes 2 --nproc-per-node 1",
    "--nproc-per-node 4": "--nproc-per-node 2",
    "node1:29400": "localhost:{port}",
    "--task all": "--task rte",
    "--seeds 5": "--seeds 2",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def scaled_down(text: str, port: int = 0) -> str:
    for written, run in INSTEAD.items():
        text = text.replace(written, run.format(port=port))
    return text


@pytest.fixture
def folder(tiny_store: Path, small_encoder: Path, tmp_path: Path) -> Path:
    """Where a user would be: with a store, a model, GLUE, and the commands on the PATH."""
    shutil.copytree(tiny_store, tmp_path / "store")
    shutil.copytree(small_encoder, tmp_path / "model")
    (tmp_path / "bin").mkdir()
    fake_srun.install(tmp_path / "bin")
    for name, module in (("fmlm", "fmlm_cli"), ("torchrun", "torch.distributed.run")):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    rte = tmp_path / "glue" / "RTE"
    rte.mkdir(parents=True)
    for split, number in (("train", 24), ("dev", 8), ("test", 4)):
        lines = [f"{i}\tthe river {i}\tthe water {i}" for i in range(number)]
        labels = ["entailment", "not_entailment"]
        lines = lines if split == "test" else [f"{x}\t{labels[i % 2]}" for i, x in enumerate(lines)]
        head = "index\tsentence1\tsentence2" + ("" if split == "test" else "\tlabel")
        (rte / f"{split}.tsv").write_text("\n".join([head, *lines]) + "\n")
    return tmp_path


@contextmanager
def started(text: str, folder: Path, **more: str) -> Iterator["subprocess.Popen[str]"]:
    """A text that bash runs in a folder; whatever it started is ended with the block."""
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment: Mapping[str, str] = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": python_path(),
        "COLUMNS": "200",
        fake_srun.TASKS: "2",
        **more,
    }
    with subprocess.Popen(
        ["bash", "-c", text],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def ended(text: str, folder: Path, **more: str) -> tuple[int, str]:
    """The exit code of a text that bash runs, and what it printed."""
    with started(text, folder, **more) as process:
        said, _ = process.communicate(timeout=300)
    return process.returncode, said


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return int(server.getsockname()[1])


# ---------------------------------------------------------------- the page


def test_what_is_put_in_its_place_is_in_the_examples() -> None:
    """So that no example escapes to its full size, and all shell blocks are run below."""
    text = "\n".join([*blocks(""), *SCRIPTS.values()])
    assert [written for written in INSTEAD if written not in text] == []
    assert not re.search(r"bert-base|bert-large|100000|10e9|node1|--task all", scaled_down(text))
    assert [block.split()[0] for block in blocks("")] == ["fmlm", "torchrun", "torchrun"]
    assert list(SCRIPTS) == ["grid.sbatch", "pretrain.sbatch"]
    for name in SCRIPTS:
        assert f"({name})" in PAGE


def test_the_estimates_of_the_page_come_from_its_formula() -> None:
    names: dict[str, Callable[..., dict[str, float]]] = {}
    [block] = blocks("python")
    exec(compile(block, "README.md", "exec"), names)
    shapes = {"bert-base": (12, 768), "bert-large": (24, 1024)}
    rows = [
        re.split(r"\s*\|\s*", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("| bert-")
    ]
    assert len(rows) == 4
    for model, tokens, hours, on_eight, *others in rows:
        found = names["estimate"](*shapes[model], float(tokens.split()[0]) * 1e9)
        assert_rounded(hours, found["GPU-hours"])
        assert_rounded(on_eight, found["GPU-hours"] / 8)
        wanted = ("cost", "text", "store", "checkpoint", "on the GPU")
        for cell, name in zip(others, wanted, strict=True):
            assert_rounded(cell, found[name])


def assert_rounded(cell: str, value: float) -> None:
    """A cell is a value to as many places as it has."""
    [number] = re.findall(r"[\d.]+", cell)
    places = len(number.partition(".")[2])
    assert math.isclose(float(number), value, abs_tol=0.5001 * 10**-places), (cell, value)


# ---------------------------------------------------------------- what is run


@pytest.mark.slow
def test_one_machine(folder: Path) -> None:
    by_itself, by_torchrun, _ = (scaled_down(block) for block in blocks(""))
    code, said = ended(by_itself.replace("\n", " --nproc 2\n"), folder)  # as on a machine with two GPUs
    assert code == 0 and "done" in said, said
    assert (folder / "run" / "final" / "model.safetensors").is_file()
    shutil.rmtree(folder / "run")
    code, said = ended(by_torchrun, folder)
    assert code == 0 and said.count("\ndone\n") == 1, said
    code, said = ended(by_torchrun, folder)  # again: there is nothing left to do
    assert code == 0 and "nothing to resume" in said, said


@pytest.mark.slow
def test_two_machines(folder: Path) -> None:
    """Both of them are this one."""
    text = scaled_down(blocks("")[2], free_port())
    with started(text, folder) as first, started(text, folder) as second:
        said = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0, said
    assert sum(text.count("\ndone\n") for text in said) == 1, said
    assert (folder / "run" / "final" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_run_that_its_limit_stops_is_requeued_and_finished(folder: Path) -> None:
    """Slurm's signal before a limit comes in the middle; then the script is run again, as requeued jobs are."""
    text = scaled_down(SCRIPTS["pretrain.sbatch"]).replace("60e3", "150e3")
    asked = folder / "bin" / "scontrol.log"
    with started(text, folder, SLURM_JOB_ID="4711") as job:
        metrics = folder / "run" / "metrics.jsonl"
        until = time.monotonic() + 240
        while not (metrics.is_file() and '"loss"' in metrics.read_text()):
            assert job.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        [srun] = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        os.kill(int(srun), signal.SIGUSR1)  # with #SBATCH --signal=USR1 a job's steps get it
        said, _ = job.communicate(timeout=120)
    assert job.returncode == 85 and "stopped by SIGUSR1 at step" in said and "saved in" in said, said
    assert asked.read_text() == "requeue 4711\n"
    assert not (folder / "run" / "final").exists()
    code, said = ended(text, folder, SLURM_JOB_ID="4711")
    assert code == 0 and "resuming after step" in said and said.count("\ndone\n") == 1, said
    assert asked.read_text() == "requeue 4711\n"
    assert (folder / "run" / "final" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_limit_that_comes_at_once_is_requeued(folder: Path) -> None:
    """--max-minutes, before anything began: nothing is left, and the next one has it all to do."""
    text = scaled_down(SCRIPTS["pretrain.sbatch"])
    short = text.replace("--max-minutes 470", "--max-minutes 0.01")
    code, said = ended(short, folder, SLURM_JOB_ID="12")
    assert code == 85 and "stopped by --max-minutes 0.01" in said, said
    assert (folder / "bin" / "scontrol.log").read_text() == "requeue 12\n"
    code, said = ended(text, folder)
    assert code == 0, said


@pytest.mark.slow
def test_what_is_to_be_mended_is_not_requeued(folder: Path) -> None:
    code, said = ended(scaled_down(SCRIPTS["pretrain.sbatch"]), folder, STORE="nowhere")
    assert code == 2 and "nowhere" in said, said
    assert not (folder / "bin" / "scontrol.log").exists()


@pytest.mark.slow
def test_a_grid_is_dealt_out(folder: Path) -> None:
    code, said = ended(scaled_down(SCRIPTS["grid.sbatch"]), folder, MODEL="model")
    assert code == 0, said
    assert len(list((folder / "tuned" / "cells" / "rte" / "default").glob("seed-*"))) == 2
    assert (folder / "tuned" / "results.md").is_file()

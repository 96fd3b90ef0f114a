"""What `fmlm doctor` finds on a machine."""

import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from fmlm_cli import cores
from fmlm_cli.cli.app import app
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.recipes.doctor import machine as machines
from fmlm_cli.recipes.doctor import packages
from fmlm_cli.recipes.doctor import run as doctor
from fmlm_cli.recipes.doctor.machine import Machine
from tests.cli.refusals import assert_refused

GIB = 1 << 30


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container's limits, none at first."""
    monkeypatch.setattr(machines, "_CGROUP", tmp_path)
    monkeypatch.setattr(cores, "CPU_QUOTA", tmp_path / "cpu.max")
    return tmp_path


def test_what_is_there_is_told() -> None:
    shown = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "160"})
    assert shown.exit_code == 0, shown.output
    for part in ("torch", "attention", "TFLOP/s, measured", "GB/s, measured", "free", "lora"):
        assert part in shown.stdout, part
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["versions"]["torch"] == metadata.version("torch")
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert found["speed"]["matrix"] > 1e8 and found["speed"]["memory"] > 1e7


def test_a_device_that_is_not_there_is_refused() -> None:
    assert_refused(CliRunner().invoke(app, ["doctor", "--device", "cuda:77"]), "cuda:77")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", None), ("50000 100000", 0.5), ("99900000 100000", None), ("", None)],
)
def test_cores_are_those_of_the_container(
    cgroup: Path, limit: str, expected: float | None, tmp_path: Path
) -> None:
    (cgroup / "cpu.max").write_text(limit)
    allowed = len(os.sched_getaffinity(0))
    assert machines.look(tmp_path).cores == (expected or allowed)
    assert cores.usable_cores() == max(1, int(expected or allowed))


def test_memory_is_that_of_the_container(cgroup: Path, tmp_path: Path) -> None:
    whole = machines.look(tmp_path)
    assert whole.memory is not None and whole.memory_free is not None
    assert 0 < whole.memory_free < whole.memory
    (cgroup / "memory.max").write_text(str(GIB))
    (cgroup / "memory.current").write_text(str(GIB // 4))
    limited = machines.look(tmp_path)
    assert (limited.memory, limited.memory_free) == (GIB, GIB - GIB // 4)
    (cgroup / "memory.max").write_text("max")
    assert machines.look(tmp_path).memory == whole.memory


def test_the_disk_of_a_folder_that_is_still_to_be_made(tmp_path: Path) -> None:
    assert machines.look(tmp_path / "a" / "b").disk_free > 0


def test_extras_and_requirements_that_are_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [
        "torch>=2",
        "numpy>=999",
        "no-such-package",
        'no-such-either; python_version < "3"',
        'no-such-extra>=1; extra == "some"',
        'numpy>=1; extra == "other"',
        'no-such-tool; extra == "dev"',
    ]
    monkeypatch.setattr(packages.metadata, "requires", lambda name: own)

    class Metadata:
        def get_all(self, name: str) -> list[str]:
            return ["some", "other", "dev"]

    monkeypatch.setattr(packages.metadata, "metadata", lambda name: Metadata())
    numpy = metadata.version("numpy")
    assert packages.broken_requirements() == [f"numpy>=999, and {numpy} is installed", "no-such-package"]
    assert [(extra.name, extra.lacks) for extra in packages.extras()] == [
        ("some", "no-such-extra"),
        ("other", ""),
    ]
    assert packages.extras()[0].command == "pip install 'fmlm[some]'"


GOOD = {
    "cores": 8.0,
    "threads": 8,
    "load": 0.5,
    "memory": 64 * GIB,
    "memory_free": 32 * GIB,
    "disk_free": 100 * GIB,
    "accelerators": (),
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, None),
        ({"load": 20.0}, "20 processes want 8 cores"),
        ({"cores": 2.0}, "set OMP_NUM_THREADS=2"),
        ({"disk_free": GIB}, "are free on the disk"),
        ({"memory_free": GIB}, "of memory are free"),
        ({"accelerators": ("H100, 80 GiB",)}, "there is a GPU (H100"),
        ({"load": None, "memory": None, "memory_free": None}, None),
    ],
)
def test_what_stands_in_the_way(changed: dict[str, Any], words: str | None) -> None:
    told = list(doctor._cautions(Machine(**{**GOOD, **changed}), Runtime.resolve("cpu")))
    assert len(told) == (words is not None)
    assert all(str(words) in text for text in told)

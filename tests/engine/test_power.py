"""A GPU's power as nvidia-smi tells it, by a program that stands in for it."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fmlm_cli.engine.device import power

GPU = torch.device("cuda", 0)


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what the program does can be written; it keeps the words that it was given."""
    program = tmp_path / "nvidia-smi"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="ab-12"))
    monkeypatch.setattr(power, "_APART", 0.01)
    return program


def watts(device: torch.device = GPU, seconds: float = 0.3) -> float | None:
    with power.PowerMeter(device) as meter:
        time.sleep(seconds)
    return meter.watts


def test_what_is_drawn_in_the_middle_counts(says: Path) -> None:
    asked = says.parent / "asked"
    says.write_text(f'#!/bin/sh\necho "$@" >> {asked}\necho 350.5\n')
    assert watts() == 350.5
    words = asked.read_text().splitlines()[0].split()
    assert "--id=GPU-ab-12" in words and "--query-gpu=power.draw" in words


@pytest.mark.parametrize("answer", ["echo '[N/A]'", "echo no such device >&2; exit 6", "true"])
def test_what_is_not_known_is_not_made_up(says: Path, answer: str) -> None:
    says.write_text(f"#!/bin/sh\n{answer}\n")
    assert watts() is None


def test_of_a_cpu_nothing_is_asked(says: Path) -> None:
    says.write_text("#!/bin/sh\necho 350.5\n")
    assert watts(torch.device("cpu"), 0.0) is None


def test_without_the_program_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert watts(seconds=0.0) is None

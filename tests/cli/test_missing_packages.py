"""Without a package that it stands on, fmlm says so in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from fmlm_cli import __version__

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))  # what is None there is not found
sys.argv[:2] = ["fmlm"]
from fmlm_cli.__main__ import main
main()
"""
PRETRAIN = ("pretrain", "--data", "store", "--out", "run", "--steps", "3")


def without(package: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", WITHOUT, package, *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.parametrize(
    ("package", "installed_as", "words"),
    [
        ("typer", "typer", ("--version",)),
        ("typer", "typer", PRETRAIN),
        ("pydantic", "pydantic", PRETRAIN),
        ("yaml", "pyyaml", ("masks", "--help")),
        ("rich", "rich", ("inspect", "store")),
        ("torch", "torch", PRETRAIN),
        ("pyarrow", "pyarrow", ("inspect", "store")),
    ],
)
def test_a_missing_package_is_one_line(
    package: str, installed_as: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    done = without(package, *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    line = f"error: the package {installed_as} is not installed for {sys.executable}: pip install {installed_as}\n"
    assert " ".join(done.stderr.split()) == line.strip()
    assert list(tmp_path.iterdir()) == []


def test_help_and_versions_are_told_all_the_same(tmp_path: Path) -> None:
    absent = "torch,transformers,datasets,pyarrow,pydantic,yaml,numpy"
    done = without(absent, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and "pretrain" in done.stdout
    done = without(absent, "--version", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, *_, last = done.stdout.splitlines()
    assert first == f"fmlm {__version__}"
    assert last.startswith("device: unknown, for torch does not load (")


def test_versions_and_the_device_are_those_of_torch(tmp_path: Path) -> None:
    import torch

    done = without("nothing", "--version", cwd=tmp_path)
    assert done.returncode == 0
    assert f"torch {torch.__version__.partition('+')[0]}" in done.stdout
    kind = "cpu" if not torch.cuda.is_available() else torch.cuda.get_device_name(0)
    assert kind in done.stdout.splitlines()[-1]

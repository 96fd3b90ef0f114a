"""The wheel: what is in it, and that fmlm works where nothing but the wheel is."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest

from fmlm_cli import __version__
from tests.environment import ROOT
from tests.packaging import installed

pytestmark = pytest.mark.slow

SOURCES = ("fmlm_cli", "tests", "configs", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for setuptools leaves folders beside what it builds."""
    copy, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(copy))
    [built] = out.iterdir()
    return built


def pip(*words: str) -> None:
    """pip of this environment, without an index."""
    line = [sys.executable, "-m", "pip", *words[:1], "--quiet", "--no-index", *words[1:]]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it; what it stands on it takes from this one."""
    folder = tmp_path_factory.mktemp("environments") / "new"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip("install", "--no-deps", "--prefix", str(folder), "--ignore-installed", str(wheel))
    [packages] = folder.glob("lib/python*/site-packages")
    # A folder that is named there is searched, but its own .pth files are not read: no editable fmlm comes along.
    (packages / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def metadata_of(archive: zipfile.ZipFile) -> Message:
    [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    return BytesParser().parsebytes(archive.read(name))


def test_the_package_is_in_it_and_nothing_else(wheel: Path) -> None:
    package = ROOT / "fmlm_cli"
    files = {path.relative_to(ROOT) for path in package.rglob("*") if path.is_file()}
    wanted = {str(path) for path in files if "__pycache__" not in path.parts}
    assert {"fmlm_cli/py.typed", "fmlm_cli/analysis/report/report.css"} < wanted
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == wanted
        assert all(archive.read(name) == (ROOT / name).read_bytes() for name in wanted)


def test_what_it_says_of_itself(wheel: Path) -> None:
    assert wheel.name == f"fmlm-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        said = metadata_of(archive)
        info = f"fmlm-{__version__}.dist-info"
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert "fmlm = fmlm_cli.__main__:main" in archive.read(f"{info}/entry_points.txt").decode()
    assert (said["Name"], said["Version"], said["Requires-Python"]) == ("fmlm", __version__, ">=3.11")
    assert said["License-Expression"] == "MIT" and said["Description-Content-Type"] == "text/markdown"
    assert str(said.get_payload()).startswith("# fmlm\n")
    assert {"lora", "sentencepiece", "near", "tensorboard", "wandb", "trackio"} < set(
        said.get_all("Provides-Extra", [])
    )


def test_it_works_in_a_new_environment(environment: Path, capfd: pytest.CaptureFixture[str]) -> None:
    where = [str(environment / "bin" / "python"), "-c", "import fmlm_cli; print(fmlm_cli.__file__)"]
    done = subprocess.run(
        where, cwd="/", env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(environment))
    installed.run(str(environment / "bin" / "fmlm"))


CONSUMER = """
import numpy as np
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.masking import RowView, get_strategy
from fmlm_cli.recipes.pretraining import pretrain

settings: PretrainSettings = build(PretrainSettings, nested({"out": "run"}))
reveal_type(pretrain(settings).run.is_finished)
rows = RowView(np.ones((2, 21), bool), None, np.array([0, 1]), np.ones((2, 21), int))
reveal_type(get_strategy("random", rate=0.5).masks(rows, epoch=0, seed=0))
pretrain("run")
"""


UNREAD = (
    "torch.*,transformers.*,datasets.*,pyarrow.*,scipy.*,sklearn.*,matplotlib.*"  # which would take minutes
)


def test_its_types_are_seen_by_who_imports_it(environment: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "consumer.py").write_text(CONSUMER)
    (tmp_path / "mypy.ini").write_text(f"[mypy]\n[mypy-{UNREAD}]\nfollow_imports = skip\n")
    line = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "consumer.py"]
    line += ["--python-executable", str(environment / "bin" / "python"), "--ignore-missing-imports"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("consumer.py")]
    assert 'Revealed type is "builtins.bool"' in found[0] or 'Revealed type is "bool"' in found[0], (
        done.stdout
    )
    assert "ndarray[" in found[1], done.stdout
    assert 'incompatible type "str"; expected "PretrainSettings"' in found[2] and len(found) == 3, done.stdout

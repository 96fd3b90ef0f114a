"""What the system will not do: one line that names the file; and a terminal whose encoding lacks letters."""

import ctypes
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from tests.cli.refusals import assert_refused
from tests.conftest import MakeStore
from tests.environment import python_path

_PR_CAPBSET_DROP, _DAC_OVERRIDE, _DAC_READ_SEARCH = 24, 1, 2  # linux/prctl.h, linux/capability.h


def invoke(*words: Any) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As `ulimit -f` in a shell; Python ignores SIGXFSZ."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [1, 2000])
def test_a_limit_on_the_size_of_files(size: int, documents: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    with largest_file(size):
        result = invoke(
            "tokenize", tmp_path / "text.txt", "--train-tokenizer", "wordpiece", "--out", tmp_path / "store"
        )
    assert_refused(result, "no space left", "`ulimit -f`", "store")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


@pytest.mark.parametrize(
    "letters", [250, 300]
)  # the first is too long with what is added while it is not whole
def test_names_that_are_too_long(
    letters: int, documents: list[str], tiny_store: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    name = tmp_path / ("x" * letters)
    words = ["tokenize", tmp_path / "text.txt", "--train-tokenizer", "wordpiece", "--out", name]
    assert_refused(invoke(*words), "File name too long; check the name")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
    if letters == 300:
        assert_refused(invoke("masks", tiny_store, "--masking", name))
        assert_refused(invoke("masks", name), name.name)
        assert_refused(invoke("pretrain", name, "--out", tmp_path / "run"), "File name too long")


def without_privileges() -> None:
    """Let even root be refused what a file's mode refuses its owner."""
    if os.getuid() == 0:
        prctl = ctypes.CDLL(None).prctl
        for capability in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
            assert prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


def run(*words: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fmlm_cli", *map(str, words)],
        env={**os.environ, "PYTHONPATH": python_path(), **environment},
        preexec_fn=without_privileges,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="drops capabilities as Linux does")
def test_files_that_may_not_be_read(make_store: MakeStore, documents: list[str], tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", documents)
    config = tmp_path / "settings.yaml"
    config.write_text("seed: 1\n")
    for path, words in (
        (store / "train" / "data-00000-of-00001.arrow", ["masks", store]),
        (config, ["pretrain", config, "--data", store, "--out", tmp_path / "run"]),
    ):
        path.chmod(0)
        done = run(*words)
        assert done.returncode == 2, done.stderr
        [line] = done.stderr.splitlines()
        assert line.startswith("error: ") and path.name in line and "Permission denied" in line


@pytest.mark.skipif(sys.platform != "linux", reason="drops capabilities as Linux does")
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_checkpoints_file_that_may_not_be_read(
    name: str, small_encoder: Path, tiny_store: Path, tmp_path: Path
) -> None:
    """It is neither missing nor damaged."""
    model = shutil.copytree(small_encoder, tmp_path / "model")
    (model / name).chmod(0)
    done = run("evaluate", "--from", model, "--data", tiny_store)
    assert done.stderr == f"error: {model / name}: Permission denied; check the name and its permissions\n"


def test_an_encoding_that_lacks_letters(make_store: MakeStore, documents: list[str], tmp_path: Path) -> None:
    """What cannot be written is written out; a locale that is not UTF-8 changes nothing else."""
    store = make_store(tmp_path / "store", ["größer − schön " * 20] * 5)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = run("masks", store, "--rows", 1, **plain)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u2081" in done.stdout or r"\u208c" in done.stdout  # the small letters between the tokens
    assert run("masks", tmp_path / "größer", **plain).stderr.isascii()


def test_json_that_is_nested_too_deep(documents: list[str], tiny_store: Path, tmp_path: Path) -> None:
    deep = '{"model_type": "bert", "x": ' + "[" * 200_000 + "]" * 200_000 + "}"
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "manifest.json"):
        (tmp_path / name).write_text(deep)
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    out = ["--out", tmp_path / "out"]
    assert_refused(invoke("masks", tmp_path), "manifest.json: not to be read as JSON")
    shape = ["--model", tmp_path / "config.json", "--steps", 1]
    assert_refused(invoke("pretrain", "--data", tiny_store, *shape, *out), "config.json", "nested too deep")
    assert_refused(invoke("tokenize", tmp_path / "text.txt", "--tokenizer", tmp_path, *out))
    assert_refused(invoke("predict", "--from", tmp_path, "x [MASK]"))
    assert not (tmp_path / "out").exists()

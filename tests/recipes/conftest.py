"""Fixtures of the tests that run recipes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli.config import PretrainSettings, build, nested
from tests.recipes.runs import RHYTHM, TINY, Settings, without_pictures


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost far more than such small products."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def quick() -> Iterator[None]:
    """Neither the device's peak nor the picture is looked at here."""
    with without_pictures():
        yield


@pytest.fixture
def settings(tiny_store: Path, tmp_path: Path) -> Settings:
    """`settings(out, **dotted names)`: a run of a tiny model on the tiny store, as a tree with gaps."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(TINY))

    def make(out: str = "run", **changed: Any) -> PretrainSettings:
        fixed = {
            "data.stores": [str(tiny_store)],
            "model.name": str(tmp_path / "model"),
            "out": str(tmp_path / out),
        }
        return build(PretrainSettings, nested({**fixed, **RHYTHM, **changed}))

    return make

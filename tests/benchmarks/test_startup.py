"""The benches of start-up and of padding run, on stores that are what they say."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fmlm_cli.corpus.store.reading import TokenStore
from tests.benchmarks import padding, startup


def test_a_repeated_store_holds_its_documents_again_and_again(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "FILE_BATCHES", 2)
    one, many = TokenStore.open(tiny_store), TokenStore.open(startup.repeated(tiny_store, tmp_path / "s", 5))
    assert len(many.manifest["splits"]["train"]["files"]) == 3
    assert many.split("train").lengths.tolist() == np.tile(one.split("train").lengths, 5).tolist()
    first, last = (list(store.split("train").documents())[-1] for store in (one, many))
    assert all(np.array_equal(a, b) for a, b in zip(first, last, strict=True))


def test_a_start_is_measured_from_the_stores_name_to_the_first_batch(tiny_store: Path) -> None:
    found = startup.start(tiny_store)
    assert found["all"] == pytest.approx(sum(found[step] for step in startup.STEPS))
    assert all(found[step] > 0 for step in startup.STEPS)


def test_padding_is_told_for_every_size_that_the_store_has_rows_for(tiny_store: Path) -> None:
    console = Console(record=True, width=120)
    padding.main(console, tiny_store)
    said = console.export_text()
    assert "8 x 128" in said and "32 x 512" in said and "%" in said

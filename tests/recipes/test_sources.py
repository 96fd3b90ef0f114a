"""From text in any format to the same store, and to a run."""

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmlm_cli.config import PretrainSettings, TokenizeSettings, build, nested
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.text.documents import ReadOptions
from fmlm_cli.corpus.text.files.text_files import TextFiles
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.events import Event, Facts
from fmlm_cli.recipes.pretraining.planning.data import make_store_of_text, store_of_text
from fmlm_cli.recipes.tokenize import make_store


def written(texts: Sequence[str], folder: Path) -> list[Path]:
    """The same documents as users have them."""
    datasets.disable_progress_bars()
    rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
    paths = [folder / name for name in ("a.txt.gz", "a.jsonl.zst", "a.csv", "a.parquet", "saved")]
    paths[0].write_bytes(gzip.compress("\n\n".join(texts).encode(), 1))
    with pa.CompressedOutputStream(str(paths[1]), "zstd") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    with paths[2].open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"])
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), paths[3])
    datasets.Dataset.from_list(rows).save_to_disk(paths[4], num_shards=2)
    return paths


def ids_of(source: Path, tokenizer: Path, out: Path) -> list[list[list[int]]]:
    """Of both splits, by document."""
    settings = TokenizeSettings(
        sources=(str(source),),
        out=str(out),
        tokenizer=str(tokenizer),
        documents="blank-line",
        valid_fraction=0.1,
    )
    store = TokenStore.open(make_store(settings))
    return [[ids.tolist() for ids, _ in store.split(name).documents()] for name in ("train", "validation")]


def check_all_alike(texts: Sequence[str], tokenizer: Path, folder: Path) -> None:
    first, *others = written(texts, folder)
    wanted = ids_of(first, tokenizer, folder / "store-0")
    assert sum(map(len, wanted)) == len(texts)
    for number, path in enumerate(others, start=1):
        assert ids_of(path, tokenizer, folder / f"store-{number}") == wanted, path


def test_one_text_in_five_formats_has_the_same_ids(
    documents: list[str], wordpiece_folder: Path, tmp_path: Path
) -> None:
    check_all_alike(
        [f'{text}\n\u00e9t\u00e9, \U0001f98a, "{n}"' for n, text in enumerate(documents[:30])],
        wordpiece_folder,
        tmp_path,
    )


@pytest.mark.slow
def test_all_corpora_in_five_formats_have_the_same_ids(
    shared_data: Path, wordpiece_folder: Path, tmp_path: Path
) -> None:
    sources = [str(path) for path in sorted((shared_data / "corpora").glob("*.txt.gz"))]
    texts = list(TextFiles.find(sources, ReadOptions(documents="blank-line")).documents(ReadStats()))
    check_all_alike(texts, wordpiece_folder, tmp_path)


def test_what_is_left_out_for_its_length_is_told(wordpiece_folder: Path, tmp_path: Path) -> None:
    texts = ["a", "bb", "the cat and the dog", "of time to see", "x" * 90, "y" * 91]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    events: list[Event] = []
    settings = TokenizeSettings(
        sources=(str(tmp_path / "a.txt"),),
        out=str(tmp_path / "store"),
        tokenizer=str(wordpiece_folder),
        min_chars=2,
        max_chars=50,
        valid_fraction=0,
    )
    store = TokenStore.open(make_store(settings, emit=events.append))
    assert len(store.split("train")) == 3
    facts = store.manifest["facts"]
    assert (facts["under_min_documents"], facts["over_max_documents"]) == (1, 2)
    (summary,) = [event.rows for event in events if isinstance(event, Facts) and "token store" in event.title]
    assert summary["fewer than 2 characters"] == "1 document left out"
    assert summary["more than 50 characters"] == "2 documents left out"


def test_text_that_a_run_is_given_is_read_in_the_same_ways(
    documents: list[str], wordpiece_folder: Path, tmp_path: Path
) -> None:
    rows = [{"head": f"Number {n}", "body": text} for n, text in enumerate(documents[:20])]
    datasets.DatasetDict({"one": datasets.Dataset.from_list(rows)}).save_to_disk(tmp_path / "saved")
    asked = {"text.sources": [str(tmp_path / "saved")], "text.split": "one", "text.text_field": "head,body"}
    given = {"out": str(tmp_path / "run"), "text.min_chars": 100, "text.valid_fraction": 0}
    settings = build(PretrainSettings, nested({**asked, **given}))
    store = TokenStore.open(make_store_of_text(settings, wordpiece_folder, lambda event: None))
    assert store.root == store_of_text(settings)
    long = [row for row in rows if len(f"{row['head']}\n\n{row['body']}") >= 100]
    assert len(store.split("train")) == len(long) < 20

"""Text that `--valid` names is not trained on: neither its files, nor documents that are the same."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli.config import TokenizeSettings
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.text import corpus as corpus_text
from fmlm_cli.corpus.text.python_docs import PythonDocs
from fmlm_cli.errors import UserError
from fmlm_cli.events import Event, Facts, Note
from fmlm_cli.recipes.tokenize import make_store

Run = Callable[..., tuple[TokenStore, list[Event]]]


@pytest.fixture
def run(tmp_path: Path, wordpiece_folder: Path) -> Run:
    """Tokenize sources of `tmp_path`; the store, and what was told."""

    def go(*sources: Any, valid: Any, **options: Any) -> tuple[TokenStore, list[Event]]:
        if "train_tokenizer" not in options:
            options["tokenizer"] = str(wordpiece_folder)
        asked = TokenizeSettings(
            sources=tuple(map(str, sources)), valid=(str(valid),), out=str(tmp_path / "store"), **options
        )
        events: list[Event] = []
        return TokenStore.open(make_store(asked, renew=True, emit=events.append)), events

    return go


@pytest.fixture
def data(tmp_path: Path, documents: list[str]) -> Path:
    """A folder of 60 documents in train.txt, and 20 others in valid.txt."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.txt").write_text("\n".join(documents[:60]))
    (tmp_path / "data" / "valid.txt").write_text("\n".join(documents[60:80]))
    return tmp_path / "data"


def counts(store: TokenStore) -> tuple[int, int, int]:
    """Documents of training, of validation, and left out of training."""
    train, validation = (len(store.split(name)) for name in ("train", "validation"))
    return train, validation, store.manifest["facts"]["held_out_documents"]


@pytest.mark.parametrize(
    "how", ["folder", "glob", "named", "link", "link to a folder", "hard link", "compressed twin", "relative"]
)
def test_a_validation_file_leaves_the_training_text(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    sources, valid = [str(data)], str(data / "valid.txt")
    if how == "glob":
        sources = [f"{data}/*.txt"]
    elif how == "named":
        sources = [f"{data}/valid.txt", f"{data}/train.txt"]
    elif how == "link":
        (data.parent / "held.txt").symlink_to(data / "valid.txt")
        valid = str(data.parent / "held.txt")
    elif how == "link to a folder":
        (data.parent / "held").symlink_to(data)
        valid = str(data.parent / "held" / "valid.txt")
    elif how == "hard link":
        (data.parent / "held.txt").hardlink_to(data / "valid.txt")
        valid = str(data.parent / "held.txt")
    elif how == "compressed twin":
        (data / "valid.txt.gz").write_bytes(gzip.compress((data / "valid.txt").read_bytes()))
        valid = str(data / "valid.txt.gz")
    elif how == "relative":
        monkeypatch.chdir(data)
        sources, valid = ["."], "../data/valid.txt"
    store, events = run(*sources, valid=valid)
    assert counts(store) == (60, 20, 0)
    told = [event.text for event in events if isinstance(event, Note)]
    named = "2 files that --valid names (valid.txt, valid.txt.gz)" if "twin" in how else "1 file that --valid"
    assert any(named in note for note in told)
    assert any(note.startswith("validation: reading 1 file") for note in told)


def test_documents_of_both_are_trained_on_in_neither_way(run: Run, data: Path, documents: list[str]) -> None:
    copies = [*documents[70:80], documents[75], documents[0]]
    (data / "copied.txt").write_text("\n".join(copies))
    (data / "more.jsonl").write_text('{"text": "' + documents[65] + '"}\n')
    store, events = run(data, valid=data / "valid.txt")
    assert counts(store) == (61, 20, 12)
    (table,) = [event for event in events if isinstance(event, Facts)]
    assert table.rows["held out"].startswith("12 documents of the training text left out")
    seen = {tuple(ids.tolist()) for ids, _ in store.split("validation").documents()}
    assert not seen & {tuple(ids.tolist()) for ids, _ in store.split("train").documents()}


@pytest.mark.parametrize(
    "options", [{"train_tokenizer": "wordpiece", "vocab_size": 300}, {"extend_vocab": 50}]
)
def test_no_tokenizer_learns_from_a_document_of_both(
    run: Run, data: Path, documents: list[str], options: Any
) -> None:
    strange = "zyzzyva and zyzzyva " * 9
    (data / "valid.txt").write_text(f"{strange}\n{documents[60]}\n")
    with (data / "train.txt").open("a") as file:
        file.write(f"\n{strange}\n")
    store, _ = run(data, valid=data / "valid.txt", **options)
    assert counts(store)[2] == 1
    assert not any("zyz" in token for token in store.tokenizer.get_vocab())


def test_no_tokenizer_learns_from_the_document_that_becomes_the_validation_split(
    run: Run, tmp_path: Path
) -> None:
    texts = [f"text {word} again" for word in ("apple", "pear", "plum", "grape", "melon")]
    (tmp_path / "a.txt").write_text("\n".join(texts * 3))
    asked = TokenizeSettings(
        sources=(str(tmp_path / "a.txt"),),
        out=str(tmp_path / "store"),
        train_tokenizer="wordpiece",
        vocab_size=200,
        valid_fraction=1e-9,
    )
    store = TokenStore.open(make_store(asked))
    (held, *_), vocabulary = store.split("validation").documents(), store.tokenizer.get_vocab()
    assert len(store.split("validation")) == 3
    assert held[0].tolist().count(store.tokenizer.unk_token_id) or not any(
        word in vocabulary for word in store.tokenizer.decode(held[0].tolist()).split()[1:2]
    )


def test_the_embedded_corpus_held_out_of_itself(
    run: Run, data: Path, documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = PythonDocs(tuple(documents[:9]), {"python": "3"}, (), 0)
    monkeypatch.setattr(corpus_text, "read_python_docs", lambda progress: docs)
    with pytest.raises(UserError, match=r"all 9 documents of python-docs are validation text"):
        run("python-docs", valid="python-docs")
    assert counts(run("python-docs", data, valid="python-docs")[0]) == (71, 9, 18)


def test_the_embedded_corpus_is_left_where_no_file_is(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = PythonDocs(("One docstring.", "Another one."), {"python": "3"}, (), 0)
    monkeypatch.setattr(corpus_text, "read_python_docs", lambda progress: docs)
    assert counts(run("python-docs", data / "valid.txt", valid=data / "valid.txt")[0])[0] == 2


def test_where_nothing_is_left_to_train_on(run: Run, data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"valid.txt: nothing is left to train on \(1 file that --valid names"
    ):
        run(data / "valid.txt", valid=data / "valid.txt")
    with pytest.raises(UserError, match=r"nothing is left to train on \(2 files that --valid names"):
        run(f"{data}/*", valid=data)
    (tmp_path / "copy.txt").write_bytes((data / "valid.txt").read_bytes())
    with pytest.raises(UserError, match=r"all 20 documents of .*copy.txt are validation text"):
        run(tmp_path / "copy.txt", valid=data / "valid.txt")
    assert not (tmp_path / "store").exists()

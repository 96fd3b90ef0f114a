"""Folders of save_to_disk, found and read as `datasets` reads them; and folders behind links."""

import json
from pathlib import Path

import datasets
import pytest

from fmlm_cli.corpus.text.corpora import Corpora
from fmlm_cli.corpus.text.documents import ReadOptions
from fmlm_cli.corpus.text.files.text_files import TextFiles
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.errors import UserError
from fmlm_cli.events import ignore

TEXTS = [f"text {n}" for n in range(40)]


@pytest.fixture(autouse=True)
def no_bars() -> None:
    datasets.disable_progress_bars()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A data set with two splits."""
    table = datasets.Dataset.from_dict({"text": TEXTS, "n": [*range(40)]})
    splits = datasets.DatasetDict({"train": table, "test": table.select([3, 1, 2])})
    splits.save_to_disk(tmp_path / "saved", num_shards={"train": 12, "test": 1})
    return tmp_path / "saved"


def read(source: Path | str, split: str | None = None) -> list[str]:
    found = TextFiles.find([str(source)], ReadOptions(split=split))
    assert [text for part in found.parts for text in part.documents(ReadStats())] == [
        *found.documents(ReadStats())
    ]
    return list(found.documents(ReadStats()))


def message(source: Path | str, split: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        Corpora.find([str(source)], (), ReadOptions(split=split), ignore)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_splits_are_read_in_the_order_of_their_rows(saved: Path) -> None:
    assert read(saved) == read(saved, "train") == read(saved / "train") == TEXTS
    assert read(saved, "test") == datasets.load_from_disk(str(saved))["test"]["text"][:]
    assert TextFiles.find([str(saved)], ReadOptions()).passed_over == ["1 other split (test)"]
    assert "unknown split 'dev': known are train, test; choose one with --split" in message(saved, "dev")
    assert "it was saved without splits, so there is no 'train': drop --split" in message(
        saved / "test", "train"
    )


def test_a_saved_set_is_found_among_other_files(saved: Path) -> None:
    (saved.parent / "b.txt").write_text("beside\n")
    (saved.parent / "z.json").write_text('{"settings": 1}')
    found = TextFiles.find([str(saved.parent)], ReadOptions())
    assert [*found.documents(ReadStats())] == ["beside", *TEXTS]
    assert found.passed_over == ["1 other split (test), 1 .json file that is no array (z.json)"]
    assert read(saved.parent, "test") == ["beside", "text 3", "text 1", "text 2"]


def test_rows_that_are_chosen_but_not_written_are_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "x")
    state = json.loads((tmp_path / "x" / "state.json").read_text())
    (tmp_path / "x" / "state.json").write_text(
        json.dumps({**state, "_indices_data_files": [{"filename": "i.arrow"}]})
    )
    assert "save it again after flatten_indices()" in message(tmp_path / "x")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("train/state.json", "{", "state.json: not as save_to_disk writes it (Expecting property name"),
        ("train/state.json", "[]", "state.json: not as save_to_disk writes it (no object)"),
        ("train/state.json", "{}", "state.json: not as save_to_disk writes it (no list of files)"),
        ("train/state.json", '{"_data_files": [{"filename": "../x.arrow"}]}', "no list of files"),
        ("train/state.json", '{"_data_files": [{"filename": "no.arrow"}]}', "no.arrow is not there, of which its state.json speaks"),
        ("train/state.json", None, "state.json: no such file"),
        ("dataset_dict.json", "{}", "dataset_dict.json: not as save_to_disk writes it (no list of splits)"),
        ("dataset_dict.json", '{"splits": ["test"]}', "unknown split 'train': known are test"),
        ("dataset_dict.json", "[" * 9999, "not as save_to_disk writes it"),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_said(saved: Path, file: str, content: str | None, said: str) -> None:
    (saved / file).unlink() if content is None else (saved / file).write_text(content)
    assert said in message(saved)


def test_a_split_or_revision_that_nothing_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    for source in (tmp_path, tmp_path / "a.txt"):
        assert f"the split 'test' is given, and {source} has none" in message(source, "test")
    with pytest.raises(UserError, match="a revision is given, and no data set of the Hub"):
        Corpora.find([str(tmp_path)], (), ReadOptions(revision="main"), ignore)


# --- links ---


def test_links_to_folders_are_followed_and_nothing_is_read_twice(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder, name in (
        (data, "a.txt"),
        (data / "deep", "b.txt"),
        (elsewhere, "c.txt"),
        (elsewhere / "in", "d.txt"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"{name}\n")
    (data / "link").symlink_to(elsewhere)
    (data / "again").symlink_to(elsewhere / "in")
    (data / "deep" / "up").symlink_to(data)
    (data / "above").symlink_to(tmp_path)
    (data / "root").symlink_to("/")
    (elsewhere / "back").symlink_to(data / "deep")
    (data / "round").symlink_to(data / "round")
    assert sorted(read(data)) == ["a.txt", "b.txt", "c.txt", "d.txt"]
    found = TextFiles.find([str(data)], ReadOptions())
    assert [str(path.relative_to(data)) for path in found.paths] == [
        *("a.txt", "again/d.txt", "deep/b.txt", "link/c.txt")
    ]
    (clause,) = found.passed_over
    assert clause == "1 broken link (round), 4 links to folders that are read anyway (above, up, back, ...)"
    assert sorted(read(f"{data}/*")) == ["a.txt", "b.txt", "c.txt", "d.txt"]

"""Splits, chunks and what a split writer puts on disk."""

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fmlm_cli.corpus.store import writing
from fmlm_cli.corpus.store.reading import token_dtype
from fmlm_cli.corpus.store.split import Split, TokenSpans
from fmlm_cli.corpus.store.writing import SplitWriter
from fmlm_cli.corpus.text.splits import assign_splits, first_of_each, in_validation, validation_of
from fmlm_cli.corpus.tokenizer.literal import Encoded
from fmlm_cli.storage import content_hash

_fractions = st.one_of(st.just(0.0), st.floats(0, 1, exclude_max=True))
# few different texts, so that there are duplicates, or many
_texts = st.lists(st.one_of(st.sampled_from("abcd"), st.text("xyz", max_size=6)), max_size=40)


@dataclass(frozen=True)
class Document:
    """Where in the input it stood, and the hash of its text."""

    place: int
    content: int


def document(text: str, place: int = 0) -> Document:
    return Document(place, content_hash(text))


def split(texts: Sequence[str], fraction: float) -> dict[str, list[int]]:
    """Places in `texts` of the documents of each split."""
    sides: dict[str, list[int]] = {"train": [], "validation": []}
    for side, found in assign_splits((document(text, i) for i, text in enumerate(texts)), fraction):
        sides[side].append(found.place)
    return sides


@given(_texts, _fractions)
@example([], 0.5)
@example(["a"], 1e-9)
@example(["a", "a"], 1e-9)
def test_every_document_goes_to_one_side_and_its_duplicates_with_it(
    texts: list[str], fraction: float
) -> None:
    sides = split(texts, fraction)
    assert sorted(sides["train"] + sides["validation"]) == list(range(len(texts)))
    train, validation = ({texts[place] for place in sides[side]} for side in ("train", "validation"))
    assert not train & validation
    if fraction == 0:
        assert not validation
    elif texts:
        assert validation


@given(_texts, _fractions, st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order(texts: list[str], fraction: float, random: Any) -> None:
    shuffled = random.sample(texts, len(texts))
    for side in ("train", "validation"):
        one, two = ({t[p] for p in split(t, fraction)[side]} for t in (texts, shuffled))
        assert one == two


@given(_texts, st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_a_larger_fraction_takes_what_a_smaller_one_took_and_more(
    texts: list[str], one: float, two: float
) -> None:
    small, large = sorted((one, two))
    assert {texts[p] for p in split(texts, small)["validation"]} <= {
        texts[p] for p in split(texts, large)["validation"]
    }


@pytest.mark.parametrize("fraction", [0.003, 0.1, 0.5, 0.97])
def test_the_fraction_is_kept_on_average(fraction: float) -> None:
    count = 20_000
    share = len(split([f"document {number}" for number in range(count)], fraction)["validation"]) / count
    assert abs(share - fraction) < 5 * (fraction * (1 - fraction) / count) ** 0.5


def test_no_more_than_one_document_is_held_back() -> None:
    taken = 0

    def stream() -> Iterable[Document]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield document(f"text {number}")

    for given_out, _ in enumerate(assign_splits(stream(), 1e-15), start=1):
        assert taken - given_out <= 1


def test_the_hash_is_of_the_text_and_decides_alone() -> None:
    digest = hashlib.blake2b("été".encode(), digest_size=8).hexdigest()
    assert content_hash("été") == int(digest, 16)
    assert in_validation(0, 1e-9)
    assert not in_validation(0, 0)
    assert not in_validation(2**64 - 1, 0.999)


@given(_texts, _fractions)
@example(["a", "b", "a"], 1e-9)
@example([], 0.5)
def test_seen_at_once_the_choice_is_the_same(texts: list[str], fraction: float) -> None:
    contents = np.array([content_hash(text) for text in texts], np.uint64)
    chosen = validation_of(contents, fraction)
    assert np.flatnonzero(chosen).tolist() == split(texts, fraction)["validation"]


@given(st.integers(0, 2**64 - 1), st.floats(0, 1, exclude_min=True, exclude_max=True))
@example(2**63, 0.5)
@example(2**63 - 1, 0.5)
@example(2**64 - 1, 1 - 2**-53)
def test_the_border_is_exact(content: int, fraction: float) -> None:
    for near in {max(content - 1, 0), content, int(fraction * 2**64), max(int(fraction * 2**64) - 1, 0)}:
        chosen = validation_of(np.array([near, 0], np.uint64), fraction)
        assert chosen.tolist() == [in_validation(near, fraction), True]


@given(st.lists(st.integers(0, 6)))
def test_the_first_of_each(contents: list[int]) -> None:
    wanted = [contents.index(content) == place for place, content in enumerate(contents)]
    assert first_of_each(np.array(contents, np.uint64)).tolist() == wanted


# ---------------------------------------------------------------- SplitWriter and Split

Tokens = tuple[list[int], list[bool]]


@st.composite
def _written(draw: st.DrawFn) -> tuple[int, list[Tokens]]:
    """A vocabulary's size and documents of its ids, some of them without any."""
    vocabulary = draw(st.sampled_from([7, 256, 257, 30_522, 65_536, 65_537, 250_002]))
    token = st.tuples(st.one_of(st.integers(0, vocabulary - 1), st.just(vocabulary - 1)), st.booleans())
    documents = draw(st.lists(st.lists(token, max_size=20), max_size=12))
    return vocabulary, [([t for t, _ in one], [w for _, w in one]) for one in documents]


def write(folder: Path, vocabulary: int, documents: list[Tokens], at_once: int = 1) -> dict[str, Any]:
    writer = SplitWriter(folder, token_dtype(vocabulary))
    for begin in range(0, len(documents), at_once):
        some = documents[begin : begin + at_once]
        ids, words = ([one for document in some for one in document[column]] for column in (0, 1))
        lengths = np.array([len(ids) for ids, _ in some])
        writer.add(Encoded(np.array(ids, np.uint32), np.array(words, np.bool_), lengths), 3 * len(some))
    return writer.close()


def read(part: Split, spans: list[tuple[int, int, int]]) -> tuple[list[int], list[bool]]:
    columns: npt.NDArray[np.int64] = np.array(spans, np.int64).reshape(-1, 3).T
    ids, words = part.read(TokenSpans(columns[0], columns[1], columns[2]))
    assert ids.dtype == np.int64
    assert words.dtype == np.bool_
    return ids.tolist(), words.tolist()


@settings(max_examples=60)
@given(_written(), st.sampled_from([1, 9, 50]), st.sampled_from([1, 1500, 1 << 20]), st.data())
def test_any_span_of_any_document_is_read_back(
    written: tuple[int, list[Tokens]], batch: int, file_bytes: int, data: st.DataObject
) -> None:
    vocabulary, documents = written
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_BATCH_TOKENS", batch)
        patch.setattr(writing, "_FILE_BYTES", file_bytes)
        folder = Path(name) / "train"
        entry = write(folder, vocabulary, documents)
        files = [file["name"] for file in entry["files"]]
        part = Split(folder, files, token_dtype(vocabulary))
        assert len(part) == len(documents)
        assert part.lengths.tolist() == [len(ids) for ids, _ in documents]
        found = [(ids.tolist(), words.tolist()) for ids, words in part.documents()]
        assert found == documents
        spans = []
        if documents:
            for _ in range(data.draw(st.integers(0, 8), label="spans")):
                number = data.draw(st.integers(0, len(documents) - 1))
                start = data.draw(st.integers(0, len(documents[number][0])))
                spans.append((number, start, data.draw(st.integers(0, len(documents[number][0]) - start))))
        ids, words = read(part, spans)
        assert ids == [t for n, start, size in spans for t in documents[n][0][start : start + size]]
        assert words == [w for n, start, size in spans for w in documents[n][1][start : start + size]]
        tables = [pa.ipc.open_stream((folder / file).read_bytes()).read_all() for file in files]
        column = pa.concat_tables(tables).column("input_ids")
        assert column.to_pylist() == [one for one, _ in documents]
        assert column.type.value_type.bit_width == {7: 8, 256: 8, 257: 16, 30_522: 16, 65_536: 16}.get(
            vocabulary, 32
        )
    assert entry["documents"] == len(documents)
    assert entry["tokens"] == sum(len(one) for one, _ in documents)
    assert entry["words"] == sum(sum(one) for _, one in documents)
    assert entry["text_bytes"] == 3 * len(documents)
    if file_bytes == 1 and batch == 1:
        assert len(files) >= sum(
            bool(one) for one, _ in documents
        )  # one batch each, and a file to every batch


@pytest.mark.parametrize(
    ("vocabulary", "name"),
    [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65_536, "uint16"), (65_537, "uint32")],
)
def test_ids_take_the_smallest_type_that_holds_them(vocabulary: int, name: str) -> None:
    assert token_dtype(vocabulary).name == name


@pytest.mark.parametrize("vocabulary", [256, 257, 65_537])
def test_the_description_for_datasets_is_its_own(tmp_path: Path, vocabulary: int) -> None:
    from datasets import DatasetInfo, Features

    write(tmp_path / "train", vocabulary, [([1, 2], [True, False])])
    schema = SplitWriter(tmp_path / "train", token_dtype(vocabulary)).schema
    DatasetInfo(features=Features.from_arrow_schema(schema)).write_to_directory(str(tmp_path))
    ours, theirs = (folder / "dataset_info.json" for folder in (tmp_path / "train", tmp_path))
    assert ours.read_bytes() == theirs.read_bytes()


@settings(max_examples=40)
@given(_written(), st.integers(2, 5), st.sampled_from([1, 9, 50]), st.sampled_from([1, 1500, 1 << 20]))
def test_how_documents_are_added_does_not_show(
    written: tuple[int, list[Tokens]], at_once: int, batch: int, file_bytes: int
) -> None:
    vocabulary, documents = written
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_BATCH_TOKENS", batch)
        patch.setattr(writing, "_FILE_BYTES", file_bytes)
        one = write(Path(name) / "one" / "train", vocabulary, documents)
        assert write(Path(name) / "many" / "train", vocabulary, documents, at_once) == one


def test_files_are_closed_when_they_are_large_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_BATCH_TOKENS", 100)
    monkeypatch.setattr(writing, "_FILE_BYTES", 4000)
    documents = [([number % 250] * 60, [True] * 60) for number in range(400)]
    entry = write(tmp_path / "train", 256, documents)
    sizes = [file["bytes"] for file in entry["files"]]
    names = [file["name"] for file in entry["files"]]
    assert len(names) > 3
    assert names == [f"data-{number:05d}-of-{len(names):05d}.arrow" for number in range(len(names))]
    assert all(4000 <= size < 5500 for size in sizes[:-1])
    assert sorted(path.name for path in (tmp_path / "train").glob("*.arrow")) == names

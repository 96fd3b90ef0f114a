"""The token store: what goes in comes out, other programs can read it, and damage is noticed."""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmlm_cli.corpus.store import reading as stores
from fmlm_cli.corpus.store import writing
from fmlm_cli.corpus.store.reading import SPLITS, TokenStore
from fmlm_cli.corpus.store.writing import StoreWriter
from fmlm_cli.corpus.tokenizer.literal import Encoded
from fmlm_cli.corpus.tokenizer.loading import fingerprint, load_tokenizer, special_tokens
from fmlm_cli.errors import UserError
from fmlm_cli.hub import quiet
from fmlm_cli.storage import caches

MakeStore = Callable[..., Path]

# a function-scoped fixture here only gives a folder, which every example leaves as it found it
_shares_folder = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoded(tokenizer: Any, text: str) -> tuple[list[int], list[bool]]:
    """Ids and word starts by way of transformers."""
    with quiet():  # it warns of texts longer than a model
        found = tokenizer(text, add_special_tokens=False)
    words = found.word_ids()
    return found["input_ids"], [place == 0 or word != words[place - 1] for place, word in enumerate(words)]


@pytest.fixture(params=["wordpiece", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_tokenizer")


@pytest.fixture(params=["one file", "many files"])
def made(
    request: pytest.FixtureRequest,
    tokenizer: Any,
    documents: list[str],
    make_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> TokenStore:
    """A store of 60 documents, in one Arrow file a split or in several of several record batches."""
    if request.param == "many files":
        monkeypatch.setattr(writing, "_BATCH_TOKENS", 60)
        monkeypatch.setattr(writing, "_FILE_BYTES", 2500)
    folder = make_store(tmp_path / "store", documents[20:60], documents[:20], tokenizer)
    opened = TokenStore.open(folder)
    files = [len(opened.manifest["splits"][split]["files"]) for split in SPLITS]
    first = (folder / "train" / f"data-00000-of-{files[0]:05d}.arrow").read_bytes()
    batches = len(list(pa.ipc.open_stream(first)))
    assert (min(files) > 1, batches > 3) == ((request.param == "many files"),) * 2
    return opened


def texts_of(documents: list[str], split: str) -> list[str]:
    return documents[20:60] if split == "train" else documents[:20]


@pytest.mark.parametrize("split", SPLITS)
def test_what_was_written_is_read_back(
    made: TokenStore, tokenizer: Any, documents: list[str], split: str
) -> None:
    wanted = [encoded(tokenizer, text) for text in texts_of(documents, split)]
    found = [(ids.tolist(), words.tolist()) for ids, words in made.split(split).documents()]
    assert found == wanted
    entry = made.manifest["splits"][split]
    assert entry["documents"] == len(wanted)
    assert entry["tokens"] == sum(len(ids) for ids, _ in wanted)
    assert entry["words"] == sum(sum(words) for _, words in wanted)
    assert entry["text_bytes"] == sum(len(text.encode()) for text in texts_of(documents, split))
    assert made.has(split)


def test_other_programs_read_it_too(made: TokenStore, tokenizer: Any, documents: list[str]) -> None:
    import datasets

    loaded = datasets.load_from_disk(str(made.root))
    assert set(loaded) == set(SPLITS)
    for split in SPLITS:
        wanted = [encoded(tokenizer, text) for text in texts_of(documents, split)]
        assert [row["input_ids"] for row in loaded[split]] == [ids for ids, _ in wanted]
        assert [row["word_starts"] for row in loaded[split]] == [words for _, words in wanted]
        files = sorted((made.root / split).glob("*.arrow"))
        table = pa.concat_tables([pa.ipc.open_stream(file.read_bytes()).read_all() for file in files])
        assert table.to_pylist() == [{"input_ids": i, "word_starts": w} for i, w in wanted]
        assert table.schema.field("input_ids").type.value_type == pa.from_numpy_dtype(
            np.dtype(made.manifest["dtype"])
        )
    assert made.manifest["dtype"] == ("uint8" if len(tokenizer) <= 256 else "uint16")


def test_tokens_of_the_training_split_are_counted(
    made: TokenStore, tokenizer: Any, documents: list[str]
) -> None:
    counts = Counter(t for text in texts_of(documents, "train") for t in encoded(tokenizer, text)[0])
    assert made.vocabulary == len(tokenizer)
    assert made.token_counts.dtype == np.uint64
    assert made.token_counts.tolist() == [counts[number] for number in range(len(tokenizer))]


def test_the_tokenizer_inside_is_the_one_that_made_it(made: TokenStore, tokenizer: Any) -> None:
    assert fingerprint(made.tokenizer) == fingerprint(tokenizer)
    assert special_tokens(made.tokenizer) == special_tokens(tokenizer)
    assert made.name == "store"


def test_a_split_without_documents_is_one(
    make_store: MakeStore, documents: list[str], tmp_path: Path
) -> None:
    import datasets

    opened = TokenStore.open(make_store(tmp_path / "store", documents[:3]))
    assert opened.has("train")
    assert not opened.has("validation")
    assert len(opened.split("validation")) == 0
    assert list(opened.split("validation").documents()) == []
    assert len(datasets.load_from_disk(str(opened.root))["validation"]) == 0


# ---------------------------------------------------------------- fingerprints

_ids = st.lists(st.integers(0, 159), min_size=1, max_size=12)
_content = st.tuples(st.lists(_ids, min_size=1, max_size=4), st.lists(_ids, max_size=3))


def write_tokens(
    folder: Path, tokenizer: Any, splits: Sequence[Sequence[Sequence[int]]], first: bool = True
) -> TokenStore:
    folder.mkdir()
    writer = StoreWriter(folder, tokenizer)
    for split, documents in zip(SPLITS, splits, strict=True):
        for ids in documents:
            words = np.ones(len(ids), np.bool_)
            words[0] = first
            writer.add(split, Encoded(np.array(ids, np.uint32), words, np.array([len(ids)])), 1)
    writer.finish({}, {})
    return TokenStore.open(folder)


def replaced(content: Any, split: int, document: int, place: int, token: int) -> Any:
    changed = json.loads(json.dumps(content))
    changed[split][document][place] = token
    return changed


@_shares_folder
@given(content=_content, data=st.data())
def test_the_fingerprint_names_the_contents(
    wordpiece_tokenizer: Any, tmp_path: Path, content: Any, data: st.DataObject
) -> None:
    split = data.draw(st.sampled_from([number for number in (0, 1) if content[number]]))
    document = data.draw(st.integers(0, len(content[split]) - 1))
    place = data.draw(st.integers(0, len(content[split][document]) - 1))
    token = data.draw(st.integers(0, 159).filter(lambda t: t != content[split][document][place]))
    other = replaced(content, split, document, place, token)
    joined = [[[token for ids in content[0] for token in ids]], content[1]]
    try:
        one = write_tokens(tmp_path / "one", wordpiece_tokenizer, content)
        same = write_tokens(tmp_path / "two", wordpiece_tokenizer, content)
        changed = write_tokens(tmp_path / "three", wordpiece_tokenizer, other)
        cut = write_tokens(tmp_path / "four", wordpiece_tokenizer, joined)
        words = write_tokens(tmp_path / "five", wordpiece_tokenizer, content, first=False)
        assert one.fingerprint == same.fingerprint
        assert one.manifest == same.manifest
        assert one.identity("train") == same.identity("train") != one.identity("validation")
        assert changed.fingerprint != one.fingerprint
        # A split's rows are named by its own tokens: changing the other split leaves them, and their masks,
        # alone.
        for number, name in enumerate(("train", "validation")):
            assert (changed.identity(name) == one.identity(name)) == (number != split)
        assert (cut.fingerprint == one.fingerprint) == (len(content[0]) == 1)
        assert words.fingerprint != one.fingerprint
    finally:
        for name in ("one", "two", "three", "four", "five"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)


def test_another_tokenizer_is_another_fingerprint(
    wordpiece_tokenizer: Any, bpe_tokenizer: Any, tmp_path: Path
) -> None:
    content = [[[5, 6, 7]], [[8]]]
    one = write_tokens(tmp_path / "one", wordpiece_tokenizer, content)
    two = write_tokens(tmp_path / "two", bpe_tokenizer, content)
    assert one.fingerprint != two.fingerprint


# ---------------------------------------------------------------- damage


def hashed_files(root: Path) -> list[Path]:
    """The files that hold the tokens and their counts."""
    return [
        root / stores.TOKEN_COUNTS,
        *(f for split in SPLITS for f in sorted((root / split).glob("*.arrow"))),
    ]


def says_so(message: str, *names: Path) -> None:
    """An error is one line that names one of these."""
    assert "\n" not in message
    assert any(str(name) in message for name in names), message


def damaged(content: bytes, how: str, data: st.DataObject) -> bytes:
    place = data.draw(st.integers(0, len(content) - 1), label="place")
    if how == "cut short":
        return content[:place]
    flip = data.draw(st.integers(1, 255), label="flip")
    return content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :]


def spoil(path: Path, content: bytes, attempt: Callable[[], None]) -> None:
    """Run `attempt` while the file has other contents."""
    whole = path.read_bytes()
    try:
        path.write_bytes(content)
        attempt()
    finally:
        path.write_bytes(whole)


@pytest.fixture(scope="module")
def victim(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny store that tests may damage, and mend."""
    folder = tmp_path_factory.mktemp("victim") / "store"
    shutil.copytree(tiny_store, folder)
    return folder


@settings(max_examples=80)
@given(data=st.data(), how=st.sampled_from(["cut short", "one byte changed"]))
def test_damaged_tokens_are_noticed(victim: Path, data: st.DataObject, how: str) -> None:
    path = data.draw(st.sampled_from(hashed_files(victim)))

    def attempt() -> None:
        with pytest.raises(UserError) as caught:
            TokenStore.open(victim)
        says_so(str(caught.value), path)
        if how == "cut short":
            with pytest.raises(UserError) as caught:
                TokenStore.open(victim, verify=False)
            says_so(str(caught.value), path)

    spoil(path, damaged(path.read_bytes(), how, data), attempt)


@settings(max_examples=150)
@given(data=st.data(), how=st.sampled_from(["cut short", "one byte changed"]))
def test_a_damaged_manifest_is_noticed(victim: Path, data: st.DataObject, how: str) -> None:
    path = victim / "manifest.json"
    whole = TokenStore.open(victim).manifest

    def attempt() -> None:
        try:
            opened = TokenStore.open(victim)
        except UserError as error:
            says_so(str(error), path, victim)
        else:
            assert opened.manifest == whole  # a blank became another blank

    spoil(path, damaged(path.read_bytes(), how, data), attempt)


@settings(max_examples=100)
@given(data=st.data(), how=st.sampled_from(["cut short", "one byte changed"]))
def test_a_damaged_tokenizer_is_noticed_or_does_not_matter(
    victim: Path, data: st.DataObject, how: str
) -> None:
    path = data.draw(st.sampled_from(sorted((victim / "tokenizer").iterdir())))
    whole = load_tokenizer(str(victim / "tokenizer"))

    def attempt() -> None:
        opened = TokenStore.open(victim)  # the tokens are whole
        try:
            found = opened.tokenizer
        except UserError as error:
            says_so(str(error), victim / "tokenizer")
        else:
            assert fingerprint(found) == opened.manifest["tokenizer"]["fingerprint"]
            assert special_tokens(found) == special_tokens(whole)
            assert encoded(found, "The unhappy traveller.") == encoded(whole, "The unhappy traveller.")

    spoil(path, damaged(path.read_bytes(), how, data), attempt)


@pytest.mark.parametrize("verify", [True, False])
def test_missing_files_are_noticed(victim: Path, verify: bool) -> None:
    for path in [*hashed_files(victim), victim / "manifest.json"]:
        hidden = path.rename(path.with_name("hidden"))
        with pytest.raises(UserError) as caught:
            TokenStore.open(victim, verify=verify)
        says_so(str(caught.value), path, victim)
        assert path.name in str(caught.value)
        hidden.rename(path)
    TokenStore.open(victim)


def test_a_missing_tokenizer_is_noticed(victim: Path) -> None:
    for path in (victim / "tokenizer", victim / "tokenizer" / "tokenizer.json"):
        hidden = path.rename(victim / "hidden")
        with pytest.raises(UserError) as caught:
            _ = TokenStore.open(victim).tokenizer
        says_so(str(caught.value), victim / "tokenizer")
        hidden.rename(path)


def test_the_tokenizer_of_another_store_is_refused(
    victim: Path, tiny_bpe_store: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(victim, mixed)
    shutil.rmtree(mixed / "tokenizer")
    shutil.copytree(tiny_bpe_store / "tokenizer", mixed / "tokenizer")
    with pytest.raises(UserError, match="not the tokenizer that made this store"):
        _ = TokenStore.open(mixed).tokenizer


def test_the_manifest_names_the_hashes_of_the_files(victim: Path) -> None:
    manifest = json.loads((victim / "manifest.json").read_text())
    for path, entry in [
        (victim / stores.TOKEN_COUNTS, manifest["token_counts"]),
        *((victim / s / f["name"], f) for s in SPLITS for f in manifest["splits"][s]["files"]),
    ]:
        content = path.read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_large_store_is_hashed_once_and_again_when_it_is_written_to(
    victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "_WORTH_REMEMBERING", 0)
    settled = 0.03  # seconds: more than a tick of the system's clock
    monkeypatch.setattr(caches, "_SETTLED", settled * 1e9)
    read: list[Path] = []

    def hashed(paths: Sequence[Path]) -> list[str]:
        read.extend(paths)
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]

    monkeypatch.setattr(caches, "sha256_of_files", hashed)

    def open_later() -> TokenStore:
        time.sleep(2 * settled)
        return TokenStore.open(victim)

    files, opened = hashed_files(victim), open_later()
    assert sorted(read) == sorted(files)
    read.clear()
    assert all(TokenStore.open(victim).is_known_whole(split) for split in SPLITS)
    assert read == []
    opened.verify(SPLITS, afresh=True)
    assert sorted(read) == sorted(files)
    for path in files:
        content = path.read_bytes()

        def attempt(path: Path = path) -> None:
            assert not all(opened.is_known_whole(split) for split in SPLITS)
            with pytest.raises(UserError, match="have changed since it was written"):
                TokenStore.open(victim)

        spoil(path, content[:-1] + bytes([content[-1] ^ 1]), attempt)
        open_later()
    shutil.rmtree(victim / "cache")


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text("[1, 2]")
    for name, reason in {
        "missing": "does not exist",
        "folder": "not a token store",
        "file": "not a token store",
        "other": "not the manifest",
    }.items():
        with pytest.raises(UserError, match=reason) as caught:
            TokenStore.open(tmp_path / name)
        says_so(str(caught.value), tmp_path / name)


def test_a_newer_format_is_refused(victim: Path) -> None:
    path = victim / "manifest.json"
    newer = path.read_bytes().replace(f'"format": {stores.FORMAT}'.encode(), b'"format": 99')

    def attempt() -> None:
        with pytest.raises(UserError, match=f"store format 99, this fmlm reads {stores.FORMAT}"):
            TokenStore.open(victim)

    spoil(path, newer, attempt)

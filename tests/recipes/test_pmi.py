"""Collocations in a store, from `tokenize` to the masks; and a store that does not know its words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from fmlm_cli import storage
from fmlm_cli.config import MaskingSettings, MasksSettings, TokenizeSettings, build, nested
from fmlm_cli.corpus.store.collocations import read_collocations
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.errors import UserError
from fmlm_cli.events import Event, Facts, Note, ignore
from fmlm_cli.masking import Strategy, plugins, register_strategy
from fmlm_cli.recipes import pretraining
from fmlm_cli.recipes.masks import show_masks
from fmlm_cli.recipes.shared.strategy import needs_collocations, resolve_strategy
from fmlm_cli.recipes.tokenize import make_store
from tests.recipes.runs import Settings, assert_same

Tokenize = Callable[..., TokenStore]


@pytest.fixture
def corpus(tmp_path: Path, documents: list[str]) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(documents))
    return path


@pytest.fixture
def tokenize(corpus: Path, tmp_path: Path, wordpiece_folder: Path) -> Tokenize:
    """`tokenize(**settings)`: the corpus into `tmp_path / store`, or without text what --pmi does to that
    store.
    """

    def go(
        *, text: bool = True, out: str = "store", emit: Any = ignore, resume: bool = False, **given: Any
    ) -> TokenStore:
        whole = (
            {"sources": (str(corpus),), "documents": "line", "tokenizer": str(wordpiece_folder)}
            if text
            else {}
        )
        path = make_store(
            build(TokenizeSettings, {"out": str(tmp_path / out), **whole, **given}), emit=emit, resume=resume
        )
        return TokenStore.open(path)

    return go


def hashes(store: TokenStore) -> list[int]:
    path = store.verified_collocations()
    assert path is not None
    return read_collocations(path).tolist()


def test_a_store_with_its_collocations(tokenize: Tokenize) -> None:
    said: list[Event] = []
    store, plain = tokenize(pmi=True, emit=said.append), tokenize(out="plain")
    assert plain.verified_collocations() is None
    assert store.fingerprint == plain.fingerprint  # they change no token
    assert len(hashes(store)) > 20
    assert any(isinstance(event, Facts) and "collocations" in event.title for event in said)
    from datasets import load_from_disk

    assert len(load_from_disk(str(store.root))["train"]) == store.manifest["splits"]["train"]["documents"]


def test_they_can_come_later(tokenize: Tokenize) -> None:
    at_once, later = tokenize(out="at once", pmi=True), tokenize()
    for words in ({"text": False}, {"resume": True}):
        later = tokenize(pmi=True, **words)
        assert hashes(later) == hashes(at_once)
    before = {path: path.stat().st_mtime_ns for path in later.root.rglob("*")}
    said: list[Event] = []
    tokenize(text=False, pmi=True, emit=said.append)
    assert {path: path.stat().st_mtime_ns for path in later.root.rglob("*")} == before
    assert [type(event) for event in said] == [Note]


def test_another_number_replaces_them(tokenize: Tokenize) -> None:
    many = hashes(tokenize(pmi=True))
    few = tokenize(text=False, pmi=True, pmi_size=9)
    assert len(hashes(few)) == 9
    assert set(hashes(few)) <= set(many)
    assert [path.name for path in few.root.glob("*collocations*")] == [few.manifest["collocations"]["name"]]


def test_a_failure_half_way_leaves_the_old_ones(tokenize: Tokenize, monkeypatch: pytest.MonkeyPatch) -> None:
    old = hashes(tokenize(pmi=True))
    with monkeypatch.context() as patch:
        patch.setattr(
            storage, "write_sealed", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(UserError, match="no space left"):
            tokenize(text=False, pmi=True, pmi_size=9)
    store = TokenStore.open(next(iter([tokenize(text=False, pmi=True).root])))
    assert hashes(store) == old


def test_a_text_without_any(tokenize: Tokenize, corpus: Path, tmp_path: Path) -> None:
    corpus.write_text("the water and the river are long\na mountain is not a river\n")
    with pytest.raises(UserError, match=r"no collocations in .*too short for --pmi"):
        tokenize(pmi=True)
    store = tokenize(resume=True)  # which is complete all the same
    with pytest.raises(UserError, match="too short for --pmi"):
        tokenize(text=False, pmi=True)
    assert TokenStore.open(store.root).verified_collocations() is None


@pytest.mark.usefixtures("quick")
def test_a_damaged_file_is_found(tokenize: Tokenize, settings: Settings) -> None:
    store = tokenize(pmi=True)
    path = store.verified_collocations()
    assert path is not None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    given = {"data.stores": [str(store.root)], "budget.steps": 1}
    for _ in range(2):
        with pytest.raises(UserError, match=f"{path.name} is missing or damaged.*--overwrite"):
            pretraining.pretrain(settings("pmi", **given, **{"masking.strategy": "pmi"}))
        path.unlink(missing_ok=True)
    assert pretraining.pretrain(settings("random", **given)).run.is_finished  # nothing else depends on them
    make_store(build(TokenizeSettings, {"out": str(store.root), "pmi": True}), overwrite=True)
    assert len(hashes(TokenStore.open(store.root))) > 20


def test_collocations_are_masked_as_units(tokenize: Tokenize) -> None:
    store = tokenize(pmi=True)
    chosen = {"store": str(store.root), "rows": 5, "masking.strategy": "fully-explored-pmi"}
    found = show_masks(build(MasksSettings, nested(chosen)))
    known = {
        row["text"] for row in pa.ipc.open_file(str(store.verified_collocations())).read_all().to_pylist()
    }
    units = []
    for row in found.rows:
        for text, masks, joined in zip(row.texts, row.masks, row.joined, strict=True):
            if masks and joined:
                units[-1] += text
            elif masks:
                units.append(text)
    decoded = {text.replace(" ", "") for text in known}  # the decoder puts no blank before a full stop
    assert sum(unit.replace(" ", "") in decoded for unit in units) > 20


@pytest.mark.usefixtures("quick")
def test_a_run_with_them(tokenize: Tokenize, settings: Settings) -> None:
    """It goes on as if never stopped; with other collocations it would be another run, and is refused."""
    store = tokenize(pmi=True)
    chosen = {"data.stores": [str(store.root)], "masking.strategy": "fully-explored-pmi", "budget.steps": 6}
    whole = pretraining.pretrain(settings("whole", **chosen))
    assert_same(pretraining.pretrain(settings("again", **chosen)), whole)

    def stop(event: Event) -> None:
        if getattr(event, "record", {}).get("step") == 4:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        pretraining.pretrain(settings("parts", **chosen), emit=stop)
    tokenize(text=False, pmi=True, pmi_size=9)
    with pytest.raises(UserError, match="belongs to another run"):
        pretraining.pretrain(settings("parts", **chosen), resume=True)
    tokenize(text=False, pmi=True)
    assert_same(pretraining.pretrain(settings("parts", **chosen), resume=True), whole)


def test_a_plug_in_gets_them_if_it_says_so(tokenize: Tokenize, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "registered", {})
    store = tokenize(pmi=True)

    class Modest(Strategy):
        pass

    class Needy(Strategy):
        needs = frozenset({"collocations"})  # type: ignore[assignment]

    for name, needy in (("modest", False), ("needy", True)):
        register_strategy(name)(Needy if needy else Modest)
        assert needs_collocations(name) == needy
        settings = resolve_strategy(MaskingSettings(strategy=name), store).settings
        assert (settings.collocations is not None) == needy
        if needy:
            assert settings.required_collocations.hashes.tolist() == sorted(hashes(store))


@pytest.mark.parametrize("packing", ["documents", "concat"])
def test_units_of_several_words_where_nothing_stands_between_documents(
    documents: list[str], make_store: Any, wordpiece_tokenizer: Any, tmp_path: Path, packing: str
) -> None:
    backend = Tokenizer.from_str(wordpiece_tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    bare = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]"
    )
    store = make_store(tmp_path / "bare", documents[:40], tokenizer=bare)

    def show(name: str, packing: str) -> Any:
        return show_masks(
            build(MasksSettings, nested({"store": str(store), "masking.strategy": name, "packing": packing}))
        )

    with pytest.raises(UserError, match=r"from one document into the next: set data\.packing to none"):
        show("fully-explored-span", packing)
    assert show("fully-explored-word", packing).coverage.covered[-1] == 1
    assert show("fully-explored-span", "none").coverage.covered[-1] == 1


def without_word_starts(store: Path) -> None:
    """The same store as other hands might make it: no column `word_starts`."""
    manifest = storage.read_sealed(store / "manifest.json")
    for split, entry in manifest["splits"].items():
        for file in entry["files"]:
            path = store / split / file["name"]
            table = pa.ipc.open_stream(path.read_bytes()).read_all().select(["input_ids"])
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            file |= {"bytes": path.stat().st_size, "sha256": storage.sha256_of_file(path)}
    storage.write_sealed(store / "manifest.json", manifest)


@pytest.mark.usefixtures("quick")
def test_a_store_without_word_starts(tokenize: Tokenize, settings: Settings, tmp_path: Path) -> None:
    """Tokens can be masked all the same, with the same result; words cannot, and this is said before anything
    is written.
    """
    store, stripped = tokenize(), tokenize(out="stripped")
    without_word_starts(stripped.root)
    for split in ("train", "validation"):
        whole, part = store.split(split), TokenStore.open(stripped.root).split(split)
        assert (whole.has_word_starts, part.has_word_starts) == (True, False)
        assert all(
            np.array_equal(a[0], b[0]) for a, b in zip(whole.documents(), part.documents(), strict=True)
        )
    given = {"data.stores": [str(stripped.root)], "budget.steps": 2}
    assert pretraining.pretrain(settings("random", **given, **{"masking.strategy": "random"})).run.is_finished
    for name in ("whole-word", "fully-explored-span"):
        with pytest.raises(UserError, match=r"word starts.*tokenize the text"):
            pretraining.pretrain(settings("words", **given, **{"masking.strategy": name}))
    assert not (tmp_path / "words").exists()
    with pytest.raises(UserError, match="does not say where words begin"):
        tokenize(text=False, out="stripped", pmi=True)

"""`recipes.tokenize` end to end: from files to a store, again, and when something goes wrong half-way."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli import storage
from fmlm_cli.config import TokenizeSettings
from fmlm_cli.corpus.store.reading import STORE, STORE_OF_RUN, TokenStore
from fmlm_cli.corpus.text import corpus as corpus_text
from fmlm_cli.corpus.text.python_docs import PythonDocs
from fmlm_cli.corpus.tokenizer.learning import train_tokenizer
from fmlm_cli.corpus.tokenizer.loading import extends, fingerprint, load_tokenizer, save_tokenizer
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event, Facts, Note, Progress, ignore
from fmlm_cli.recipes.tokenize import make_store


@pytest.fixture
def corpus(documents: list[str], tmp_path: Path) -> Path:
    """A folder with the first 100 documents: 25 in each kind of file, a line each."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = "\n".join(documents[:25]) + "\n"
    (folder / "a.txt").write_text(lines)
    (folder / "b.txt.gz").write_bytes(gzip.compress("\n".join(documents[25:50]).encode()))
    jsonl = [json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(documents[50:100])]
    (folder / "c.jsonl").write_text("".join(jsonl[:25]))
    (folder / "d.jsonl.gz").write_bytes(gzip.compress("".join(jsonl[25:]).encode()))
    return folder


Run = Callable[..., TokenStore]


@pytest.fixture
def run(tmp_path: Path, wordpiece_folder: Path) -> Run:
    """Tokenize into `tmp_path / out`, with the WordPiece tokenizer if nothing else is said."""

    def go(*sources: Any, out: str = "store", emit: Any = ignore, **options: Any) -> TokenStore:
        calls = {name: options.pop(name) for name in ("overwrite", "resume", "renew") if name in options}
        if "train_tokenizer" not in options:
            options.setdefault("tokenizer", str(wordpiece_folder))
        asked = TokenizeSettings(sources=tuple(map(str, sources)), out=str(tmp_path / out), **options)
        path = make_store(asked, emit=emit, **calls)
        assert path == tmp_path / out
        return TokenStore.open(path)

    return go


def tokens(store: TokenStore, split: str) -> list[list[int]]:
    return [ids.tolist() for ids, _ in store.split(split).documents()]


def contents(folder: Path) -> dict[str, str]:
    """Every file under a folder and the hash of what is in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def share_of(text: str) -> float:
    return int(blake2b(text.encode(), digest_size=8).hexdigest(), 16) / 2**64


def test_every_document_of_every_kind_of_file_is_in_one_split(
    run: Run, corpus: Path, documents: list[str], wordpiece_tokenizer: Any
) -> None:
    store = run(corpus, valid_fraction=0.2)
    sides: dict[bool, list[list[int]]] = {True: [], False: []}
    for text in documents[:100]:
        ids = wordpiece_tokenizer(text, add_special_tokens=False)["input_ids"]
        sides[share_of(text) < 0.2].append(ids)
    assert sorted(tokens(store, "validation")) == sorted(sides[True])
    assert sorted(tokens(store, "train")) == sorted(sides[False])
    manifest = store.manifest
    assert set(manifest["facts"].values()) == {0}
    assert fingerprint(store.tokenizer) == fingerprint(wordpiece_tokenizer)
    size = sum(split["text_bytes"] for split in manifest["splits"].values())
    assert size == sum(len(text.encode()) for text in documents[:100])


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_a_learnt_tokenizer_is_kept_and_used(run: Run, corpus: Path, documents: list[str], kind: str) -> None:
    events: list[Event] = []
    store = run(corpus, train_tokenizer=kind, vocab_size=320, lowercase=True, emit=events.append)
    tokenizer = load_tokenizer(str(store.root / "tokenizer"))
    assert 60 < len(tokenizer) <= 320
    assert tokenizer("THE", add_special_tokens=False) == tokenizer("the", add_special_tokens=False)
    wanted = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in documents[:100]]
    assert sorted(tokens(store, "train") + tokens(store, "validation")) == sorted(wanted)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any(f"learnt a {kind} tokenizer of {len(tokenizer):,} tokens" in note for note in notes)


def test_a_learnt_tokenizer_has_not_seen_the_validation_split(run: Run, tmp_path: Path) -> None:
    texts = [f"text {word} again" for word in ("apple", "pear", "plum", "grape", "melon")] * 3
    held = min(("zyzzyva " * size for size in range(4, 60)), key=lambda text: share_of(text.strip())).strip()
    (tmp_path / "a.txt").write_text("\n".join([*texts, held]))
    assert share_of(held) < min(map(share_of, texts))
    fraction = share_of(held) + 1e-9
    store = run(tmp_path / "a.txt", train_tokenizer="wordpiece", vocab_size=200, valid_fraction=fraction)
    assert "zyzzyva" not in store.tokenizer.get_vocab()
    (tmp_path / "v.txt").write_text(held)
    (tmp_path / "t.txt").write_text("\n".join(texts))
    store = run(
        tmp_path / "t.txt",
        valid=(str(tmp_path / "v.txt"),),
        train_tokenizer="wordpiece",
        out="two",
        vocab_size=200,
    )
    assert "zyzzyva" not in store.tokenizer.get_vocab()
    assert "apple" in store.tokenizer.get_vocab()


def test_validation_text_of_its_own(run: Run, corpus: Path, documents: list[str], tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text("\n".join(documents[100:110]))
    (tmp_path / "more.jsonl").write_text(json.dumps({"text": documents[110]}))
    store = run(corpus, valid=(str(tmp_path / "held.txt"), str(tmp_path / "more.jsonl")), valid_fraction=0.5)
    assert len(store.split("train")) == 100  # the fraction is for where there is no such text
    assert len(store.split("validation")) == 11


def test_no_validation_split_if_none_is_wanted(run: Run, corpus: Path) -> None:
    store = run(corpus, valid_fraction=0)
    assert not store.has("validation")
    assert len(store.split("train")) == 100


@pytest.mark.parametrize(
    ("mode", "count", "said"),
    [
        ("auto", 2, "text between blank lines, in 1 text file (found by looking"),
        ("blank-line", 2, "text between blank lines, in 1 text file"),
        ("line", 4, "a line, in 1 text file"),
        ("file", 1, "a file, in 1 text file"),
    ],
)
def test_what_a_document_is(run: Run, tmp_path: Path, mode: str, count: int, said: str) -> None:
    (tmp_path / "a.txt").write_text("the cat\nthe dog\n\nof time\nto see\n")
    events: list[Event] = []
    store = run(tmp_path / "a.txt", documents=mode, valid_fraction=0, emit=events.append)
    assert len(store.split("train")) == count
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any(f"a document is {said}" in note for note in notes)
    assert any("--documents" in note for note in notes) == (mode == "auto")


def test_bad_and_empty_documents_are_counted(run: Run, tmp_path: Path) -> None:
    lines = [b'{"text": "the cat"}', b'{"text": " "}', b'{"text": "of \xff"}', b'{"text": "\xe2\x80\x8b"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    skipped = run(tmp_path / "a.jsonl", on_bad_text="skip", valid_fraction=0)
    # the last is a zero-width space, of which the tokenizer leaves nothing
    facts = skipped.manifest["facts"]
    assert (facts["empty_documents"], facts["bad_text_documents"]) == (2, 1)
    assert len(skipped.split("train")) == 1
    replaced = run(tmp_path / "a.jsonl", on_bad_text="replace", valid_fraction=0, out="two")
    assert len(replaced.split("train")) == 2
    assert all(replaced.split("train").lengths > 0)


def test_the_embedded_corpus_comes_first(
    run: Run, tmp_path: Path, documents: list[str], monkeypatch: pytest.MonkeyPatch, wordpiece_tokenizer: Any
) -> None:
    embedded = PythonDocs(tuple(documents[:5]), {"python": "3", "small": "1"}, (), 0)

    def read(progress: Callable[[int, int], None] | None = None) -> PythonDocs:
        assert progress is not None
        progress(1, 2)
        return embedded

    monkeypatch.setattr(corpus_text, "read_python_docs", read)
    (tmp_path / "a.txt").write_text(documents[7] + "\n" + documents[8] + "\n")
    events: list[Event] = []
    store = run(tmp_path / "a.txt", "python-docs", valid_fraction=0, emit=events.append)
    wanted = [*documents[:5], *documents[7:9]]
    assert tokens(store, "train") == [
        wordpiece_tokenizer(text, add_special_tokens=False)["input_ids"] for text in wanted
    ]
    assert store.manifest["request"]["sources"][0]["packages"] == {"python": "3", "small": "1"}
    assert Progress("reading docstrings", 1, 2, "files") in events
    run("python-docs", train_tokenizer="wordpiece", vocab_size=100, out="two")
    run("python-docs", train_tokenizer="wordpiece", vocab_size=100, out="two", resume=True)
    embedded = PythonDocs(tuple(documents[:6]), {"python": "3", "small": "1"}, (), 0)
    with pytest.raises(UserError, match="other sources"):
        run("python-docs", train_tokenizer="wordpiece", vocab_size=100, out="two", resume=True)


@pytest.mark.parametrize("options", [{}, {"train_tokenizer": "wordpiece"}, {"train_tokenizer": "bpe"}])
def test_the_same_text_gives_the_same_bytes(run: Run, corpus: Path, options: Any) -> None:
    one, two = (run(corpus, out=out, **options, **({"vocab_size": 300} if options else {})) for out in "ab")
    assert contents(one.root) == contents(two.root)
    assert len(contents(one.root)) >= 9


def test_progress_and_summary_are_told(run: Run, corpus: Path) -> None:
    events: list[Event] = []
    store = run(corpus, emit=events.append)
    last = [event for event in events if isinstance(event, Progress) and event.task == "tokenizing"][-1]
    assert last.done == last.total == sum(path.stat().st_size for path in corpus.iterdir())
    (table,) = [event for event in events if isinstance(event, Facts)]
    train = store.manifest["splits"]["train"]
    assert f"{train['documents']:,} documents" in table.rows["train"]
    assert f"{train['tokens']:,} tokens" in table.rows["train"]
    assert table.rows["fingerprint"] == store.fingerprint[:16]


# ---------------------------------------------------------------- again


def test_resuming_a_finished_store_does_nothing(
    run: Run, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run(corpus).root)
    events: list[Event] = []
    # Nor is anything made beside it, which may be a disk that can only be read.
    monkeypatch.setattr("fmlm_cli.storage.unfinished_folder", None)
    store = run(corpus, resume=True, emit=events.append)
    assert contents(store.root) == before
    assert any(isinstance(event, Note) and "nothing to do" in event.text for event in events)


def test_resuming_where_there_is_nothing_starts(run: Run, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert len(run(corpus, resume=True, valid_fraction=0).split("train")) == 100


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"valid_fraction": 0.3}, "valid_fraction"),
        ({"documents": "file"}, "documents"),
        ({"text_field": "id"}, "text_field"),
        ({"train_tokenizer": "bpe", "vocab_size": 300}, "train_tokenizer"),
    ],
)
def test_resuming_something_else_is_refused(run: Run, corpus: Path, changes: Any, named: str) -> None:
    before = contents(run(corpus).root)
    with pytest.raises(UserError, match=named):
        run(corpus, resume=True, **changes)
    assert contents(TokenStore.open(corpus.parent / "store").root) == before


def test_resuming_with_other_text_is_refused(run: Run, corpus: Path) -> None:
    run(corpus)
    text = (corpus / "a.txt").read_text()
    (corpus / "a.txt").write_text(text.replace("e", "a", 1))
    with pytest.raises(UserError, match="sources"):
        run(corpus, resume=True)
    (corpus / "a.txt").write_text(text)
    run(corpus, resume=True)
    (corpus / "e.txt").write_text("one more")
    with pytest.raises(UserError, match="sources"):
        run(corpus, resume=True)


def test_resuming_a_damaged_store_does_not_call_it_complete(
    run: Run, corpus: Path, wordpiece_folder: Path
) -> None:
    store = run(corpus)
    file = next((store.root / "train").glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:-100])
    asked = TokenizeSettings(sources=(str(corpus),), out=str(store.root), tokenizer=str(wordpiece_folder))
    with pytest.raises(UserError, match="damaged store"):
        make_store(asked, resume=True)


def test_overwriting_replaces_the_old_store(run: Run, corpus: Path, tmp_path: Path) -> None:
    run(corpus)
    (tmp_path / "store" / "train" / "left-over").write_text("x")
    store = run(corpus / "a.txt", overwrite=True, valid_fraction=0)
    assert len(store.split("train")) == 25
    assert not (store.root / "train" / "left-over").exists()
    storage.check_claim(store.root, STORE, overwrite=True, resume=False)  # nothing is foreign to it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "store"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_whatever_ends_it_early_leaves_the_old_store_as_it_was(
    run: Run, corpus: Path, tmp_path: Path, error: type[BaseException]
) -> None:
    before = contents(run(corpus).root)
    for number in range(20):
        seen = 0

        def emit(event: Event) -> None:
            nonlocal seen
            if isinstance(event, Facts):  # the summary: the new store is complete
                raise StopIteration
            seen += 1
            if seen > number:  # noqa: B023 - used within this round of the loop only
                raise error("stopped")

        try:
            run(corpus / "a.txt", overwrite=True, train_tokenizer="wordpiece", vocab_size=100, emit=emit)
        except error:
            assert contents(tmp_path / "store") == before
            assert {path.name for path in tmp_path.iterdir()} - {".store.unfinished"} == {"corpus", "store"}
        except StopIteration:
            break
    assert number >= 4, "too few places to stop at"
    assert contents(tmp_path / "store") != before


@pytest.fixture
def failing_rename(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The new folder cannot take its place."""
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    yield
    monkeypatch.undo()


def test_the_old_store_survives_even_a_stop_at_the_last_moment(
    run: Run, corpus: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before = contents(run(corpus).root)
    request.getfixturevalue("failing_rename")
    with pytest.raises(KeyboardInterrupt):
        run(corpus / "a.txt", overwrite=True)
    assert contents(tmp_path / "store") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".store.unfinished", "corpus", "store"]


def test_what_a_killed_run_left_is_cleared_away(run: Run, corpus: Path, tmp_path: Path) -> None:
    with storage.owned_folder(tmp_path / ".store.partial", STORE):
        (tmp_path / ".store.partial" / "train").mkdir()
        (tmp_path / ".store.partial" / "train" / "junk").write_text("x")
    store = run(corpus)
    assert not list(store.root.rglob("junk"))
    assert not (tmp_path / ".store.partial").exists()


def test_two_at_once(run: Run, corpus: Path, tmp_path: Path) -> None:
    """The second is refused while the first is at work, and so is one that would replace what came meanwhile."""
    begun: list[str] = []

    def second(event: Event) -> None:
        if isinstance(event, Progress) and not begun:
            begun.append("")
            for flags in ({}, {"overwrite": True}, {"resume": True}):
                with pytest.raises(UserError, match="is in use by another fmlm process"):
                    run(corpus / "a.txt", valid_fraction=0, **flags)

    store = run(corpus, emit=second)
    assert begun
    store.verify(("train", "validation"))
    assert len(store.split("train")) > 25
    with storage.work_in(store.root), pytest.raises(UserError, match="is in use by another fmlm process"):
        run(corpus / "a.txt", overwrite=True)
    store.verify(("train", "validation"))


@pytest.mark.parametrize("flag", ["overwrite", "resume"])
def test_a_folder_that_fmlm_did_not_make_is_never_touched(
    run: Run, corpus: Path, tmp_path: Path, flag: str
) -> None:
    # a manifest.json is nothing special: web applications and other programs have one
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "manifest.json").write_text('{"name": "a web application"}')
    (tmp_path / "store" / "precious.txt").write_text("my thesis")
    with pytest.raises(UserError):
        run(corpus, **{flag: True})
    assert (tmp_path / "store" / "precious.txt").read_text() == "my thesis"


def test_renewing_keeps_the_same_and_replaces_anything_else(run: Run, corpus: Path, tmp_path: Path) -> None:
    before = contents(run(corpus, renew=True).root)
    inodes = {path: path.stat().st_ino for path in (tmp_path / "store").rglob("*")}
    events: list[Event] = []
    store = run(corpus, renew=True, emit=events.append)
    assert {path: path.stat().st_ino for path in store.root.rglob("*")} == inodes
    (event,) = events
    assert isinstance(event, Note)
    assert "reused" in event.text
    other = run(corpus, renew=True, valid_fraction=0.3)
    assert contents(other.root) != before
    assert len(other.split("validation")) > 10
    assert contents(run(corpus, renew=True).root) == before


def test_renewing_replaces_a_damaged_store_but_nothing_foreign(
    run: Run, corpus: Path, tmp_path: Path
) -> None:
    before = contents(run(corpus, renew=True).root)
    file = next((tmp_path / "store" / "train").glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:-100])
    assert contents(run(corpus, renew=True).root) == before
    storage.check_claim(tmp_path / "store", STORE_OF_RUN, overwrite=True, resume=False)
    run(corpus, out="own")
    with pytest.raises(UserError, match="is a token store, not a token store of a run"):
        run(corpus, renew=True, out="own", valid_fraction=0.3)  # the user's own
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="mine"):
        run(corpus, renew=True, out="mine")


# ---------------------------------------------------------------- more tokens


@pytest.fixture
def domain(tmp_path: Path, documents: list[str]) -> Path:
    """Text with words in it that the tokenizer splits, one of them often; and one in the validation text
    alone.
    """
    texts = [f"The gravitino and {text} Gravitino." for text in documents[:30]]
    texts += [f"neutralino {text}" for text in documents[30:40]]
    held = min((f"{'zyzzyva ' * 6}{number}" for number in range(3000)), key=share_of)
    assert share_of(held) < min(map(share_of, texts))
    path = tmp_path / "domain.txt"
    path.write_text("\n".join([*texts, held]))
    return path


def fraction_of(path: Path) -> float:
    """The share at which the last document alone is held out."""
    return share_of(path.read_text().split("\n")[-1]) + 1e-9


def test_words_of_the_text_become_tokens(run: Run, domain: Path, wordpiece_tokenizer: Any) -> None:
    events: list[Event] = []
    fraction = fraction_of(domain)
    store = run(domain, extend_vocab=2, valid_fraction=fraction, emit=events.append)
    base = len(wordpiece_tokenizer)
    assert store.vocabulary == base + 2
    assert store.tokenizer.convert_ids_to_tokens([base, base + 1]) == ["gravitino", "neutralino"]
    assert store.token_counts[base:].tolist() == [60, 10]
    assert extends(store.tokenizer, fingerprint(wordpiece_tokenizer), base)
    (listed,) = [event for event in events if isinstance(event, Facts)][:1]
    assert list(listed.rows)[:2] == ["gravitino", "neutralino"]
    assert listed.rows["gravitino"].endswith(", 60 times")
    plain = run(domain, valid_fraction=fraction, out="plain").manifest["splits"]["train"]["tokens"]
    saved = plain - store.manifest["splits"]["train"]["tokens"]
    assert listed.rows["in all"] == f"2 new tokens, which save about {saved:,} tokens of the text looked at"
    tables = [number for number, event in enumerate(events) if isinstance(event, Facts)]
    begun = [n for n, e in enumerate(events) if isinstance(e, Progress) and e.task == "tokenizing"]
    assert tables[0] < begun[0], "the words are told before the work begins"


def test_new_words_are_not_looked_for_in_validation_text(run: Run, domain: Path) -> None:
    events: list[Event] = []
    store = run(domain, extend_vocab=99, valid_fraction=fraction_of(domain), emit=events.append)
    assert "zyzzyva" not in store.tokenizer.get_vocab()
    assert any(isinstance(event, Caution) and "only" in event.text for event in events)
    assert "zyzzyva" in run(domain, extend_vocab=99, valid_fraction=0, out="all").tokenizer.get_vocab()


def test_words_of_a_file_become_tokens_and_others_of_the_text_beside_them(
    run: Run, domain: Path, tmp_path: Path, wordpiece_tokenizer: Any
) -> None:
    (tmp_path / "words.txt").write_text("Zyzzyva\n\nthe\ngravitino\n")
    events: list[Event] = []
    asked = {"add_tokens": str(tmp_path / "words.txt"), "extend_vocab": 1, "valid_fraction": 0}
    store = run(domain, **asked, emit=events.append)
    tables = [event for event in events if isinstance(event, Facts)]
    assert tables[0].rows["left out"].startswith("1, tokens already")
    assert store.tokenizer.convert_ids_to_tokens(range(len(wordpiece_tokenizer), store.vocabulary)) == [
        "zyzzyva",
        "gravitino",
        "neutralino",
    ]
    before = contents(store.root)
    assert contents(run(domain, **asked, resume=True).root) == before
    (tmp_path / "words.txt").rename(tmp_path / "renamed.txt")
    asked["add_tokens"] = str(tmp_path / "renamed.txt")
    assert contents(run(domain, **asked, resume=True).root) == before
    (tmp_path / "renamed.txt").write_text("Zyzzyva\nthe\n")
    with pytest.raises(UserError, match="other add_tokens"):
        run(domain, **asked, resume=True)
    with pytest.raises(UserError, match="other extend_vocab and add_tokens"):
        run(domain, valid_fraction=0, resume=True)


def test_a_store_from_before_there_were_new_tokens_is_recognised(
    run: Run, corpus: Path, tmp_path: Path
) -> None:
    store = run(corpus)
    request = {k: v for k, v in store.manifest["request"].items() if k not in ("add_tokens", "extend_vocab")}
    manifest = {**store.manifest, "request": request}
    storage.write_sealed(store.root / "manifest.json", manifest)
    before = contents(store.root)
    assert contents(run(corpus, resume=True).root) == before


RUSSIAN = "\u0432\u0441\u0435 \u043b\u044e\u0434\u0438 \u0440\u043e\u0436\u0434\u0430\u044e\u0442\u0441\u044f \u0441\u0432\u043e\u0431\u043e\u0434\u043d\u044b\u043c\u0438 \u0438 \u0440\u0430\u0432\u043d\u044b\u043c\u0438"
HINDI = "\u0938\u092d\u0940 \u092e\u0928\u0941\u0937\u094d\u092f\u094b\u0902 \u0915\u094b \u0917\u094c\u0930\u0935 \u0914\u0930 \u0905\u0927\u093f\u0915\u093e\u0930\u094b\u0902 \u0915\u0940 \u0938\u0947"


@pytest.mark.parametrize(
    ("kind", "size", "learnt_from", "text", "most"),
    [
        ("bpe", 600, RUSSIAN, HINDI, 2),
        ("wordpiece", 48, RUSSIAN, RUSSIAN, 3),
        ("wordpiece", 600, RUSSIAN, HINDI, 4),
        ("bpe", 600, RUSSIAN, RUSSIAN, None),
        ("wordpiece", 600, HINDI, HINDI, None),
    ],
    ids=["parts", "letters", "unknown", "known bpe", "known wordpiece"],
)
def test_a_tokenizer_that_hardly_knows_the_script(
    run: Run, tmp_path: Path, kind: Any, size: int, learnt_from: str, text: str, most: int | None
) -> None:
    """`most`: which figure of the sentence is above a half."""
    tokenizer = train_tokenizer(kind, [learnt_from] * 9, vocab_size=size, lowercase=False)
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    (tmp_path / "a.txt").write_text(f"{text}\n\n{text} {text}\n")
    events: list[Event] = []
    store = run(tmp_path / "a.txt", tokenizer=str(tmp_path / "tokenizer"), emit=events.append)
    cautions = [event.text for event in events if isinstance(event, Caution)]
    assert len(cautions) == (most is not None), cautions
    if most is not None:
        figures = re.fullmatch(
            r"the tokenizer hardly knows the text of store: (\d+\.\d) tokens a word, (\d+)% of the tokens parts "
            r"of characters, (\d+)% single letters, (\d+)% unknown and never predicted; .*",
            cautions[0],
        )
        assert figures
        ((ids, starts),) = store.split("train").documents()
        assert float(figures[1]) == pytest.approx(len(ids) / starts.sum(), abs=0.05)
        assert [number for number in (2, 3, 4) if int(figures[number]) > 50] == [most]

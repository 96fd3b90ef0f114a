"""A store is the same bytes whatever it was made by: workers, parts, shards, calls that were ended early."""

import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli.config import MergeSettings, TokenizeSettings, build
from fmlm_cli.corpus.store.making.parts import PartMaker
from fmlm_cli.corpus.store.making.shards import Shard
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.errors import OutOfSpaceError, UserError
from fmlm_cli.events import Caution, Event, Note, Progress, ignore
from fmlm_cli.recipes.tokenize import encoding, make_store, merge
from tests.environment import python_path

PART = 3000  # characters, so that the text is some thirty parts
Tokenize = Callable[..., Path]


def contents(folder: Path) -> dict[str, str]:
    """Every file under a folder and the hash of what is in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def corpus(documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five files of documents, some of which are repeated, and some empty."""
    folder = tmp_path_factory.mktemp("text") / "corpus"
    folder.mkdir()
    texts = [*documents, *documents[10:40], *documents[5:15]]
    for number in range(5):
        lines = [json.dumps({"text": text}) for text in texts[number::5]]
        lines.insert(7, json.dumps({"text": " "}))
        lines.insert(9, json.dumps({"text": "\u200b"}))  # of which the tokenizer leaves nothing
        (folder / f"{number}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def valid(corpus: Path, documents: list[str]) -> Path:
    path = corpus.parent / "valid.txt"
    path.write_text("\n".join([*documents[50:70], "one more document, of its own"]))
    return path


@pytest.fixture
def tokenize(tmp_path: Path, wordpiece_folder: Path, corpus: Path) -> Tokenize:
    """Tokenize the corpus into `tmp_path / out`, in this process."""

    def go(out: str, emit: Any = ignore, sources: Any = None, **options: Any) -> Path:
        calls = {name: options.pop(name) for name in ("overwrite", "resume", "renew") if name in options}
        if "train_tokenizer" not in options:
            options["tokenizer"] = str(wordpiece_folder)
        settings = {"sources": [str(sources or corpus)], "out": str(tmp_path / out), "workers": 1, **options}
        return make_store(build(TokenizeSettings, settings), emit=emit, **calls)

    return go


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "PART_CHARACTERS", PART)


@pytest.fixture
def whole(tokenize: Tokenize) -> dict[str, str]:
    """The store of one part."""
    return contents(tokenize("whole"))


ASKED: list[dict[str, Any]] = [
    {},
    {"valid_fraction": 0.2, "dedup": "exact"},
    {"valid_fraction": 1e-9},
    {"valid": True, "dedup": "near"},
]


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_parts_and_shards_do_not_show(
    tokenize: Tokenize,
    valid: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
) -> None:
    asked = asked | ({"valid": [str(valid)]} if "valid" in asked else {})
    wanted = contents(tokenize("whole", **asked))
    for part in (PART, 40_000):
        monkeypatch.setattr(encoding, "PART_CHARACTERS", part)
        assert contents(tokenize(f"parts-{part}", **asked)) == wanted
    monkeypatch.setattr(encoding, "PART_CHARACTERS", PART)
    for of in (1, 3):
        shards = [str(tokenize(f"shard-{of}-{i}", shard=f"{i}/{of}", **asked)) for i in range(1, of + 1)]
        random.Random(of).shuffle(shards)
        merged = merge(build(MergeSettings, {"shards": shards, "out": str(tmp_path / f"merged-{of}")}))
        assert contents(merged) == wanted
        assert [Shard.open(Path(shard)).documents > 0 for shard in shards] == [True] * of


def test_more_shards_than_documents(tokenize: Tokenize, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("the first\nthe second\n")
    wanted = contents(tokenize("whole", sources=tmp_path / "two.txt"))
    shards = [str(tokenize(f"s{i}", sources=tmp_path / "two.txt", shard=f"{i}/5")) for i in range(1, 6)]
    merged = merge(build(MergeSettings, {"shards": shards, "out": str(tmp_path / "merged")}))
    assert contents(merged) == wanted


def test_workers_do_not_show(
    tokenize: Tokenize, whole: dict[str, str], small_parts: None, tmp_path: Path
) -> None:
    for workers in (2, 3):
        assert contents(tokenize(f"by-{workers}", workers=workers)) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["by-2", "by-3", "whole"]


# ---------------------------------------------------------------- ended early


def ended_after(parts: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the making of parts end by an error after so many."""
    write, done = PartMaker._write, 0

    def fail(self: PartMaker, path: Path, *arguments: Any) -> int:
        nonlocal done
        if done == parts:
            path.write_bytes(b"half")
            raise error
        done += 1
        return write(self, path, *arguments)

    monkeypatch.setattr(PartMaker, "_write", fail)


@pytest.mark.parametrize("parts", [1, 2, 5, 20])
@pytest.mark.parametrize(
    "asked", [{}, {"train_tokenizer": "wordpiece", "vocab_size": 300}], ids=["", "learnt"]
)
def test_an_ended_call_is_gone_on_with(
    tokenize: Tokenize,
    small_parts: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    valid: Path,
    parts: int,
    asked: Any,
) -> None:
    asked = {**asked, "valid": [str(valid)]}
    wanted = contents(tokenize("whole", **asked))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        ended_after(parts, KeyboardInterrupt(), patch)
        tokenize("store", **asked)
    left = tmp_path / ".store.unfinished"
    assert len(list((left / "parts").iterdir())) == parts, "nothing half-written is left"
    with pytest.raises(UserError, match=r"store is not finished, and [\d,]+ documents? of it .* --resume"):
        tokenize("store", **asked)
    with pytest.raises(UserError, match=r"store is not finished: go on with .* --resume"):
        TokenStore.open(tmp_path / "store")
    with pytest.raises(UserError, match="begun with other valid_fraction: "):
        tokenize("store", resume=True, **asked, valid_fraction=0.5)
    made: list[Path] = []
    write = PartMaker._write
    monkeypatch.setattr(
        PartMaker, "_write", lambda self, path, *a: made.append(path) or write(self, path, *a)
    )
    assert contents(tokenize("store", resume=True, **asked)) == wanted
    assert len(made) == len({path.name for path in made}) and f"part-{parts:06d}.arrow" == made[0].name
    assert not left.exists()


def test_nothing_is_left_without_a_finished_part(
    tokenize: Tokenize, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        ended_after(0, KeyboardInterrupt(), patch)
        tokenize("deep/store")
    assert list(tmp_path.iterdir()) == []


def test_an_end_while_it_is_written_loses_nothing(
    tokenize: Tokenize, whole: dict[str, str], small_parts: None, tmp_path: Path
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "writing":
            raise OSError(28, "No space left on device")

    with pytest.raises(OutOfSpaceError, match=r"no space left on the disk while writing .*store"):
        tokenize("store", emit=stop)
    assert not (tmp_path / "store").exists() and not (tmp_path / ".store.partial").exists()
    events: list[Event] = []
    assert contents(tokenize("store", resume=True, emit=events.append)) == whole
    assert not any(isinstance(event, Progress) and event.task == "tokenizing" for event in events)


@pytest.fixture
def little_space() -> Iterator[Callable[[int], None]]:
    """Files can be no larger than this, as on a disk that is full; Python ignores SIGXFSZ."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_fills_keeps_what_is_finished(
    tokenize: Tokenize,
    small_parts: None,
    tmp_path: Path,
    documents: list[str],
    little_space: Callable[[int], None],
    workers: int,
) -> None:
    words = " ".join(documents).split()
    lines = [" ".join(words[begin : begin + 30]) for begin in range(0, 3000, 30)]
    (tmp_path / "text.txt").write_text("\n".join([*lines, " ".join(words * 4)]))
    asked = {"sources": tmp_path / "text.txt", "documents": "line", "workers": workers}
    wanted = contents(tokenize("whole", **asked))
    little_space(20_000)  # the last document's part needs more
    events: list[Event] = []
    with pytest.raises(OutOfSpaceError, match=r"no space left .*\.store\.unfinished"):
        tokenize("store", emit=events.append, **asked)
    little_space(resource.RLIM_INFINITY)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert "96 documents are tokenized: --resume goes on after them" in notes  # the last part had four more
    assert contents(tokenize("store", resume=True, **asked)) == wanted


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", [damage, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_part_is_made_again(
    tokenize: Tokenize,
    whole: dict[str, str],
    small_parts: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    how: Callable[[Path], None],
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        ended_after(6, KeyboardInterrupt(), patch)
        tokenize("store")
    how(tmp_path / ".store.unfinished" / "parts" / "part-000004.arrow")
    events: list[Event] = []
    assert contents(tokenize("store", resume=True, emit=events.append)) == whole
    (caution,) = [event.text for event in events if isinstance(event, Caution)]
    assert "a finished part is damaged" in caution


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_a_journal_that_was_cut_off(
    tokenize: Tokenize,
    whole: dict[str, str],
    small_parts: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cut: int,
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        ended_after(6, KeyboardInterrupt(), patch)
        tokenize("store")
    journal = tmp_path / ".store.unfinished" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert contents(tokenize("store", resume=True)) == whole


def test_a_line_of_the_journal_that_was_changed_counts_for_nothing(
    tokenize: Tokenize,
    whole: dict[str, str],
    small_parts: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        ended_after(6, KeyboardInterrupt(), patch)
        tokenize("store")
    journal = tmp_path / ".store.unfinished" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    read = json.loads(lines[5])["place"]["read"]
    assert f'"read": {read},' in lines[5]
    lines[5] = lines[5].replace(f'"read": {read},', f'"read": {read + 1},')
    journal.write_text("".join(lines))
    assert contents(tokenize("store", resume=True)) == whole


def test_parts_of_text_that_has_not_changed_are_kept(
    tokenize: Tokenize,
    small_parts: None,
    monkeypatch: pytest.MonkeyPatch,
    corpus: Path,
    tmp_path: Path,
) -> None:
    mine = shutil.copytree(corpus, tmp_path / "mine")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        ended_after(20, KeyboardInterrupt(), patch)
        tokenize("store", sources=mine)
    before = Shard.open(tmp_path / ".store.unfinished").entries
    kept = sum(entry["place"]["source"] < 2 for entry in before)
    assert 3 < kept < 19
    text = (mine / "2.jsonl").read_text()
    (mine / "2.jsonl").write_text(text.replace("the", "they", 1))
    wanted = contents(tokenize("whole", sources=mine))
    made: list[Path] = []
    write = PartMaker._write
    monkeypatch.setattr(
        PartMaker, "_write", lambda self, path, *a: made.append(path) or write(self, path, *a)
    )
    assert contents(tokenize("store", sources=mine, resume=True)) == wanted
    assert made[0].name == f"part-{kept:06d}.arrow"


def test_bad_text_is_mended_and_the_rest_kept(
    tokenize: Tokenize, small_parts: None, corpus: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(corpus, tmp_path / "mine")
    text = (mine / "3.jsonl").read_text()
    (mine / "3.jsonl").write_text(text + "\n{broken")
    with pytest.raises(UserError, match=r"3\.jsonl:\d+: "):
        tokenize("store", sources=mine)
    assert len(Shard.open(tmp_path / ".store.unfinished").entries) > 10
    (mine / "3.jsonl").write_text(text)
    wanted = contents(tokenize("whole", sources=mine))
    assert contents(tokenize("store", sources=mine, resume=True)) == wanted


def test_overwriting_goes_on_too(
    tokenize: Tokenize, small_parts: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = contents(tokenize("store", valid_fraction=0.5))
    wanted = contents(tokenize("whole"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        ended_after(6, KeyboardInterrupt(), patch)
        tokenize("store", overwrite=True)
    assert contents(tmp_path / "store") == before
    assert contents(tokenize("store", resume=True)) == wanted
    assert contents(tokenize("store", resume=True)) == wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "whole"]


@pytest.mark.parametrize(
    "asked", [{}, {"train_tokenizer": "wordpiece", "vocab_size": 300}], ids=["", "learnt"]
)
def test_standard_input_is_taken_in_once(
    tokenize: Tokenize,
    small_parts: None,
    monkeypatch: pytest.MonkeyPatch,
    corpus: Path,
    tmp_path: Path,
    asked: Any,
) -> None:
    asked = {**asked, "sources": "-", "format": "jsonl"}
    text = (corpus / "0.jsonl").read_bytes()

    def stdin(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    stdin(text)
    wanted = contents(tokenize("whole", **asked))
    stdin(text)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        ended_after(3, KeyboardInterrupt(), patch)
        tokenize("store", **asked)
    stdin(b"")
    assert contents(tokenize("store", resume=True, **asked)) == wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "whole"]


# ---------------------------------------------------------------- merging


@pytest.fixture
def shards(tokenize: Tokenize) -> list[str]:
    return [str(tokenize(f"s{i}", shard=f"{i}/3")) for i in (1, 2, 3)]


def test_what_cannot_be_merged(tokenize: Tokenize, shards: list[str], tmp_path: Path) -> None:
    s1, s2, s3 = shards
    other = str(tokenize("other", shard="3/3", documents="file"))
    of_four = str(tokenize("four", shard="3/4"))
    again = str(tokenize("again", shard="2/3"))
    store = str(tokenize("store"))
    cases = [
        ([s1, s2], "shard 3 of 3 is missing"),
        ([s3], "shard 1, 2 of 3 is missing"),
        ([s1, s2, other], "other was made with other documents than .*s1"),
        ([s1, s2, of_four], r"four was made with other numbers of shards \(4, not 3\)"),
        ([s1, s2, s3, again], "again and .*s2 are both shard 2/3"),
        ([s1, s2, store], "store is a finished store"),
        ([s1, s2, str(tmp_path)], "is no shard of a token store"),
        ([s1, s2, str(tmp_path / "nowhere")], "no such shard: .*nowhere does not exist"),
    ]
    for named, said in cases:
        with pytest.raises(UserError, match=said):
            merge(build(MergeSettings, {"shards": named, "out": str(tmp_path / "merged")}))
        assert not (tmp_path / "merged").exists()
    damage(next(Path(s2, "parts").iterdir()))
    with pytest.raises(UserError, match="is damaged"):
        merge(build(MergeSettings, {"shards": shards, "out": str(tmp_path / "merged")}))
    assert sorted(path.name for path in Path(s2).iterdir() if path.name == "merged") == []


def test_a_shard_is_no_store(tokenize: Tokenize, shards: list[str]) -> None:
    with pytest.raises(UserError, match=r"s1 is a shard of a token store: join all .* `fmlm merge"):
        TokenStore.open(shards[0])
    events: list[Event] = []
    before = contents(Path(shards[0]))
    tokenize("s1", shard="1/3", resume=True, emit=events.append)
    assert contents(Path(shards[0])) == before
    assert any("nothing to do" in event.text for event in events if isinstance(event, Note))
    with pytest.raises(UserError, match="was made with other shard"):
        tokenize("s1", shard="2/3", resume=True)
    with pytest.raises(UserError, match="s1 is a shard of a token store, not a token store"):
        tokenize("s1", overwrite=True)


def test_a_damaged_shard_is_made_again(tokenize: Tokenize, shards: list[str], tmp_path: Path) -> None:
    before = contents(Path(shards[0]))
    damage(next(Path(shards[0], "parts").iterdir()))
    with pytest.raises(UserError, match=r"s1.* is damaged .*--resume"):
        merge(build(MergeSettings, {"shards": shards, "out": str(tmp_path / "merged")}))
    tokenize("s1", shard="1/3", resume=True)
    assert contents(Path(shards[0])) == before


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_what_is_no_share(tokenize: Tokenize, shard: str) -> None:
    with pytest.raises(UserError, match="write it as I/N"):
        tokenize("store", shard=shard)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"train_tokenizer": "bpe"}, "--train-tokenizer"),
        ({"extend_vocab": 5}, "--extend-vocab"),
        ({"pmi": True}, "--pmi"),
        ({"sources": "-"}, "standard input"),
    ],
)
def test_what_needs_all_of_the_text(tokenize: Tokenize, asked: Any, named: str) -> None:
    with pytest.raises(UserError, match=f"--shard and .*{named}.* exclude each other"):
        tokenize("store", shard="1/2", **asked)


# ---------------------------------------------------------------- repeated documents


def texts_of(store: Path) -> dict[str, list[str]]:
    opened = TokenStore.open(store)
    return {
        split: [opened.tokenizer.decode(ids.tolist()) for ids, _ in opened.split(split).documents()]
        for split in ("train", "validation")
    }


def test_exact_duplicates_leave_the_first(tokenize: Tokenize, tmp_path: Path) -> None:
    lines = [
        "the cat",
        "of time",
        "the cat",
        "to see",
        "of time",
        "The cat",
        "to see",
        "held",
        "held",
        "held",
    ]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    (tmp_path / "v.txt").write_text("held\nof water\nof water")
    asked = {"sources": tmp_path / "a.txt", "valid": [str(tmp_path / "v.txt")], "documents": "line"}
    plain, exact = (tokenize(f"{dedup}", dedup=dedup, **asked) for dedup in (None, "exact"))
    firsts = list(dict.fromkeys(lines[:7]))
    assert len(texts_of(plain)["train"]) == 7
    assert len(texts_of(exact)["train"]) == len(firsts) == 4
    assert [len(texts_of(store)["validation"]) for store in (plain, exact)] == [3, 2]
    facts = TokenStore.open(exact).manifest["facts"]
    assert (facts["held_out_documents"], facts["duplicate_documents"]) == (3, 4)


def test_near_duplicates_of_either_corpus(tokenize: Tokenize, tmp_path: Path, documents: list[str]) -> None:
    words = " ".join(documents).split()
    long = [" ".join(words[begin : begin + 150]) for begin in range(0, 3000, 150)]
    changed = [text + " and this" for text in long]
    lines = [*long[:10], *changed[5:10], *changed[10:12]]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    (tmp_path / "v.txt").write_text("\n".join([*long[10:14], changed[13]]))
    store = tokenize(
        *("near",),
        sources=tmp_path / "a.txt",
        valid=[str(tmp_path / "v.txt")],
        documents="line",
        dedup="near",
        valid_fraction=0.5,
    )
    facts = TokenStore.open(store).manifest["facts"]
    assert facts["near_duplicate_documents"] == 5 + 2 + 1
    assert {split: len(texts) for split, texts in texts_of(store).items()} == {"train": 10, "validation": 4}


# ---------------------------------------------------------------- processes

_SMALL = f"""
from fmlm_cli.recipes.tokenize import encoding
encoding.PART_CHARACTERS = {PART}
from fmlm_cli.__main__ import main
main()
"""


@pytest.fixture
def started(tmp_path: Path, corpus: Path, wordpiece_folder: Path) -> Callable[..., Any]:
    """Start `fmlm tokenize`, with small parts, and two workers beside it, in a process of its own."""

    def start(*more: str) -> "subprocess.Popen[str]":
        words = ["tokenize", str(corpus), "--tokenizer", str(wordpiece_folder), "--out", "store", *more]
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _SMALL, *words, "--workers", "3"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": python_path()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def parts_finished(folder: Path) -> int:
    journal = folder / ".store.unfinished" / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


def workers_of(process: int) -> list[int]:
    """The processes that it has started."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [child for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(met: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < until
        time.sleep(0.005)


def killed_and_resumed(started: Callable[..., Any], folder: Path, kills: int, wanted: dict[str, str]) -> None:
    draw = random.Random(kills)
    for number in range(kills):
        before = parts_finished(folder)
        with started("--resume") as process:
            # The first ones early; some never come to a part of their own.
            wait_for(lambda: parts_finished(folder) > before or process.poll() is not None)  # noqa: B023
            workers = workers_of(process.pid) if process.poll() is None else []
            time.sleep(draw.uniform(0, 0.05))
            process.kill()
            process.communicate()
            wait_for(lambda: not any(map(is_running, workers)), 20)  # noqa: B023
        if (folder / "store").exists():
            assert number > 0
            break
    with started("--resume") as process:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert contents(folder / "store") == wanted
    assert not (folder / ".store.unfinished").exists()


def test_killed_twice_it_ends_in_the_same_bytes(
    started: Callable[..., Any], whole: dict[str, str], tmp_path: Path
) -> None:
    killed_and_resumed(started, tmp_path, 2, whole)


def test_a_worker_that_is_killed(started: Callable[..., Any], whole: dict[str, str], tmp_path: Path) -> None:
    with started() as process:
        wait_for(lambda: len(workers_of(process.pid)) == 2)
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert errors == (
        "error: a worker process was killed, for want of memory perhaps, or could not begin (a script has to do "
        'this under `if __name__ == "__main__":`): --resume goes on, with fewer --workers\n'
    )
    with started("--resume") as process:
        process.communicate(timeout=60)
    assert contents(tmp_path / "store") == whole


@pytest.mark.slow
def test_killed_ten_times_it_ends_in_the_same_bytes(
    started: Callable[..., Any], whole: dict[str, str], tmp_path: Path
) -> None:
    killed_and_resumed(started, tmp_path, 10, whole)

"""`fmlm tokenize`: what it says, how it exits, what it leaves behind."""

import functools
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.corpus.store.making.shards import Shard
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.text import corpus as corpus_text
from fmlm_cli.corpus.text.python_docs import PythonDocs
from fmlm_cli.corpus.tokenizer.loading import save_tokenizer
from fmlm_cli.recipes.tokenize import encoding
from tests.cli.refusals import assert_refused
from tests.environment import python_path

Call = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, documents: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two small sources."""
    monkeypatch.chdir(tmp_path)
    Path("good.txt").write_text("\n".join(documents[:40]))
    lines = [json.dumps({"id": n, "body": {"text": text}}) + "\n" for n, text in enumerate(documents[40:60])]
    Path("good.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode()))
    return tmp_path


@pytest.fixture
def fmlm(folder: Path, wordpiece_folder: Path) -> Call:
    """Call `fmlm tokenize`, by default with a tokenizer and `--out store`."""

    def call(*arguments: Any, tokenizer: bool = True, out: str = "store") -> Any:
        words = ["tokenize", *map(str, arguments), "--out", out]
        words += ["--tokenizer", str(wordpiece_folder)] if tokenizer else []
        return CliRunner().invoke(app, words)

    return call


def listing(folder: Path) -> dict[str, str]:
    """All that lies in a folder, hidden or not, with hashes of the contents."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def complains(result: Any, *parts: str) -> None:
    """Exit code 2 and one line on standard error with all of these in it."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in result.output
    for part in parts:
        assert part in line


_HEAVY = ("torch", "datasets", "matplotlib")
_TOLD = f"""
import atexit, sys
atexit.register(lambda: print("loaded:", *(name for name in {_HEAVY} if name in sys.modules)))
from fmlm_cli.__main__ import main
main()
"""


def modules_after(*words: Any) -> str:
    """Run `fmlm` in a process of its own; which of the heavy libraries it has loaded in the end.

    Some versions of transformers load torch for any tokenizer; that one is left out then.
    """
    command = [sys.executable, "-P", "-c", _TOLD, *map(str, words)]
    place = os.environ | {"PYTHONPATH": python_path()}
    done = subprocess.run(command, check=True, env=place, stdout=subprocess.PIPE, text=True)
    loaded = done.stdout.splitlines()[-1]
    return loaded.replace(" torch", "") if _tokenizers_need_torch() else loaded


@functools.cache
def _tokenizers_need_torch() -> bool:
    code = "import sys; from transformers import PreTrainedTokenizerFast; print('torch' in sys.modules)"
    return (
        "True"
        in subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )


def test_no_heavy_library_is_on_the_road(
    folder: Path, documents: list[str], wordpiece_tokenizer: Any
) -> None:
    Path("all.txt").write_text("\n".join(documents))
    learnt = ("--train-tokenizer", "wordpiece", "--vocab-size", 300)
    assert modules_after("tokenize", "all.txt", *learnt, "--pmi", "--out", "store") == "loaded:"
    assert TokenStore.open("store").verified_collocations() is not None
    bert = folder / "bert"  # as the Hub has it: the class is told by the model alone
    save_tokenizer(wordpiece_tokenizer, bert)
    (bert / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    (bert / "config.json").write_text('{"model_type": "bert"}')
    assert modules_after("tokenize", "good.txt", "--tokenizer", bert, "--out", "other") == "loaded:"


def test_text_becomes_a_store(fmlm: Call) -> None:
    result = fmlm("good.txt")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    store = TokenStore.open("store")
    assert len(store.split("train")) + len(store.split("validation")) == 40
    for said in ("a document is a line", "token store store", "train", store.fingerprint[:16]):
        assert said in result.stdout
    assert store.manifest["request"]["valid_fraction"] == 0.01


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_a_tokenizer_is_learnt(fmlm: Call, kind: str) -> None:
    result = fmlm(
        *("good.jsonl.gz", "good.txt", "--text-field", "body.text", "--valid-fraction", 0.3),
        *("--train-tokenizer", kind, "--vocab-size", 300, "--lowercase"),
        tokenizer=False,
    )
    assert result.exit_code == 0, result.output
    store = TokenStore.open("store")
    assert 6 < store.manifest["splits"]["validation"]["documents"] < 30
    assert store.vocabulary <= 300
    assert f"learnt a {kind} tokenizer" in result.stdout


def test_options_reach_the_recipe(fmlm: Call, folder: Path, documents: list[str]) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "a.txt").write_text("of \ntime\n\nthe cat\n")
    (folder / "held.txt").write_bytes("\n".join(documents[60:63]).encode() + b"\nof \xe9t\xe9\n")
    result = fmlm(
        *("more", "--documents", "blank-line", "--valid", "held.txt", "--on-bad-text", "skip"),
        *("--valid", "good.txt"),
    )
    assert result.exit_code == 0, result.output
    splits = TokenStore.open("store").manifest["splits"]
    assert splits["train"]["documents"] == 2
    assert splits["validation"]["documents"] == 1  # no file has blank lines, and the bad one is left out
    assert "1 documents left out" in result.stdout


def test_names_that_are_no_utf8(fmlm: Call, folder: Path) -> None:
    (folder / "odd").mkdir()
    for name in (b"caf\xe9.txt", b"caf\xe9.log", b"two\nlines.\xe9"):
        Path("odd", os.fsdecode(name)).write_text("one\ntwo\nthree\n")
    result = fmlm("odd")
    assert result.exit_code == 0, result.output
    (source,) = TokenStore.open("store").manifest["request"]["sources"]
    assert source["name"] == r"caf\udce9.txt"
    assert "nothing to do" in fmlm("odd", "--resume").stdout


def test_resume_promises_what_it_does(fmlm: Call) -> None:
    assert fmlm("good.txt").exit_code == 0
    assert "pass --resume to keep what is finished" in fmlm("good.txt").stderr
    help_text = " ".join(CliRunner().invoke(app, ["tokenize", "--help"]).stdout.replace("│", " ").split())
    assert "Go on where an earlier call stopped, and keep a finished store of the same" in help_text


def test_the_embedded_corpus(fmlm: Call, documents: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    small = PythonDocs(tuple(documents[:9]), {"python": "3"}, (), 0)
    monkeypatch.setattr(corpus_text, "read_python_docs", lambda progress: small)
    assert fmlm("python-docs").exit_code == 0
    splits = TokenStore.open("store").manifest["splits"]
    assert splits["train"]["documents"] + splits["validation"]["documents"] == 9


def test_again(fmlm: Call, folder: Path) -> None:
    assert fmlm("good.txt").exit_code == 0
    before = listing(folder)
    complains(fmlm("good.txt"), "store", "not empty", "--resume", "--overwrite")
    result = fmlm("good.txt", "--resume")
    assert result.exit_code == 0
    assert "nothing to do" in result.stdout
    complains(fmlm("good.txt", "--valid-fraction", 0.2, "--resume"), "valid_fraction", "--overwrite")
    complains(fmlm("good.txt", "good.jsonl.gz", "--text-field", "body.text", "--resume"), "sources")
    complains(fmlm("missing.txt", "--overwrite"), "missing.txt")
    complains(fmlm("good.jsonl.gz", "--overwrite"), "no field 'text'")  # found while writing
    assert listing(folder) == before
    assert fmlm("good.txt", "--overwrite", "--valid-fraction", 0).exit_code == 0
    assert len(TokenStore.open("store").split("train")) == 40
    assert set(listing(folder)) == set(before)


def test_more_tokens(fmlm: Call, folder: Path, wordpiece_tokenizer: Any) -> None:
    (folder / "more.txt").write_text("the gravitino and\nthe Bunyavirus and\nof time\n" * 5)
    (folder / "words.txt").write_text("neutralino\nthe\n")
    words = ("more.txt", "--add-tokens", "words.txt", "--extend-vocab", 5, "--documents", "file")
    result = fmlm(*words, "--valid", "good.txt")
    assert result.exit_code == 0, result.output
    assert TokenStore.open("store").vocabulary == len(wordpiece_tokenizer) + 3
    for said in (
        "neutralino",
        "gravitino",
        "bunyavirus",
        ", 5 times",
        "2 new tokens",
        "tokens already",
        "only 2",
    ):
        assert said in result.output
    assert "nothing to do" in fmlm(*words, "--valid", "good.txt", "--resume").stdout
    complains(fmlm(*words[:3], "--valid", "good.txt", "--documents", "file", "--resume"), "extend_vocab")


BAD: dict[str, tuple[dict[str, bytes], list[str], list[str]]] = {
    # files, arguments, parts of the message
    "missing source": ({}, ["nowhere.txt"], ["nowhere.txt", "no such file"]),
    "second source missing": ({}, ["good.txt", "nowhere.txt"], ["nowhere.txt"]),
    "missing validation source": ({}, ["good.txt", "--valid", "nowhere.txt"], ["nowhere.txt"]),
    "empty file": ({"empty.txt": b""}, ["empty.txt"], ["empty.txt", "empty"]),
    "blank file": ({"blank.txt": b" \n\n \t\n"}, ["blank.txt"], ["no text in blank.txt"]),
    "blank validation": (
        {"v.txt": b" \n"},
        ["good.txt", "--valid", "v.txt"],
        ["no text in v.txt", "--valid"],
    ),
    "folder without text": ({"dir/picture.png": b"x"}, ["dir"], ["dir", "no .txt"]),
    "glob without files": ({}, ["*.tex*"], ["*.tex*", "matches no"]),
    "unknown extension": ({"a.pdf": b"x"}, ["a.pdf"], ["a.pdf", "extension"]),
    "no such field": (
        {"a.jsonl": b'{"text": "a b"}\n{"title": "x", "body": {"txet": "y"}}\n'},
        ["a.jsonl"],
        ["a.jsonl:2", "'title'", "'body.txet'", "--text-field"],
    ),
    "field is a number": ({"a.jsonl": b'{"text": 5}'}, ["a.jsonl"], ["a.jsonl:1", "a number"]),
    "malformed JSON": (
        {"a.jsonl": b'{"text": "a"}\n\n{"text": \n'},
        ["a.jsonl"],
        ["a.jsonl:3", "not valid JSON"],
    ),
    "line 100": (
        {"a.jsonl": b'{"text": "a"}\n' * 99 + b"{"},
        ["a.jsonl"],
        ["a.jsonl:100: not valid JSON"],  # not a.jsonl and a picture of a hundred points
    ),
    "invalid UTF-8": (
        {"a.txt": b"line\n" * 7 + b"caf\xe9\n"},
        ["a.txt"],
        ["a.txt:8", "0xe9 at byte position 38", "--on-bad-text"],
    ),
    "damaged gzip": (
        {"a.txt.gz": gzip.compress(b"text " * 99)[:-9]},
        ["a.txt.gz"],
        ["a.txt.gz", "cut short"],
    ),
    "no gzip": ({"a.txt.gz": b"plain text"}, ["a.txt.gz"], ["a.txt.gz", "not a gzip file"]),
    "odd name": ({"[red]a[/] :cat:.pdf": b"x"}, ["[red]a[/] :cat:.pdf"], ["[red]a[/] :cat:.pdf"]),
    "fraction too large": ({}, ["good.txt", "--valid-fraction", "1"], ["valid_fraction", "less than 1"]),
    "negative fraction": ({}, ["good.txt", "--valid-fraction", "-0.1"], ["valid_fraction", "-0.1"]),
    "no number": ({}, ["good.txt", "--valid-fraction", "nan"], ["valid_fraction", "nan"]),
    "one document": ({"a.txt": b"one line"}, ["a.txt"], ["single document", "--documents", "--valid"]),
    "one document, again and again": ({"a.txt": b"one line\n" * 9}, ["a.txt"], ["--valid"]),
    "unknown mode": (
        {},
        ["good.txt", "--documents", "paragraph"],
        ["documents", "'blank-line'", "'paragraph'"],
    ),
    "unknown remedy": ({}, ["good.txt", "--on-bad-text", "drop"], ["on_bad_text", "'skip'", "'drop'"]),
    "name too long": ({}, ["good.txt", "--add-tokens", "w" * 300], ["www", "File name too long"]),
    "source name too long": ({}, [f"{'w' * 300}.txt"], ["www", "File name too long"]),
    "missing words": ({}, ["good.txt", "--add-tokens", "w.txt"], ["no such file of words: w.txt"]),
    "folder of words": ({"w/a": b"x"}, ["good.txt", "--add-tokens", "w"], ["w is no file"]),
    "no words": ({"w.txt": b"\n\n"}, ["good.txt", "--add-tokens", "w.txt"], ["w.txt holds no words"]),
    "two words": (
        {"w.txt": b"a\nb c\n"},
        ["good.txt", "--add-tokens", "w.txt"],
        ["w.txt:2: 'b c' holds a blank"],
    ),
    "words that are no text": (
        {"w.txt": b"a\n\xff"},
        ["good.txt", "--add-tokens", "w.txt"],
        ["w.txt:2", "UTF-8"],
    ),
    "no number of words": ({}, ["good.txt", "--extend-vocab", "0"], ["extend_vocab", "0"]),
    "two tokenizers": ({}, ["good.txt", "--train-tokenizer", "bpe"], ["--tokenizer", "--train-tokenizer"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_one_line_and_leaves_nothing(fmlm: Call, folder: Path, case: str) -> None:
    files, arguments, parts = BAD[case]
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    before = listing(folder)
    complains(fmlm(*arguments), *parts)
    assert listing(folder) == before


BAD_TOKENIZERS: dict[str, tuple[list[str], list[str]]] = {
    "none": ([], ["--tokenizer", "--train-tokenizer"]),
    "missing folder": (["--tokenizer", "./nowhere"], ["./nowhere", "does not exist"]),
    "missing vocabulary": (["--tokenizer", "vocab.txt"], ["vocab.txt", "does not exist"]),
    "folder without one": (["--tokenizer", "dir"], ["dir", "no tokenizer"]),
    "empty name": (["--tokenizer", ""], ["--tokenizer is empty"]),
    "learnt and extended": (
        ["--train-tokenizer", "bpe", "--extend-vocab", "9"],
        ["--extend-vocab", "--tokenizer"],
    ),
    "learnt, and words": (
        ["--train-tokenizer", "bpe", "--add-tokens", "good.txt"],
        ["--add-tokens", "--tokenizer"],
    ),
    "unknown kind": (
        ["--train-tokenizer", "words"],
        ["train_tokenizer", "'wordpiece'", "'unigram'", "'words'"],
    ),
    "too few tokens": (["--train-tokenizer", "bpe", "--vocab-size", "100"], ["100", "alphabet"]),
    "hardly any tokens": (["--train-tokenizer", "bpe", "--vocab-size", "3"], ["vocab_size", "3"]),
}


@pytest.mark.parametrize("case", BAD_TOKENIZERS)
def test_a_bad_tokenizer_is_told_in_one_line_and_leaves_nothing(fmlm: Call, folder: Path, case: str) -> None:
    arguments, parts = BAD_TOKENIZERS[case]
    (folder / "dir").mkdir()
    before = listing(folder)
    complains(fmlm("good.txt", *arguments, tokenizer=False), *parts)
    assert listing(folder) == before


def test_a_file_or_a_foreign_folder_in_the_way(fmlm: Call, folder: Path) -> None:
    (folder / "file").write_text("x")
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").write_text("x")
    before = listing(folder)
    for flags in ([], ["--overwrite"], ["--resume"]):
        complains(fmlm("good.txt", *flags, out="file"), "file")
        complains(fmlm("good.txt", *flags, out="mine"), "mine")
    assert listing(folder) == before


def test_folders_above_the_store_come_and_go_with_it(fmlm: Call, folder: Path) -> None:
    before = listing(folder)
    complains(fmlm("good.jsonl.gz", out="deep/down/store"), "no field")
    assert listing(folder) == before
    assert fmlm("good.txt", out="deep/down/store").exit_code == 0
    TokenStore.open("deep/down/store")


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_folder_may_be_a_link(fmlm: Call, folder: Path, overwrite: bool) -> None:
    (folder / "scratch" / "disk").mkdir(parents=True)
    (folder / "store").symlink_to("scratch/disk")
    if overwrite:
        assert fmlm("good.jsonl.gz", "--text-field", "body.text").exit_code == 0
    result = fmlm("good.txt", *(["--overwrite"] if overwrite else []))
    assert result.exit_code == 0, result.output
    assert (folder / "store").is_symlink()
    assert len(TokenStore.open("scratch/disk").split("train")) == 39
    assert sorted(path.name for path in (folder / "scratch").iterdir()) == ["disk"]


def test_the_folder_may_be_where_we_are(fmlm: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    result = fmlm("../good.txt", out=".")
    assert result.exit_code == 0, result.output
    TokenStore.open(folder / "here")


# ---------------------------------------------------------------- processes

ENDS = {"SIGTERM": (143, "stopped by SIGTERM"), "SIGINT": (130, "stopped by Ctrl-C")}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
@pytest.mark.parametrize("finished", [0, 3])
def test_a_signal_stops_it_and_leaves_no_more_than_finished_parts(
    fmlm: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, flags: list[str], finished: int
) -> None:
    if flags:
        assert fmlm("good.txt", "--valid-fraction", 0.5).exit_code == 0
    assert fmlm("good.txt", out="whole").exit_code == 0
    before = listing(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    monkeypatch.setattr(encoding, "PART_CHARACTERS", 1000)
    add = Shard.add

    def add_or_stop(self: Shard, entry: Any) -> None:
        if len(self.entries) == finished:
            assert (folder / ".store.unfinished").is_dir()
            signal.raise_signal(signal.Signals[name])
        add(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "add", add_or_stop)
        result = fmlm("good.txt", "--workers", 1, *flags)
    code, said = ENDS[name]
    assert result.exit_code == code
    (line,) = result.stderr.splitlines()
    assert line.startswith(said)
    assert line.endswith("; the same command with --resume keeps what is finished")
    left = {path: what for path, what in listing(folder).items() if not path.startswith(".store.unfinished")}
    assert left == before
    assert len(list(folder.glob(".store.unfinished/parts/*"))) == finished
    assert (folder / ".store.unfinished").exists() == bool(finished)
    assert fmlm("good.txt", "--resume" if finished or not flags else "--overwrite").exit_code == 0
    assert listing(folder / "store") == listing(folder / "whole")
    assert not (folder / ".store.unfinished").exists()


def test_a_process_in_full_swing_is_stopped(
    tmp_path: Path, documents: list[str], wordpiece_folder: Path
) -> None:
    (tmp_path / "big.txt").write_text("\n".join(documents * 500))  # 30 MB: many seconds of work
    before = listing(tmp_path)
    words = ["tokenize", "big.txt", "--out", "store", "--tokenizer", str(wordpiece_folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "fmlm_cli", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": python_path()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        limit = time.monotonic() + 60
        journal = tmp_path / ".store.unfinished" / "journal.jsonl"
        while not (journal.is_file() and journal.stat().st_size):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < limit
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 143
        assert (
            errors.startswith("stopped by SIGTERM; nothing half-written was left") and errors.count("\n") == 1
        )
        left = [path for path in listing(tmp_path) if path not in before]
        assert left and all(path.startswith(".store.unfinished") for path in left)
        assert not (tmp_path / "store").exists()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("extra", [(), ("--add-tokens", "words")])
def test_a_tokenizer_that_makes_rust_panic_is_one_line(
    folder: Path, extra: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "b": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")  # gives up on what follows
    Path("bad.txt").write_text("a" * 40 + "b")
    Path("words").write_text("a" * 40 + "b")
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", mask_token="<mask>"
    ).save_pretrained("slow")
    before = sorted(Path().iterdir())
    source = "good.txt" if extra else "bad.txt"
    result = CliRunner().invoke(app, ["tokenize", source, "--tokenizer", "slow", "--out", "store", *extra])
    assert_refused(result, "cannot encode", "retry-limit", "choose another tokenizer")
    assert capfd.readouterr().err == ""
    assert sorted(Path().iterdir()) == before

"""`fmlm inspect` as it is typed: a store, or text that is to become one."""

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from tests.cli.refusals import assert_refused
from tests.conftest import MakeStore

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def inspect(*words: Any) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, words)], env={"COLUMNS": "200"})


def as_json(*words: Any) -> dict[str, Any]:
    result = inspect("--json", *words)
    assert result.exit_code == 0, result.output
    assert not result.stderr
    return json.loads(result.stdout)  # nothing but the object


@pytest.fixture
def texts(tmp_path: Path, documents: list[str]) -> Path:
    """A folder of text, and what is no text."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("\n\n".join(documents[:150]), encoding="utf-8")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents[150:])
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "c.pdf").write_bytes(b"%PDF-1.4 ...")
    (folder / "manifest.json").write_text('{"of": "something else"}')
    return folder


def test_a_store_is_shown(tiny_store: Path) -> None:
    result = inspect(tiny_store, "--verify", "--shown", 2)
    assert result.exit_code == 0, result.output
    assert not result.stderr
    assert result.stdout.count("\ndocument ") == 2
    for part in (
        "270",
        "30",
        "tokens per word",
        "all files have the contents that were written",
        "█",
        "of train",
    ):
        assert part in result.stdout, part


def test_bytes_of_characters_are_told_apart(
    make_store: MakeStore, documents: list[str], bpe_tokenizer: "PreTrainedTokenizerFast", tmp_path: Path
) -> None:
    """Byte-level BPE that has not learnt a character has a token for each of its bytes, none of them text."""
    store = make_store(tmp_path / "store", [*documents[30:60], "漢字仮名"], documents[:30], bpe_tokenizer)
    text = inspect(store, "--shown", 1).stdout
    table = text.partition("least frequent")[2].partition("document ")[0]
    bytes_shown = re.findall(r"'\ufffd+'(.*?)  ", table)
    assert len(bytes_shown) > 1 and len(set(bytes_shown)) == len(bytes_shown)


def test_what_is_shown_of_a_store_is_what_its_manifest_says(tiny_store: Path) -> None:
    manifest = json.loads((tiny_store / "manifest.json").read_text())
    shown = as_json(tiny_store, "--split", "validation", "--shown", 4, "--seed", 1)
    for name, split in shown["splits"].items():
        for count in ("documents", "words", "tokens", "text_bytes"):
            assert split[count] == manifest["splits"][name][count]
    assert shown["fingerprint"] == manifest["fingerprint"]
    assert not shown["verified"]
    assert len(shown["documents"]) == 4
    assert all(document["number"] < 30 for document in shown["documents"])
    others = as_json(tiny_store, "--split", "validation", "--shown", 4, "--seed", 2)["documents"]
    assert [d["number"] for d in others] != [d["number"] for d in shown["documents"]]


def test_damage_is_found_where_it_is_looked_for(tiny_store: Path, tmp_path: Path) -> None:
    store = shutil.copytree(tiny_store, tmp_path / "store")
    [file] = (store / "train").glob("*.arrow")
    content = bytearray(file.read_bytes())
    content[-200] ^= 1
    file.write_bytes(content)
    assert inspect(store).exit_code == 0
    assert_refused(inspect(store, "--verify"), str(file), "damaged store")


def test_text_is_shown_before_it_is_tokenized(texts: Path, documents: list[str]) -> None:
    result = inspect(texts)
    assert result.exit_code == 0, result.output
    for part in (
        "reading 2 files",
        "1 .pdf file",
        "document 3 of 3",
        "what it comes to",
        "learnt from the sample",
    ):
        assert part in result.stdout, part
    shown = as_json(texts, "--shown", 2)
    assert shown["whole"]
    assert shown["sampled"] == shown["estimate"]["documents"] == len(documents)
    assert shown["estimate"]["text_bytes"] == sum(len(text.encode()) for text in documents)
    assert shown["documents"][0] == documents[0]
    assert len(shown["documents"]) == 2


def test_the_estimate_is_near_what_tokenizing_gives(
    texts: Path, wordpiece_folder: Path, tmp_path: Path
) -> None:
    estimate = as_json(texts, "--tokenizer", wordpiece_folder)["estimate"]
    out = tmp_path / "store"
    words = ["tokenize", texts, "--tokenizer", wordpiece_folder, "--out", out]
    assert CliRunner().invoke(app, list(map(str, words))).exit_code == 0
    splits = as_json(out)["splits"].values()
    assert estimate["tokens"] == sum(split["tokens"] for split in splits)
    assert estimate["documents"] == sum(split["documents"] for split in splits)
    arrow = sum(path.stat().st_size for path in out.rglob("*.arrow"))
    assert estimate["bytes"] == pytest.approx(arrow, rel=0.2)  # documents as short as these have long indices


def test_a_store_is_inspected_alone(tiny_store: Path, texts: Path) -> None:
    assert_refused(inspect(tiny_store, texts), str(tiny_store), "token store", "alone")


def test_what_cannot_be_inspected_is_named(tmp_path: Path, tiny_store: Path) -> None:
    assert_refused(inspect(), "nothing to inspect")
    assert_refused(inspect(tmp_path / "nothing"), "nothing", "no such file")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    assert_refused(inspect(empty), str(empty), "no text")
    assert_refused(inspect(tiny_store, "--split", "test"), "--split test", "train and validation")


def test_a_store_that_lost_its_manifest_is_no_text(tiny_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(tiny_store, store)
    (store / ".fmlm.json").write_text('{"kind": "token store", "version": 1}')
    (store / "manifest.json").unlink()
    assert_refused(inspect(store), str(store), "manifest.json")

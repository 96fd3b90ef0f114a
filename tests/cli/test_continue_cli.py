"""`fmlm continue` as it is typed."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from transformers import BertConfig, BertModel
from typer.testing import CliRunner

import fmlm_cli
from fmlm_cli.cli.app import app
from fmlm_cli.corpus.store.reading import TokenStore
from tests.cli.refusals import assert_refused

SMALL = ["--set", "batch.size=4", "--set", "evaluation.max_rows=6", "--set", "sequence_length=32"]


@pytest.fixture(scope="module")
def encoder(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a head. Not to be written to."""
    folder = tmp_path_factory.mktemp("encoders") / "encoder"
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(
        **shape, max_position_embeddings=32, vocab_size=TokenStore.open(tiny_store).vocabulary
    )
    BertModel(config).save_pretrained(folder)
    for file in (tiny_store / "tokenizer").iterdir():
        shutil.copy(file, folder / file.name)
    return folder


def go_on(*words: Any) -> Result:
    return CliRunner().invoke(app, ["continue", *map(str, words), *SMALL])


def test_from_text_to_a_model(encoder: Path, tiny_store: Path, documents: list[str], tmp_path: Path) -> None:
    text, held_out = tmp_path / "text.txt", tmp_path / "held-out.txt"
    text.write_text("\n\n".join(documents[:80]))
    held_out.write_text("\n\n".join(documents[80:100]))
    out = tmp_path / "run"
    given = [
        "--from",
        encoder,
        "--data",
        text,
        "--valid",
        held_out,
        "--eval",
        f"general={tiny_store}",
        "--steps",
        4,
    ]
    result = go_on(*given, "--out", out, "--head-warmup", 2, "--keep-unused")
    assert result.exit_code == 0, result.output
    assert not result.stderr
    for said in (
        "token store",
        "has no masked-LM head",
        "kept beside the new weights",
        "before and after",
        "general",
        f"fmlm finetune --from {encoder} --from {out} --train train.jsonl --dev dev.jsonl --out {out}-tuned",
    ):
        assert said in result.stdout
    assert (tmp_path / "run.store" / "manifest.json").is_file()
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {record.get("evaluation") for record in records} == {None, "domain", "general"}
    again = go_on(*given, "--out", out, "--head-warmup", 2, "--keep-unused", "--resume")
    assert again.exit_code == 0, again.output
    assert "nothing to resume" in again.stdout
    configured = CliRunner().invoke(
        app, ["continue", str(out / "config.yaml"), "--out", str(tmp_path / "second")]
    )
    assert configured.exit_code == 0, configured.output


def test_a_run_decays_from_its_stable_part(encoder: Path, tiny_store: Path, tmp_path: Path) -> None:
    stable = ["--schedule", "wsd", "--set", "optimizer.decay_share=0", "--set", "checkpoint.every_steps=2"]
    first = go_on(
        "--from", encoder, "--data", tiny_store, "--steps", 4, "--out", tmp_path / "stable", *stable
    )
    assert first.exit_code == 0, first.output
    decay = ["--from", f"{tmp_path / 'stable'}@step-2", "--data", tiny_store, "--steps", 3, "--decay-only"]
    second = go_on(*decay, "--out", tmp_path / "decayed")
    assert second.exit_code == 0, second.output
    assert "from row 8 of the stream" in second.stdout
    saved = yaml.safe_load((tmp_path / "decayed" / "config.yaml").read_text())
    before = yaml.safe_load((tmp_path / "stable" / "config.yaml").read_text())
    assert saved["optimizer"]["learning_rate"] == before["optimizer"]["learning_rate"]
    assert (saved["optimizer"]["warmup_share"], saved["optimizer"]["decay_share"]) == (0, 1)


def test_refusals(encoder: Path, tiny_store: Path, tiny_bpe_store: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "run", "--steps", 2]
    start = ["--from", encoder]
    assert_refused(go_on("--data", tiny_store, *out), "no checkpoint: give --from")
    assert_refused(go_on(*start, *out), "no data: give --data")
    assert_refused(go_on(*start, "--data", tiny_store, "--data", "x.txt", *out), "x.txt is no store")
    assert_refused(go_on(*start, "--data", "x.txt", *out), "x.txt")
    assert_refused(go_on(*start, "--data", tiny_bpe_store, *out), "another tokenizer than")
    assert_refused(go_on(*start, "--data", tiny_store, "--decay-only", *out), "no state of an optimizer")
    assert_refused(go_on(*start, "--data", tiny_store, "--eval", "=x", *out), "write it as --eval name=store")
    assert_refused(go_on(*start, "--data", tiny_store, "--masking", "none", *out), "unknown masking strategy")
    assert_refused(go_on("--from", tmp_path / "nowhere", "--data", tiny_store, *out), "no such checkpoint")
    assert_refused(go_on(*start, "--data", tiny_store, "--revision", "main", *out), "revision")
    assert_refused(
        go_on("--data", tiny_store, *out, "--resume"), "is no run that went on from one): give --from"
    )
    assert not (tmp_path / "run").exists()


def test_a_run_of_pretrain_is_not_resumed_as_one_from_a_checkpoint(tiny_store: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "run"]
    words = ["pretrain", "--data", tiny_store, "--steps", 1, *out, "--set", "model.name=bert-tiny", *SMALL]
    assert CliRunner().invoke(app, list(map(str, words))).exit_code == 0
    assert_refused(go_on(*out, "--resume"), "give --from")


def test_a_run_is_resumed_without_its_checkpoint(encoder: Path, tiny_store: Path, tmp_path: Path) -> None:
    out = ["--steps", 1, "--out", tmp_path / "run"]
    assert go_on("--from", encoder, "--data", tiny_store, *out).exit_code == 0
    assert "nothing to resume" in go_on(*out, "--resume").stdout


def test_messages_about_text_name_flags_that_there_are() -> None:
    flags = {
        command: set(re.findall(r"--[a-z-]+", CliRunner().invoke(app, [command, "--help"]).output))
        for command in ("continue", "tokenize")
    }
    rooms = Path(fmlm_cli.__file__).parent
    for module in (
        *rooms.glob("corpus/text/**/*.py"),
        rooms / "recipes/tokenize/assembly.py",
        rooms / "recipes/tokenize/deciding.py",
    ):
        text = module.read_text()
        named = set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", text))
        for command, known in flags.items():
            assert named <= known, (module, command)


def test_pretrain_does_not_go_on_from_a_checkpoint(encoder: Path, tiny_store: Path, tmp_path: Path) -> None:
    words = [
        "pretrain",
        "--data",
        tiny_store,
        "--steps",
        1,
        "--out",
        tmp_path,
        "--set",
        f"model.checkpoint={encoder}",
    ]
    assert_refused(CliRunner().invoke(app, list(map(str, words))), "fmlm continue")

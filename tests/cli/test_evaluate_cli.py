"""`fmlm evaluate` as it is typed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from tests.cli.refusals import assert_refused

TINY = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


@pytest.fixture(scope="module")
def run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Not to be written to."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "config.json").write_text(json.dumps(TINY))
    words = ["--data", tiny_store, "--model", folder / "config.json", "--steps", 2, "--out", folder / "run"]
    small = ["--set", "batch.size=4", "--set", "evaluation.max_rows=6"]
    result = CliRunner().invoke(app, ["pretrain", *map(str, words), *small])
    assert result.exit_code == 0, result.output
    return folder / "run"


def evaluate(checkpoint: Any, store: Any, *words: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", "--from", str(checkpoint), "--data", str(store), *words])


def test_evaluation_is_the_runs_own(run: Path, tiny_store: Path) -> None:
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    for checkpoint in (run, run / "final", run / "checkpoints" / "step-2"):
        result = evaluate(checkpoint, tiny_store)
        assert result.exit_code == 0, result.output
        assert not result.stderr
        for shown in (f"{last['eval_loss']:.4f}", f"{last['unigram_loss']:.4f}", "6 of"):
            assert shown in result.stdout


def test_several_are_evaluated_on_the_same_rows(run: Path, small_encoder: Path, tiny_store: Path) -> None:
    words = [
        "evaluate",
        "--from",
        run,
        "--from",
        small_encoder,
        "--from",
        run / "final",
        "--data",
        tiny_store,
    ]
    shown = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "300"})
    assert shown.exit_code == 0, shown.output
    assert "minus the first" in shown.stdout and "6 of" in shown.stdout
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert result.exit_code == 0, result.output
    first, encoder, again = (json.loads(line) for line in result.stdout.splitlines())
    assert first["scores"] == again["scores"]
    for name in ("rows", "rows_of_split", "sequence_length", "packing"):
        assert first[name] == encoder[name]  # which has 64 positions of its own
    assert first["scores"]["unigram_loss"] == encoder["scores"]["unigram_loss"]
    assert f"{encoder['scores']['eval_loss'] - first['scores']['eval_loss']:+.4f}" in shown.stdout
    alone = CliRunner().invoke(app, [*map(str, ["evaluate", "--from", run, "--data", tiny_store]), "--json"])
    assert json.loads(alone.stdout) == first


def test_one_of_several_that_cannot_be_evaluated_is_named(
    run: Path, tiny_store: Path, tmp_path: Path
) -> None:
    words = ["evaluate", "--from", run, "--from", tmp_path / "nowhere", "--data", tiny_store]
    assert_refused(CliRunner().invoke(app, list(map(str, words))), "nowhere", "no such checkpoint")


def test_settings_reach_it(run: Path, tiny_store: Path) -> None:
    result = evaluate(
        run, tiny_store, "--set", "sequence_length=16", "--set", "max_rows=5", "--set", "packing=none"
    )
    assert result.exit_code == 0, result.output
    assert "5 of" in result.stdout
    assert "x 16, packing none" in result.stdout.replace("\n", " ")


def test_checkpoints_that_are_none(run: Path, tiny_store: Path, tmp_path: Path) -> None:
    assert_refused(evaluate(tmp_path / "nowhere", tiny_store), "no such checkpoint", "nowhere")
    assert_refused(evaluate("./nowhere", tiny_store), "no such checkpoint")
    assert_refused(evaluate(run / "checkpoints" / "step-9", tiny_store), "no such checkpoint")
    (tmp_path / "empty").mkdir()
    assert_refused(evaluate(tmp_path / "empty", tiny_store), "empty")
    assert_refused(evaluate(run / "final" / "model.safetensors", tiny_store), "model.safetensors")
    young = tmp_path / "young"
    young.mkdir()
    shutil.copy(run / "config.yaml", young)
    assert_refused(evaluate(young, tiny_store), "neither a final model nor a checkpoint", "--resume")


def test_damaged_checkpoints(run: Path, tiny_store: Path, tmp_path: Path) -> None:
    final = shutil.copytree(run / "final", tmp_path / "final")
    (final / "model.safetensors").write_bytes((run / "final" / "model.safetensors").read_bytes()[:-50])
    assert_refused(evaluate(final, tiny_store), "model.safetensors has changed since it was written")
    (final / "fmlm_hashes.json").unlink()
    assert_refused(evaluate(final, tiny_store), "cannot load")
    (final / "config.json").write_text("{")
    assert_refused(evaluate(final, tiny_store), "config.json")
    shutil.rmtree(final)
    shutil.copytree(run / "final", final)
    (final / "tokenizer.json").unlink()
    assert_refused(evaluate(final, tiny_store), "tokenizer.json is missing")
    (final / "fmlm_hashes.json").unlink()
    assert_refused(evaluate(final, tiny_store), "holds no tokenizer")


def test_stores(run: Path, tiny_store: Path, tiny_bpe_store: Path, tmp_path: Path, make_store: Any) -> None:
    assert_refused(evaluate(run, tiny_bpe_store), "another tokenizer", f"--tokenizer {run / 'final'}")
    assert_refused(evaluate(run, tmp_path / "nowhere"), "no such store")
    blind = make_store(tmp_path / "blind", ["the water and the river are long"])
    assert_refused(evaluate(run, blind), "no validation split", "--valid")
    store = shutil.copytree(tiny_store, tmp_path / "copy")
    (path,) = (store / "validation").glob("*.arrow")
    path.write_bytes(path.read_bytes()[:-9])
    assert_refused(evaluate(run, store), "damaged store")


def test_settings_that_cannot_be(run: Path, tiny_store: Path) -> None:
    assert_refused(evaluate(run, tiny_store, "--set", "sequence_lenght=8"), "did you mean 'sequence_length'?")
    assert_refused(evaluate(run, tiny_store, "--set", "sequence_length=64"), "32 positions")
    assert_refused(evaluate(run, tiny_store, "--set", "batch_size=0"), "batch_size")
    assert_refused(evaluate(run, tiny_store, "--set", "device=cuda:77"), "cuda:77")


def test_nothing_is_written(run: Path, tiny_store: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert evaluate(run, tiny_store).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_debug_shows_the_traceback(tiny_store: Path, tmp_path: Path) -> None:
    from fmlm_cli.errors import UserError

    result = evaluate(tmp_path / "nowhere", tiny_store, "--debug")
    assert result.exit_code == 1
    assert isinstance(result.exception, UserError)

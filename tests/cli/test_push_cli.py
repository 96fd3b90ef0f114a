"""`fmlm push` and `--push-to-hub` as they are typed, some in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.recipes.pretraining.run import pretrain
from tests.cli.refusals import assert_refused
from tests.environment import python_path
from tests.recipes.runs import RHYTHM, TINY, without_pictures
from tests.standin_hub import Hub, serving, user


@pytest.fixture(scope="module")
def finished(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has come to its end. Not to be written to."""
    root = tmp_path_factory.mktemp("finished")
    (root / "config.json").write_text(json.dumps(TINY))
    chosen = {
        "data.stores": [str(tiny_store)],
        "model.name": str(root / "config.json"),
        "out": str(root / "run"),
    }
    with without_pictures():
        return pretrain(build(PretrainSettings, nested({**chosen, **RHYTHM, "budget.steps": 3}))).run.root


def fmlm(*words: Any) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


def test_a_run_is_pushed_by_a_process(finished: Path, tmp_path: Path) -> None:
    """It takes the server for the Hub from its beginning, as HF_ENDPOINT has it."""
    content = Hub(users={"hf_x": user("somebody")})
    with serving(content) as endpoint:
        hub = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "hf_x",
        }
        done = subprocess.run(  # noqa: PLW1510, its code is looked at
            [sys.executable, "-m", "fmlm_cli", "push", str(finished), "my-bert", "--license", "mit"],
            env={**os.environ, **hub, "PYTHONPATH": python_path()},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    assert f"{endpoint}/somebody/my-bert (private)" in done.stdout
    assert not done.stderr  # no bar or advice of a library's
    assert "model.safetensors" in content.repositories["somebody/my-bert"].files


def test_a_preview_prints_the_card_alone_for_programs(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmlm_cli.hub.is_offline_mode", lambda: True)
    shown = fmlm("push", finished, "me/my-bert", "--dry-run", "--license", "mit", "--language", "en,de")
    assert shown.exit_code == 0, shown.output
    assert "would be uploaded to me/my-bert (private)" in shown.stdout and "model.safetensors" in shown.stdout
    card = ModelCard(shown.stdout[shown.stdout.index("---\n") :])
    assert (card.data.license, card.data.language) == ("mit", ["en", "de"])
    assert 'pipeline("fill-mask", "me/my-bert")' in shown.stdout
    assert "HF_HUB_OFFLINE is set" in shown.stderr + shown.stdout


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--license", "My License"], "'My License' is no licence's name on the Hub"),
        (["--language", "English"], "'English' is no code of a language"),
        ([], "nothing can be pushed to x now: HF_HUB_OFFLINE is set"),
    ],
)
def test_what_is_refused(
    words: list[str], part: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmlm_cli.hub.is_offline_mode", lambda: True)
    assert_refused(fmlm("push", finished, "x", *words), part)


@pytest.mark.parametrize("command", ["pretrain", "continue", "finetune"])
def test_training_asks_the_hub_before_it_begins(
    command: str, small_encoder: Path, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmlm_cli.hub.is_offline_mode", lambda: True)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"a {i}", "label": str(i % 2)}) + "\n" for i in range(9)))
    words = {
        "pretrain": ["--data", tiny_store, "--steps", "2"],
        "continue": ["--from", small_encoder, "--data", tiny_store, "--steps", "2"],
        "finetune": ["--from", small_encoder, "--train", rows, "--dev", rows],
    }[command]
    result = fmlm(command, *words, "--out", tmp_path / "out", "--push-to-hub", "me/x")
    assert_refused(result, "nothing can be pushed to me/x now: HF_HUB_OFFLINE is set")
    assert not (tmp_path / "out").exists()


def test_a_comparison_pushes_nothing(tiny_store: Path, tmp_path: Path) -> None:
    words = ["--data", tiny_store, "--budget", "2-steps", "--out", tmp_path / "out"]
    refused = fmlm("compare-masks", *words, "--set", "run.hub.push_to=me/x")
    assert_refused(refused, "run.hub.push_to: a comparison uploads no run")

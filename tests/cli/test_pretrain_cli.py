"""`fmlm pretrain` as it is typed: every mistake is one line that says what to do."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fmlm_cli import storage
from fmlm_cli.cli.app import app
from fmlm_cli.corpus.store.reading import STORE
from fmlm_cli.model.presets import PRESETS
from tests.cli.refusals import assert_refused

TINY = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine's peak speed takes longer than these runs."""
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TINY))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def call(tiny_store: Path, model: Path, run: Path) -> Call:
    """`call(*words)`: pretrain with these words; --data, --model, --steps and --out where they are not given."""

    def invoke(*words: Any, steps: int | None = 2, **options: Any) -> Result:
        given: dict[str, Any] = {"data": tiny_store, "model": model, "steps": steps, "out": run, **options}
        flags = [
            str(part) for name, value in given.items() if value is not None for part in (f"--{name}", value)
        ]
        small = ["--set", "batch.size=4", "--set", "evaluation.max_rows=4", "--set", "data.max_rows=8"]
        return CliRunner().invoke(app, ["pretrain", *small, *map(str, words), *flags])

    return invoke


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("words", [[], ["tokenize"], ["pretrain"], ["evaluate"]])
def test_help(words: list[str]) -> None:
    for flag in ("--help", "-h"):
        result = CliRunner().invoke(app, [*words, flag])
        assert result.exit_code == 0
        assert "Usage" in result.stdout
        assert not result.stderr


def test_help_names_every_flag() -> None:
    text = CliRunner().invoke(app, ["pretrain", "--help"], env={"COLUMNS": "200"}).stdout
    for flag in ("--data", "--model", "--masking", "--out", "--steps", "--tokens", "--epochs", "--seed", "--set",
                 "--resume", "--overwrite", "--debug"):  # fmt: skip
        assert flag in text


# ---------------------------------------------------------------- it works


def test_a_run(call: Call, run: Path) -> None:
    result = call("--seed", 3, "--masking", "random")
    assert result.exit_code == 0, result.output
    assert not result.stderr
    assert "held-out loss" in result.stdout
    assert "fmlm evaluate --from" in result.stdout
    assert (run / "final" / "model.safetensors").is_file()
    assert (run / "plots").is_dir()
    assert {path.name for path in run.iterdir()} == {
        ".fmlm.json", "config.yaml", "metrics.jsonl", "checkpoints", "final", "plots",
    }  # fmt: skip
    assert "strategy: random" in (run / "config.yaml").read_text()


def test_settings_flow_one_way(call: Call, run: Path, tmp_path: Path) -> None:
    """Defaults < YAML < flags < --set; a budget in a flag replaces the YAML's."""
    config = tmp_path / "given.yaml"
    config.write_text("seed: 5\nbudget: {epochs: 3}\noptimizer: {clip: 0.5, epsilon: 1.0e-4}\n")
    result = call(config, "--set", "optimizer.epsilon=1e-3", "--set", "seed=7", "--seed", 6)
    assert result.exit_code == 0, result.output
    import yaml

    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["seed"] == 7
    assert saved["budget"] == {"steps": 2, "tokens": None, "epochs": None, "minutes": None}
    assert (saved["optimizer"]["clip"], saved["optimizer"]["epsilon"]) == (0.5, 0.001)


def test_resume_starts_goes_on_and_ends(call: Call, run: Path) -> None:
    first = call("--resume")
    assert first.exit_code == 0, first.output
    weights = (run / "final" / "model.safetensors").read_bytes()
    shutil.rmtree(run / "final")
    bare = CliRunner().invoke(app, ["pretrain", "--resume", "--out", str(run)])  # the run knows its settings
    assert bare.exit_code == 0, bare.output
    assert "resuming after step 2 of 2" in bare.stdout
    assert (run / "final" / "model.safetensors").read_bytes() == weights
    again = CliRunner().invoke(app, ["pretrain", "--resume", "--out", str(run)])
    assert again.exit_code == 0
    assert "is finished: nothing to resume" in again.stdout.replace("\n", " ")


def test_overwrite_replaces_a_run(call: Call, run: Path) -> None:
    assert call().exit_code == 0
    assert call("--overwrite", "--seed", 1).exit_code == 0
    assert "seed: 1" in (run / "config.yaml").read_text()


# ---------------------------------------------------------------- mistakes


def copied(store: Path, folder: Path) -> Path:
    return Path(shutil.copytree(store, folder / "copy"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_stores_that_are_none(call: Call, run: Path, tmp_path: Path) -> None:
    assert_refused(call(data=tmp_path / "nowhere"), "no such store", "fmlm tokenize")
    (tmp_path / "folder").mkdir()
    assert_refused(call(data=tmp_path / "folder"), "is not a token store", "fmlm tokenize")
    assert_refused(call(data=__file__), "not")
    assert_refused(call(data=None), "--data STORE")
    assert not run.exists()


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize(
    "name",
    ["manifest.json", "token_counts.npy", "train/*.arrow", "validation/*.arrow", "tokenizer/tokenizer.json"],
)
def test_damaged_stores(
    call: Call, run: Path, tiny_store: Path, tmp_path: Path, name: str, cut: bool
) -> None:
    store = copied(tiny_store, tmp_path)
    (path,) = store.glob(name)
    if cut:
        path.write_bytes(path.read_bytes()[:-9])
    else:
        flip(path)
    assert_refused(call(data=store), str(store))
    assert not run.exists()


@pytest.mark.parametrize("name", ["token_counts.npy", "train", "tokenizer"])
def test_stores_with_something_missing(
    call: Call, run: Path, tiny_store: Path, tmp_path: Path, name: str
) -> None:
    store = copied(tiny_store, tmp_path)
    (shutil.rmtree if (store / name).is_dir() else os.unlink)(store / name)
    assert_refused(call(data=store), str(store))
    assert not run.exists()


def test_unknown_settings(call: Call, run: Path, tmp_path: Path) -> None:
    assert_refused(call("--set", "batch.sise=4"), "batch.sise", "did you mean 'batch.size'?")
    assert_refused(call("--set", "batch.size"), "--set name=value")
    assert_refused(call("--set", "batch.size=many"), "batch.size")
    config = tmp_path / "given.yaml"
    config.write_text("seed: 1\noptimizer:\n  lerning_rate: 1\n")
    assert_refused(call(config), f"{config}:3", "did you mean 'optimizer.learning_rate'?")
    config.write_text("seed: 1\nbatch:\n\n  size: none\n")
    assert_refused(call(config), f"{config}:4", "batch.size")
    config.write_text("seed: [1\n")
    assert_refused(call(config), f"{config}:", "not valid YAML")
    assert_refused(call(tmp_path / "nowhere.yaml"), "no such configuration file")
    assert not run.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no budget"),
        (["--steps", 3, "--epochs", 2], "--steps 3 and --epochs 2"),
        (["--tokens", 3e6, "--epochs", 2], "2 budgets"),
        (["--steps", 3, "--tokens", 5, "--epochs", 2], "3 budgets"),
        (["--steps", 0], "budget.steps"),
        (["--steps", -5], "budget.steps"),
        (["--tokens", 0], "budget.tokens"),
        (["--epochs", -1], "budget.epochs"),
        (["--epochs", "nan"], "budget.epochs"),
        (["--epochs", "inf"], "budget.epochs"),
        (["--tokens", "inf"], "budget.tokens"),
    ],
)
def test_budgets(call: Call, run: Path, words: list[Any], said: str) -> None:
    assert_refused(call(*words, steps=None), said)
    assert not run.exists()


def test_names_that_are_none(call: Call, run: Path, tmp_path: Path) -> None:
    assert_refused(call(model="bert-minni"), "did you mean 'bert-mini'?", *PRESETS)
    assert_refused(call(model=tmp_path / "nowhere" / "config.json"), "no such model configuration")
    assert_refused(call("--masking", "fuly-explored"), "did you mean 'fully-explored'?", "random")
    assert_refused(call("--set", "device=toaster"), "toaster", "cpu")
    assert not run.exists()


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("sequence_length=33", "32 positions"),
        ("sequence_length=2", "no room"),
        ("masking.segments=1", "at least 2"),
        ("masking.rate=0.3", "nearest"),
        ("masking.corruption.mask=0.5", "must be 1"),
        ("masking.masks_per_sequence=3", "masks_per_sequence"),
        ("batch={size: 10}", "batch.size"),
        ("seed=-1", "seed"),
        ("optimizer.learning_rate=-1", "optimizer.learning_rate"),
        ("data.packing=tight", "data.packing"),
    ],
)
def test_settings_that_cannot_be(call: Call, run: Path, assignment: str, said: str) -> None:
    words = ["--set", "masking.scope=batch"] if "10" in assignment else []
    assert_refused(call("--set", assignment, *words), said)
    assert not run.exists()


def test_output_folders(call: Call, run: Path, tmp_path: Path) -> None:
    run.mkdir()
    (run / "thesis.txt").write_text("precious")
    for words in ([], ["--overwrite"], ["--resume"]):
        assert_refused(call(*words), "is not empty, and fmlm did not make it (it has no .fmlm.json)")
    assert [path.read_text() for path in run.iterdir()] == ["precious"]
    assert_refused(call(out=run / "thesis.txt"), "is a file")
    assert_refused(call(out=run / "thesis.txt" / "run"), "thesis.txt")
    assert_refused(call(out=None), "--out RUN")
    assert (run / "thesis.txt").read_text() == "precious"


def test_a_finished_run_is_not_overwritten_by_accident(call: Call, run: Path) -> None:
    assert call().exit_code == 0
    weights = (run / "final" / "model.safetensors").stat().st_mtime_ns
    assert_refused(call(), "is not empty", "--resume", "--overwrite")
    assert_refused(call("--resume", "--seed", 4), "seed 0, not 4")
    assert_refused(call("--resume", "--set", "model.dropout=0.1"), "model.dropout 0.0, not 0.1")
    assert_refused(call("--overwrite", "--masking", "none-such"), "unknown masking strategy")
    assert (run / "final" / "model.safetensors").stat().st_mtime_ns == weights


def test_the_store_is_not_overwritten(call: Call, tiny_store: Path, tmp_path: Path) -> None:
    store = copied(tiny_store, tmp_path)
    assert_refused(call("--overwrite", data=store, out=store), "fmlm did not make it")
    with storage.owned_folder(tmp_path / "marked", STORE):
        shutil.copytree(tiny_store, tmp_path / "marked", dirs_exist_ok=True)
    for words in ([], ["--overwrite"], ["--resume"]):
        assert_refused(call(*words, data=store, out=tmp_path / "marked"), "is a token store, not a run")
    assert (store / "manifest.json").is_file()


def test_a_store_inside_the_run_is_not_overwritten(call: Call, run: Path, tiny_store: Path) -> None:
    assert call().exit_code == 0
    store = shutil.copytree(tiny_store, run / "store")
    assert_refused(call("--overwrite"), "also holds what fmlm did not make (store)")
    shutil.rmtree(run / "plots")
    store = store.rename(run / "plots")
    assert_refused(call("--overwrite", data=store), str(store), "inside")
    assert (store / "manifest.json").is_file()
    assert (run / "final").is_dir()


def test_a_link_and_the_working_folder_are_outputs_too(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    for words in ([], ["--overwrite"]):
        assert call(*words, out=tmp_path / "link").exit_code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "final").is_dir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for words in ([], ["--overwrite"]):
        assert call(*words, out=".").exit_code == 0
    assert (tmp_path / "here" / "final").is_dir()


def test_debug_shows_the_traceback(call: Call, run: Path, tmp_path: Path) -> None:
    from fmlm_cli.errors import UserError

    result = call("--debug", data=tmp_path / "nowhere")
    assert result.exit_code == 1
    assert isinstance(result.exception, UserError)  # which Python prints with its traceback
    assert not run.exists()


def test_a_config_in_a_runs_folder_means_that_run(call: Call, run: Path, tmp_path: Path) -> None:
    assert call().exit_code == 0
    moved = run.rename(tmp_path / "moved")
    config = moved / "config.yaml"
    again = call(config, "--resume", out=None)
    assert again.exit_code == 0, again.output
    assert "is finished: nothing to resume" in again.stdout
    assert_refused(call(config, out=None), "moved is not empty", "--resume")
    assert not run.exists()
    copy = tmp_path / "config.yaml"  # beside no run: it means what it says
    shutil.copy(config, copy)
    assert call(copy, out=None).exit_code == 0
    assert (run / "final").is_dir()

"""Code that checkpoints bring: named, then run only if trusted, and never where transformers has its own."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from transformers import BertConfig, BertForMaskedLM, BertModel, dynamic_module_utils

from fmlm_cli import hub
from fmlm_cli.errors import UserError
from fmlm_cli.model.build import save_model
from tests.model.checkpoints import BERT, SIZE, TOKENS, assert_holds, change_config, load, refused, saved

CONFIGURATION = """
from transformers import BertConfig

class BirdConfig(BertConfig):
    model_type = "bird"
"""
MODELING = """
from transformers import BertForMaskedLM

from .configuration_bird import BirdConfig
from .wings import flap

flap()

class BirdForMaskedLM(BertForMaskedLM):
    config_class = BirdConfig
"""
FILES = ("configuration_bird.py", "modeling_bird.py", "wings.py")
AUTO_MAP = {
    "AutoConfig": "configuration_bird.BirdConfig",
    "AutoModelForMaskedLM": "modeling_bird.BirdForMaskedLM",
}


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Modules that transformers copies, and what comes of importing them, go with the test."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that the code makes when it is imported."""
    return tmp_path / "flapped"


def write_code(folder: Path, mark: Path) -> None:
    wings = f"def flap():\n    open({str(mark)!r}, 'a').close()\n"
    for file, text in zip(FILES, (CONFIGURATION, MODELING, wings), strict=True):
        (folder / file).write_text(text)
    (folder / "unrelated.py").write_text("raise SystemExit")


def bird(folder: Path, mark: Path, *, auto_map: Any = AUTO_MAP, **changes: Any) -> Path:
    """BERT under a name that transformers does not know, with the code for it."""
    saved(BertForMaskedLM(BERT), folder, model_type="bird", auto_map=auto_map, **changes)
    write_code(folder, mark)
    return folder


def test_it_does_not_run_untrusted(tmp_path: Path, mark: Path) -> None:
    folder = bird(tmp_path / "bird", mark)
    said = refused(folder)
    assert said == (
        f"given brings code of its own for its type 'bird' ({', '.join(FILES)}): read it, then "
        "--trust-remote-code runs it"
    )
    for file in FILES:
        (folder / file).unlink()  # as of a Hub name, whose code is not fetched unless it is trusted
    assert "(configuration_bird.py, modeling_bird.py)" in refused(folder)
    assert not mark.exists()
    assert not (tmp_path / "modules").exists()


def test_it_runs_trusted_once_it_was_named(tmp_path: Path, mark: Path) -> None:
    heard: list[str] = []

    def announce(text: str) -> None:
        heard.append(text)
        assert not mark.exists()
        assert not (tmp_path / "modules").exists()

    folder = bird(tmp_path / "bird", mark)
    before = torch.random.get_rng_state()
    loaded = load(folder, trust_remote_code=True, announce=announce)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert heard == [f"running the code that given brings: {', '.join(FILES)} (in {folder})"]
    assert mark.exists()
    assert loaded.code == FILES
    assert (loaded.new, loaded.unused) == ((), ())
    assert type(loaded.model).__name__ == "BirdForMaskedLM"
    assert loaded.model.dtype == torch.float32
    assert_holds(loaded.model, BertForMaskedLM.from_pretrained(folder, config=BERT).state_dict())


def test_what_is_saved_brings_the_code_too(tmp_path: Path, mark: Path) -> None:
    loaded = load(bird(tmp_path / "bird", mark), trust_remote_code=True).model
    save_model(loaded, tmp_path / "saved", {})
    assert {path.name for path in (tmp_path / "saved").glob("*.py")} == set(FILES)
    assert "--trust-remote-code" in refused(tmp_path / "saved")
    again = load(tmp_path / "saved", trust_remote_code=True)
    assert again.code == FILES
    assert torch.equal(again.model(TOKENS).logits, loaded(TOKENS).logits)


def test_a_new_head_of_its_own_code(tmp_path: Path, mark: Path) -> None:
    folder = bird(tmp_path / "bird", mark, tie_word_embeddings=False)
    BertModel(BertConfig(**SIZE)).save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").replace(folder / "model.safetensors")
    loaded = load(folder, trust_remote_code=True)
    assert len(loaded.new) == 5
    assert loaded.tied_anew
    assert loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight
    torch.rand(3)
    assert_holds(loaded.model, load(folder, trust_remote_code=True).model.state_dict())


def test_code_of_another_repository(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named with the commit that runs."""
    commit = "a" * 40
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    auto_map = {key: f"owner/code--{value}" for key, value in AUTO_MAP.items()}
    folder = bird(tmp_path / "bird", mark, auto_map=auto_map)
    for file in FILES:
        (folder / file).unlink()
    assert "(owner/code/configuration_bird.py, owner/code/modeling_bird.py)" in refused(folder)
    with pytest.raises(UserError, match="'owner/code' is no local folder, not in the Hub's local cache"):
        load(folder, trust_remote_code=True)

    repository = tmp_path / "cache" / "models--owner--code"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    write_code(repository / "snapshots" / commit, mark)
    heard: list[str] = []
    loaded = load(folder, trust_remote_code=True, announce=heard.append)
    assert loaded.code == tuple(f"owner/code@{commit}/{file}" for file in FILES)
    assert all(file in heard[0] for file in loaded.code)
    save_model(loaded.model, tmp_path / "saved", {})
    assert load(tmp_path / "saved", trust_remote_code=True).code == FILES


def test_transformers_own_code_is_preferred(tmp_path: Path, mark: Path) -> None:
    folder = bird(tmp_path / "bird", mark)
    change_config(folder, model_type="bert")
    for trust in (False, True):
        loaded = load(folder, trust_remote_code=trust, announce=pytest.fail)
        assert type(loaded.model) is BertForMaskedLM
        assert loaded.code == ()
    change_config(folder, num_hidden_layers=3)
    said = refused(folder, trust_remote_code=True)
    assert "lacks weights of the encoder" in said
    assert "it was made for code of its own, but fmlm runs transformers' where there is some" in said
    assert not mark.exists()


@pytest.mark.parametrize(
    ("auto_map", "says"),
    [
        (
            {"AutoConfig": AUTO_MAP["AutoConfig"]},
            "not what this needs (its auto_map has no AutoModelForMaskedLM)",
        ),
        ({"AutoModelForMaskedLM": "a.B"}, "not what this needs (its auto_map has no AutoConfig)"),
        ("modeling_bird.BirdForMaskedLM", "not what this needs"),
        (
            {**AUTO_MAP, "AutoConfig": "../bird.Bird"},
            "auto_map.AutoConfig is '../bird.Bird', not a module.Class",
        ),
        ({**AUTO_MAP, "AutoConfig": "a/b/c--bird.Bird"}, "not a module.Class"),
        ({**AUTO_MAP, "AutoConfig": "bird"}, "not a module.Class"),
        ({**AUTO_MAP, "AutoConfig": 3}, "not a module.Class"),
    ],
)
def test_an_auto_map_that_will_not_do(auto_map: Any, says: str, tmp_path: Path, mark: Path) -> None:
    folder = bird(tmp_path / "bird", mark, auto_map=auto_map)
    for trust in (False, True):
        assert says in refused(folder, trust_remote_code=trust, announce=pytest.fail)


@pytest.mark.parametrize(
    ("file", "code", "says"),
    [
        ("modeling_bird.py", "raise RuntimeError('a\\nb')", "the code that given brings failed: a"),
        ("modeling_bird.py", "import no_such_package", "no_such_package"),
        ("modeling_bird.py", "class Other: ...", "BirdForMaskedLM"),
        ("modeling_bird.py", "class BirdForMaskedLM: ...", "failed"),
        ("modeling_bird.py", "from .none import x", "none"),
        ("configuration_bird.py", "class BirdConfig(", "failed"),
        ("wings.py", None, "wings"),
        ("modeling_bird.py", None, "modeling_bird"),
    ],
)
def test_code_that_fails(file: str, code: str | None, says: str, tmp_path: Path, mark: Path) -> None:
    folder = bird(tmp_path / "bird", mark)
    if code is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(code)
    assert says in refused(folder, trust_remote_code=True)


def test_models_of_other_kinds_are_refused_here_too(tmp_path: Path, mark: Path) -> None:
    folder = bird(tmp_path / "bird", mark, is_decoder=True)
    assert "'is_decoder' makes a causal model of this 'bird'" in refused(folder, trust_remote_code=True)


def test_a_type_that_nobody_knows(tmp_path: Path, mark: Path) -> None:
    for auto_map in (None, {}, []):
        folder = bird(tmp_path / "bird", mark, auto_map=auto_map)
        assert "transformers cannot read a 'bird' configuration" in refused(folder, trust_remote_code=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": ["bird"], "auto_map": AUTO_MAP}))
    assert "given/config.json" in refused(folder)
    assert not mark.exists()

"""A model of fmlm's is found as it was written, or not at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested, to_yaml
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event
from fmlm_cli.recipes import pretraining
from fmlm_cli.recipes.shared.checkpoints import Origin, find_checkpoint, hub_base
from tests.recipes.runs import RHYTHM, TINY, without_pictures


@pytest.fixture(scope="module")
def run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> storage.RunDirectory:
    """A finished run. Whoever writes to it has to leave it as it was."""
    root = tmp_path_factory.mktemp("finished")
    (root / "config.json").write_text(json.dumps(TINY))
    fixed = {
        "data.stores": [str(tiny_store)],
        "model.name": str(root / "config.json"),
        "out": str(root / "run"),
    }
    with without_pictures():
        tree = nested({**fixed, **RHYTHM, "budget.steps": 4, "checkpoint.keep": 2})
        return pretraining.pretrain(build(PretrainSettings, tree)).run


def final(run: storage.RunDirectory) -> tuple[str, Path]:
    return str(run.root), run.final


def step(run: storage.RunDirectory) -> tuple[str, Path]:
    return f"{run.root}@step-3", run.checkpoints / "step-3"


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("which", [final, step])
def test_a_byte_that_changed_is_noticed(
    run: storage.RunDirectory, which: Callable[[storage.RunDirectory], tuple[str, Path]], data: st.DataObject
) -> None:
    name, folder = which(run)
    apart = ("README.md", "optimizer.safetensors")
    path = data.draw(st.sampled_from(sorted(p for p in folder.iterdir() if p.name not in apart)))
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    sealed = path.name in (storage.HASHES, "state.json")
    try:
        path.write_bytes(changed)
        for asked in (name, str(folder)):
            try:
                find_checkpoint(asked)
            except UserError as error:
                assert path.name in str(error) and "\n" not in str(error)
            else:
                assert sealed and json.loads(changed) == json.loads(whole)  # a blank became another
    finally:
        path.write_bytes(whole)
    find_checkpoint(name)


def test_a_model_that_another_tool_saved_anew(run: storage.RunDirectory, tmp_path: Path) -> None:
    """Refused by a line that names the file to delete; without that file it is any model."""
    folder = shutil.copytree(run.final, tmp_path / "final")
    tensors = {name: tensor + 1 for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    says = f"model.safetensors has changed since it was written: .*delete {folder / 'fmlm_hashes.json'} if"
    with pytest.raises(UserError, match=says):
        find_checkpoint(str(folder))
    (folder / "fmlm_hashes.json").unlink()
    assert find_checkpoint(str(folder)).folder == folder


def test_a_card_may_be_written_on(run: storage.RunDirectory, tmp_path: Path) -> None:
    folder = shutil.copytree(run.final, tmp_path / "final")
    (folder / "README.md").write_text("# Mine")
    (folder / "notes.txt").write_text("mine too")
    assert find_checkpoint(str(folder)).folder == folder


def test_transformers_passes_the_hashes_over(run: storage.RunDirectory) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    AutoTokenizer.from_pretrained(run.final)
    _, report = AutoModelForMaskedLM.from_pretrained(run.final, output_loading_info=True)
    assert not any(report.values())


# ---------------------------------------------------------------- folders of other tools


@pytest.mark.parametrize("inner", ["0_Transformer", "0_BERT", ""])
def test_a_sentence_encoders_model_is_found(inner: str, small_encoder: Path, tmp_path: Path) -> None:
    shutil.copytree(small_encoder, tmp_path / "sentences" / inner)
    modules = [{"idx": 0, "name": "0", "path": inner}, {"idx": 1, "name": "1", "path": "1_Pooling"}]
    (tmp_path / "sentences" / "modules.json").write_text(json.dumps(modules))
    if inner:
        (tmp_path / "sentences" / "config.json").write_text('{"__version__": "0.3.8"}')
    found = find_checkpoint(str(tmp_path / "sentences"))
    assert found.folder == tmp_path / "sentences" / inner
    assert found.after_model == ("1_Pooling",)
    assert find_checkpoint(str(small_encoder)).after_model == ()


@pytest.mark.parametrize("path", ["..", "/", "../other", "0_Transformer/../..", "none"])
def test_nothing_is_looked_for_outside_a_folder(path: str, small_encoder: Path, tmp_path: Path) -> None:
    shutil.copytree(small_encoder, tmp_path / "other")
    (tmp_path / "sentences").mkdir()
    (tmp_path / "sentences" / "modules.json").write_text(json.dumps([{"path": path}]))
    with pytest.raises(UserError, match=r"sentences holds no model \(no config\.json\)"):
        find_checkpoint(str(tmp_path / "sentences"))
    (tmp_path / "sentences" / "config.json").write_text("{}")
    assert find_checkpoint(str(tmp_path / "sentences")).folder == tmp_path / "sentences"


@pytest.mark.parametrize("content", ["{", "[]", "{}", "[1]", "null"])
def test_damaged_modules(content: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(UserError, match=r"modules\.json.* damaged"):
        find_checkpoint(str(tmp_path))


def adapter_for(base: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    settings = {"peft_type": "LORA", "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_an_adapter_is_found_with_its_model(
    run: storage.RunDirectory, small_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its whole name, beside the adapter, or where the command runs; a run of fmlm's stands for its own."""
    shutil.copytree(small_encoder, tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    for number, base in enumerate((str(small_encoder), "../../base", "base", str(run.root))):
        folder = adapter_for(base, tmp_path / "adapters" / str(number))
        origin = find_checkpoint(str(folder))
        assert origin.adapter == folder and origin.name == str(folder)
        assert origin.run is None and origin.training is None
        assert (origin.folder / "model.safetensors").is_file()
        assert origin.tokenizer_folder == origin.folder
        (folder / "tokenizer_config.json").write_text("{}")
        assert origin.tokenizer_folder == folder


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("./nowhere", "no such checkpoint: ./nowhere"),
        ("some/model", "is an adapter for 'some/model', .*HF_HUB_OFFLINE is set: give a local folder"),
        (".", "is an adapter too"),
        ("../second", "is an adapter too"),
    ],
)
def test_an_adapter_whose_model_is_not_there(
    base: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmlm_cli.hub.is_offline_mode", lambda: True)
    adapter_for("../first", tmp_path / "second")
    folder = adapter_for(base, tmp_path / "first")
    with pytest.raises(UserError, match=says) as caught:
        find_checkpoint(str(folder))
    assert str(caught.value).startswith(
        f"{folder} is an adapter for '{base}', as its adapter_config.json says:"
    )


def test_a_checkpoint_in_place_of_a_finished_model_is_told(run: storage.RunDirectory, tmp_path: Path) -> None:
    """And nothing is told of what was asked for by its own name, or is finished."""
    told: list[Event] = []
    unfinished = shutil.copytree(run.root, tmp_path / "unfinished", ignore=shutil.ignore_patterns("final"))
    last = unfinished / "checkpoints" / "step-4"
    for name in (run.root, f"{unfinished}@step-3", last):
        find_checkpoint(str(name), emit=told.append)
    assert told == []
    assert find_checkpoint(str(unfinished), emit=told.append).folder == last
    assert told == [Caution(f"{unfinished} is not finished: its checkpoint step-4 is taken")]


def test_what_can_be_done_about_a_damaged_model(run: storage.RunDirectory, tmp_path: Path) -> None:
    """In its run it can be made again; a copy elsewhere cannot."""
    copy = shutil.copytree(run.final, tmp_path / "copy")
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(
        UserError, match=r"since it was written: copy it again from where it was made; or delete"
    ):
        find_checkpoint(str(copy))
    whole = (run.final / "model.safetensors").read_bytes()
    try:
        (run.final / "model.safetensors").write_bytes(whole[:-1] + b"x")
        with pytest.raises(UserError, match=f"remove {run.final}, and --resume makes it again; or delete"):
            find_checkpoint(str(run.root))
    finally:
        (run.final / "model.safetensors").write_bytes(whole)


def test_the_model_of_the_hub_that_a_checkpoint_descends_from(tmp_path: Path) -> None:
    def settings_of(name: str, checkpoint: str | None, revision: str | None = None) -> PretrainSettings:
        tree = nested(
            {"model.checkpoint": checkpoint, "model.revision": revision, "out": str(tmp_path / name)}
        )
        settings = build(PretrainSettings, tree)
        storage.write_text(tmp_path / name / storage.RUN_CONFIG, to_yaml(settings))
        return settings

    for name in ("first", "second", "third", "scratch", "loop"):
        (tmp_path / name).mkdir()
    first = settings_of("first", "google/bert", "abc")
    second = settings_of("second", f"{tmp_path}/first@step-9")
    third = settings_of("third", f"{tmp_path}/second/final")
    scratch, loop = settings_of("scratch", None), settings_of("loop", f"{tmp_path}/loop")
    assert hub_base(Origin("google/bert", tmp_path, revision="abc")) == "google/bert"
    found = [hub_base(Origin("x", tmp_path, settings=each)) for each in (first, second, third, scratch, loop)]
    assert found == ["google/bert", "google/bert", "google/bert", None, None]
    assert hub_base(Origin("x", tmp_path)) is None
    shutil.rmtree(tmp_path / "first")
    assert hub_base(Origin("x", tmp_path, settings=third)) is None

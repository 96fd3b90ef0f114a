"""Finished models become repositories of a small server in the Hub's place, and load from there."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForMaskedLM, AutoTokenizer

from fmlm_cli import hub
from fmlm_cli.config import PretrainSettings, PushSettings, build, nested
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event, Facts, Note
from fmlm_cli.recipes import publishing
from fmlm_cli.recipes.pretraining.run import pretrain
from fmlm_cli.recipes.publishing.finding import find_finished
from tests.recipes.publishing.conftest import TOKEN
from tests.recipes.runs import RHYTHM, TINY, Settings, at_step, raise_error, without_pictures
from tests.standin_hub import Hub, Repository, user

UPLOADED = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def finished(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has come to its end. Not to be written to."""
    root = tmp_path_factory.mktemp("finished run")
    (root / "model").mkdir()
    (root / "model" / "config.json").write_text(json.dumps(TINY))
    changed = {
        "data.stores": [str(tiny_store)],
        "model.name": str(root / "model"),
        "out": str(root / "a run"),
    }
    settings = build(PretrainSettings, nested({**changed, **RHYTHM, "budget.steps": 4}))
    with without_pictures():
        return pretrain(settings).run.root


def asked(run: Path, name: str = "my-bert", **settings: Any) -> PushSettings:
    return PushSettings(run=str(run), name=name, **settings)


def told_of(settings: PushSettings) -> list[Event]:
    told: list[Event] = []
    publishing.push(settings, emit=told.append)
    return told


def refused(settings: PushSettings) -> str:
    with pytest.raises(UserError) as caught:
        publishing.push(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- what is uploaded


def test_a_run_is_uploaded_in_one_commit_and_loads_as_it_is(finished: Path, served: Hub) -> None:
    told = told_of(asked(finished, license="mit", language=("en", "de")))
    repository = served.repositories["somebody/my-bert"]
    assert repository.private and set(repository.files) == UPLOADED
    assert len(served.messages) == 1
    final = finished / "final"
    for name in UPLOADED - {"README.md"}:
        assert repository.files[name] == (final / name).read_bytes()
    [facts] = [event for event in told if isinstance(event, Facts)]
    assert facts.rows["repository"] == f"{served.endpoint}/somebody/my-bert (private)"
    mine = AutoModelForMaskedLM.from_pretrained(final)
    theirs = AutoModelForMaskedLM.from_pretrained("somebody/my-bert")
    text = AutoTokenizer.from_pretrained("somebody/my-bert")("the river", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(mine(**text).logits, theirs(**text).logits)


def test_nothing_of_this_machine_is_in_what_is_uploaded(finished: Path, served: Hub) -> None:
    publishing.push(asked(finished))
    for name, content in served.repositories["somebody/my-bert"].files.items():
        for place in (str(finished.parent), finished.parent.name, str(Path.home()), str(Path.cwd())):
            assert place.encode() not in content, f"{place} in {name}"


def test_the_card_is_the_repositorys(finished: Path, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    publishing.push(asked(finished, "lab/my-bert", license="apache-2.0", language=("en,deu",)))
    text = served.repositories["lab/my-bert"].files["README.md"].decode()
    card = ModelCard(text)
    assert (card.data.license, card.data.language) == ("apache-2.0", ["en", "deu"])
    assert card.data.model_name == "my-bert" and card.data.pipeline_tag == "fill-mask"
    results = {
        (result.dataset_split, result.metric_type): result.metric_value for result in card.data.eval_results
    }
    last = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert results["validation", "loss"] == pytest.approx(last["eval_loss"], abs=1e-4)
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "lab/my-bert" in code and "PATH" not in text and "arXiv" in text
    namespace: dict[str, Any] = {}
    exec(code, namespace)  # as somebody does who has found it on the Hub
    # The local one is still for a folder, and names neither.
    assert "PATH/OF/THIS/FOLDER" in (finished / "final" / "README.md").read_text()


def test_logs_go_with_it_only_when_asked_for(finished: Path, served: Hub) -> None:
    (finished / "plots").mkdir(exist_ok=True)
    publishing.push(asked(finished, logs=True))
    files = served.repositories["somebody/my-bert"].files
    assert set(files) == UPLOADED | {"metrics.jsonl"}
    assert files["metrics.jsonl"] == (finished / "metrics.jsonl").read_bytes()


def test_a_second_push_leaves_what_others_put_there_and_takes_away_the_old_model(
    finished: Path, served: Hub
) -> None:
    old = {"model-00001-of-00002.safetensors", "model.safetensors.index.json", "vocab.txt", "finetuned.json"}
    others = {"onnx/model.onnx", "notes.md", ".gitattributes", "onnx/vocab.txt", "plots/a.json"}
    served.repositories["somebody/my-bert"] = Repository(dict.fromkeys([*old, *others], b"x"), private=True)
    publishing.push(asked(finished))
    assert set(served.repositories["somebody/my-bert"].files) == UPLOADED | others
    assert len(served.messages) == 1


def test_public_only_when_said(finished: Path, served: Hub) -> None:
    publishing.push(asked(finished))
    assert served.repositories["somebody/my-bert"].private
    publishing.push(asked(finished, public=True))
    assert not served.repositories["somebody/my-bert"].private
    said, before = refused(asked(finished)), len(served.messages)
    assert "is there, and public: say --public too" in said and len(served.messages) == before
    publishing.push(asked(finished, "new", public=True))
    assert served.written[-1] == "PUT /api/models/somebody/new/settings"  # private until all is there
    assert not served.repositories["somebody/new"].private
    served.broken = "commit"
    refused(asked(finished, "half", public=True))
    assert served.repositories["somebody/half"].private


def test_files_of_others_stay_here_and_it_is_said(finished: Path, served: Hub, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(finished / "final", copy)
    (copy / "onnx").mkdir()
    (copy / "onnx" / "model.onnx").write_text("x")
    (copy / "secrets.env").write_text("x")
    told = told_of(asked(copy, license="mit"))
    assert set(served.repositories["somebody/my-bert"].files) == UPLOADED
    notes = [event.text for event in told if isinstance(event, Note)]
    assert notes == ["not uploaded, as it is no part of what fmlm made: onnx/model.onnx, secrets.env"]


def test_a_card_without_a_licence_is_told_of(finished: Path, served: Hub) -> None:
    notes = [event.text for event in told_of(asked(finished)) if isinstance(event, Note)]
    assert notes == ["the card names no licence, without which others may not use the model: see --license"]


def test_the_users_own_words_in_the_card_stay(finished: Path, served: Hub, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(finished / "final", copy)
    (copy / "README.md").write_text("---\nlicense: mit\nthumbnail: a.png\n---\nMine: PATH/OF/THIS/FOLDER\n")
    publishing.push(asked(copy, language=("en",)))
    card = ModelCard(served.repositories["somebody/my-bert"].files["README.md"].decode())
    assert card.data.to_dict() == {"license": "mit", "thumbnail": "a.png", "language": ["en"]}
    assert card.text.strip() == "Mine: somebody/my-bert"
    (copy / "README.md").write_text("---\nlicense: [\n---\n")
    assert "README.md: its front matter cannot be read" in refused(asked(copy))
    (copy / "README.md").write_bytes(b"\xff")
    assert "README.md is not in UTF-8" in refused(asked(copy))


# ---------------------------------------------------------------- what is not


def test_what_is_no_finished_model(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_answers", lambda: pytest.fail("the Hub was asked"))
    stopped = tmp_path / "stopped"
    shutil.copytree(finished, stopped)
    shutil.rmtree(stopped / "final")
    assert "is not finished: train it to its end with --resume" in refused(asked(stopped))
    step = next((finished / "checkpoints").iterdir())
    for name in (str(step), f"{finished}@{step.name}"):
        assert "is a checkpoint in the middle of a run: give" in refused(PushSettings(run=name, name="x"))
    assert "no such folder" in refused(asked(tmp_path / "none"))
    plain = tmp_path / "plain"
    shutil.copytree(finished / "final", plain)
    (plain / "fmlm_hashes.json").unlink()
    assert "is no finished model of fmlm's" in refused(asked(plain))
    copy = tmp_path / "copy"
    shutil.copytree(finished / "final", copy)
    assert "has no metrics.jsonl of a run" in refused(asked(copy, logs=True))


def test_a_damaged_model_is_not_uploaded(finished: Path, served: Hub, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(finished / "final", copy)
    (copy / "config.json").write_text("{}")
    assert "config.json has changed since it was written" in refused(asked(copy))
    (copy / "config.json").unlink()
    assert "config.json is missing" in refused(asked(copy))
    shutil.copy(finished / "final" / "config.json", copy)
    (copy / "README.md").unlink()
    assert "has lost its card" in refused(asked(copy))
    assert not served.written


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "a b", "../x", "./x", "-x", "x.git", "a--b", "/x", "x/", "ü", "x" * 97]
)
def test_names_that_the_hub_cannot_have(name: str, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_answers", lambda: pytest.fail("the Hub was asked"))
    assert "is no name that a model could have on the Hub" in refused(asked(finished, name))


def test_whom_the_hub_does_not_let_write(
    finished: Path, served: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "you may not write to other's models, but to somebody's, or to lab" in refused(
        asked(finished, "other/x")
    )
    assert "you may not write to guests's models" in refused(asked(finished, "guests/x"))
    fine = user("somebody", role="fineGrained")
    scopes = [{"entity": {"name": "somebody"}, "permissions": ["repo.content.read"]}]
    fine["auth"]["accessToken"]["fineGrained"] = {"scoped": scopes}
    for me in (user("somebody", role="read"), fine):
        served.users[TOKEN] = me
        assert "your token may only read" in refused(asked(finished))
    scopes[0]["permissions"] = ["repo.write"]
    assert hub.check_target("x", public=False, card="---\n{}\n---\n").name == "somebody/x"
    served.users.clear()
    assert "does not know your token" in refused(asked(finished))
    monkeypatch.delenv("HF_TOKEN")
    said = refused(asked(finished))
    assert "there is no token" in said and "hf auth login" in said and "HF_TOKEN" in said
    assert not served.written


def test_a_licence_that_the_hub_does_not_know(finished: Path, served: Hub) -> None:
    assert "refuses the card" in refused(asked(finished, license="wtf-9"))
    assert not served.written


def test_an_upload_that_fails_says_so_and_can_be_repeated(finished: Path, served: Hub) -> None:
    served.broken = "commit"
    said = refused(asked(finished))
    assert "somebody/my-bert could not be written to" in said and "it may be there, and empty" in said
    assert "nothing has changed there" in refused(asked(finished))
    served.broken = "settings"
    assert "all files are there, but it is still private" in refused(asked(finished, public=True))
    served.broken = ""
    publishing.push(asked(finished, public=True))
    assert not served.repositories["somebody/my-bert"].private


def test_without_a_network_it_is_said_at_once(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    assert refused(asked(finished)) == "nothing can be pushed to my-bert now: HF_HUB_OFFLINE is set"


# ---------------------------------------------------------------- a look before


def test_a_preview_writes_nothing_and_shows_the_card(finished: Path, served: Hub) -> None:
    told: list[Event] = []
    card = publishing.preview(asked(finished, license="mit"), emit=told.append)
    publishing.push(asked(finished, license="mit"))
    assert card.encode() == served.repositories["somebody/my-bert"].files["README.md"]
    [facts] = [event for event in told if isinstance(event, Facts)]
    assert set(facts.rows) == UPLOADED and facts.title == "would be uploaded to somebody/my-bert (private)"
    served.asked.clear()
    publishing.preview(asked(finished))
    assert not served.written


def test_a_preview_without_the_hub(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    told: list[Event] = []
    assert "my-bert" in publishing.preview(asked(finished), emit=told.append)
    [caution] = [event.text for event in told if isinstance(event, Caution)]
    assert caution == "nothing can be pushed to my-bert now: HF_HUB_OFFLINE is set"


# ---------------------------------------------------------------- at the end of a run


def test_a_run_is_pushed_when_it_is_done(settings: Settings, served: Hub, quick: None) -> None:
    wanted = settings("run", **{"budget.steps": 4, "hub.push_to": "lab/night", "hub.license": "mit"})
    told: list[Event] = []
    run = pretrain(wanted, emit=told.append).run
    repository = served.repositories["lab/night"]
    assert (
        repository.private
        and repository.files["model.safetensors"] == (run.final / "model.safetensors").read_bytes()
    )
    assert ModelCard(repository.files["README.md"].decode()).data.license == "mit"
    served.repositories.clear()
    pretrain(wanted, resume=True)  # a job that was started again: nothing to train, but to push
    assert set(served.repositories["lab/night"].files) == UPLOADED


def test_what_cannot_be_pushed_is_known_before_the_run(
    settings: Settings, served: Hub, tmp_path: Path
) -> None:
    for name in ("other/night", "a/b/c"):
        with pytest.raises(UserError, match=r"may not write|no name"):
            pretrain(settings("run", **{"budget.steps": 4, "hub.push_to": name}))
    with pytest.raises(UserError, match="refuses the card"):
        pretrain(settings("run", **{"budget.steps": 4, "hub.push_to": "x", "hub.license": "wtf-9"}))
    assert not (tmp_path / "run").exists() and not served.written


def test_an_upload_that_fails_loses_nothing(settings: Settings, served: Hub, quick: None) -> None:
    served.broken = "commit"
    wanted = settings("a run", **{"budget.steps": 4, "hub.push_to": "night", "hub.language": ["en"]})
    with pytest.raises(UserError) as caught:
        pretrain(wanted)
    assert "the model is finished, but not on the Hub" in str(caught.value)
    assert f"then `fmlm push '{wanted.out}' night --language en`" in str(caught.value)
    served.broken = ""
    publishing.push(asked(Path(str(wanted.out)), "night"))
    assert set(served.repositories["somebody/night"].files) == UPLOADED


def test_a_run_that_was_begun_goes_on_though_the_hub_is_away(
    settings: Settings, served: Hub, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = settings("run", **{"budget.steps": 8, "hub.push_to": "night"})
    with pytest.raises(RuntimeError):
        pretrain(wanted, emit=at_step(6, raise_error))
    told: list[Event] = []
    with monkeypatch.context() as away:
        away.setattr(hub, "is_offline_mode", lambda: True)
        with pytest.raises(UserError, match="the model is finished, but not on the Hub"):
            pretrain(wanted, resume=True, emit=told.append)
    cautions = [event.text for event in told if isinstance(event, Caution)]
    assert any("HF_HUB_OFFLINE is set; this goes on" in text for text in cautions)
    assert find_finished(str(wanted.out)).files.keys() == UPLOADED


def test_nothing_is_asked_of_the_hub_by_default(settings: Settings, served: Hub, quick: None) -> None:
    pretrain(settings("run", **{"budget.steps": 4}))
    assert not served.asked

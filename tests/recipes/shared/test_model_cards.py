"""What cards are made of: nothing of the machine's paths, and front matter that the Hub can read."""

import math
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fmlm_cli.config import FinetuneSettings, HubSettings, PretrainSettings, build, nested
from fmlm_cli.recipes.shared.model_cards import Places, card, front_matter, hub_sets, warned

NAMES = st.text(string.ascii_letters + "_-. é", min_size=1, max_size=8).filter(
    lambda name: name.strip(". ") == name
)
PATHS = st.builds(
    lambda root, names, last: f"{root}{'/'.join(['secret', *names, last])}",
    st.sampled_from(["/", "./", "../", "", "~/"]),
    st.lists(NAMES, max_size=3),
    NAMES,
)


def written(places: Places) -> dict[str, Any]:
    block = places.settings()
    return dict(yaml.safe_load(block.split("```yaml\n")[1].split("\n```")[0]))


@hypothesis_settings(max_examples=40)
@given(st.lists(PATHS, min_size=6, max_size=6))
def test_settings_name_files_and_folders_by_their_last_names(paths: list[str]) -> None:
    store, replayed, checkpoint, out, evaluated, text = paths
    changed = {
        "data.stores": [store, f"{replayed}:0.25"],
        "model.checkpoint": f"{checkpoint}@step-3",
        "out": out,
        "evaluation.stores": {"general": evaluated},
        "text.sources": ["hub:someone/texts:en", text],
    }
    settings = build(PretrainSettings, nested(changed))
    places = Places(settings, [])
    shown = build(PretrainSettings, written(places))  # valid settings still
    last = [Path(path).name for path in paths]
    assert shown.data.stores == (last[0], f"{last[1]}:0.25")
    assert shown.model.checkpoint == f"{last[2]}@step-3" and shown.out == last[3]
    assert shown.evaluation.stores == {"general": last[4]}
    assert shown.text.sources == ("hub:someone/texts:en", last[5])
    assert shown.masking == settings.masking and shown.budget == settings.budget
    said = places.plain(f"{store}/tokens is small; {replayed} and {checkpoint}, in {Path.cwd()}/x")
    assert "secret" not in said and str(Path.cwd()) not in said


def test_names_of_the_hub_stay() -> None:
    chosen = ("original=google/bert@abc", "mine=runs/secret/final", "google/bert")
    settings = build(FinetuneSettings, nested({"checkpoint": list(chosen), "tasks.train": "/secret/a.jsonl"}))
    shown = build(FinetuneSettings, written(Places(settings, ["google/bert"])))
    assert shown.checkpoint == ("original=google/bert@abc", "mine=final", "google/bert")
    assert shown.tasks.train == "a.jsonl"


def test_home_is_not_told() -> None:
    places = Places(build(PretrainSettings, {}), [])
    assert places.plain(f"see {Path.home()}/x") in ("see ~/x", "see x")


@pytest.mark.parametrize("home", ["/", "", None])
def test_a_home_that_is_the_root_or_is_not_there_changes_no_name(
    home: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, whose user the system may not know."""
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.delenv("HOME")
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.chdir("/")
    places, text = Places(build(PretrainSettings, {}), []), "google/bert, see https://example.org/x"
    assert places.plain(text) == text


@hypothesis_settings(max_examples=60)
@given(
    st.text(),
    st.text(min_size=1),
    st.floats(allow_nan=True),
    st.lists(st.sampled_from(["en", "deu"]), unique=True),
)
def test_front_matter_is_read_back_whatever_things_are_called(
    title: str, name: str, value: float, languages: list[str]
) -> None:
    asked = HubSettings(license="mit", language=tuple(languages))
    result = EvalResult("fill-mask", name, name, "loss", value)
    facts = front_matter(
        title, "fill-mask", "bert", asked, base_model="google/bert", datasets=["a/b"], results=[result]
    )
    text = card(facts, title, ["body"])
    read = ModelCard(text).data
    assert (read.license, read.base_model, read.datasets) == ("mit", "google/bert", ["a/b"])
    assert read.language == (languages or None)
    assert bool(read.eval_results) == math.isfinite(value)
    assert text.rstrip().endswith("body")


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ([], []),
        (["texts.txt", "hub:a/b", "hub:a/b:de", "hub:c"], ["a/b", "c"]),
    ],
)
def test_data_sets_of_the_hub_among_sources(names: list[str], wanted: list[str]) -> None:
    assert hub_sets([{"name": name} for name in names] + [{"other": 1}]) == wanted


@given(texts=st.lists(st.text(st.characters(categories=["L"]), min_size=1), max_size=3))
def test_cautions_have_one_blank_line_around_them(texts: list[str]) -> None:
    text = card(ModelCardData(), "title", ["begun\n", warned(texts), "## Use\n"])
    assert "\n\n\n" not in text
    assert text.count("\n\n> **Note:** ") == len(texts)

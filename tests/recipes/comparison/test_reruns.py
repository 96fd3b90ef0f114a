"""Arms that came to the baseline's loss sooner, trained again with a schedule that ends there."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli import storage
from fmlm_cli.analysis.results.plain import as_json
from fmlm_cli.analysis.statistics import paired_difference
from fmlm_cli.recipes import comparison
from fmlm_cli.recipes.comparison.run import COMPARISON
from tests.recipes.comparison.settings import LEARNING, Compare, compare_in
from tests.recipes.runs import without_pictures

STEPS, FASTER = 24, "random:segments=2"  # which predicts twice as many tokens in a step
CHANGED = {
    "strategies": ["random", FASTER],
    "only": ["race"],
    "budget": f"{STEPS}-steps",
    "run.evaluation.every_steps": 2,
    "race.fresh_control": False,
    "race.rerun_to_target": True,
}


@pytest.fixture(scope="module", autouse=True)
def quick_runs() -> Iterator[None]:
    with without_pictures() as patch:
        patch.setattr("fmlm_cli.recipes.comparison.run.write_report", lambda root, results: [])
        yield


@pytest.fixture(scope="module")
def compare(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Compare:
    return compare_in(tmp_path_factory.mktemp("compared"), tiny_store, **LEARNING)


@pytest.fixture(scope="module")
def rerun(compare: Compare) -> tuple[Path, dict[str, Any]]:
    """A race with its reruns. Not to be written to."""
    found = comparison.compare_masks(compare("rerun", **CHANGED))
    assert found is not None
    return found.root, as_json(found.results)


def test_an_arm_that_is_sooner_there_is_trained_for_so_long(rerun: tuple[Path, dict[str, Any]]) -> None:
    root, results = rerun
    race = results["race"]
    ratio = race["tokens_to_reach"][FASTER]["ratio"]["value"]
    assert ratio < 1, "the arm is no faster: choose another"
    again = race["reruns"][FASTER]
    assert list(race["reruns"]) == [FASTER]
    assert again["steps"] == math.ceil(ratio * STEPS) and again["share"] == again["steps"] / STEPS
    for seed in ("0", "1"):
        run = root / "rerun" / "random,segments=2" / f"{again['steps']}-steps" / f"seed-{seed}"
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert again["values"][seed] == [r["eval_loss"] for r in records if "eval_loss" in r][-1]
        trained = [r for r in records if "learning_rate" in r]
        assert trained[-1]["step"] == again["steps"]
        assert trained[-1]["learning_rate"] < 0.2 * max(r["learning_rate"] for r in trained)  # decayed
    wanted = paired_difference(
        list(again["values"].values()), list(race["final"]["random"]["values"].values())
    )
    assert again["paired"]["mean"] == pytest.approx(wanted.mean)
    assert again["paired"]["p_adjusted"] == pytest.approx(wanted.p_value)


def test_a_folder_with_reruns_is_wholly_ours(rerun: tuple[Path, dict[str, Any]]) -> None:
    storage.check_claim(rerun[0], COMPARISON, overwrite=True, resume=False)


def test_it_may_be_asked_for_later_and_shared(compare: Compare, rerun: tuple[Path, dict[str, Any]]) -> None:
    first = comparison.compare_masks(compare("later", **{**CHANGED, "race.rerun_to_target": False}))
    assert first is not None and first.results.race is not None and not first.results.race.reruns
    settings = compare("later", **CHANGED)
    for cell in ("2/3", "1/3", "3/3"):
        found = comparison.compare_masks(settings, cell=cell)
    assert found is not None
    assert as_json(found.results)["race"] == rerun[1]["race"]
    again = comparison.compare_masks(settings, resume=True)
    assert again is not None and as_json(again.results)["race"] == rerun[1]["race"]


@pytest.mark.slow
def test_anew_nothing_of_the_old_race_decides(compare: Compare, rerun: tuple[Path, dict[str, Any]]) -> None:
    """With --overwrite the reruns follow from the new race, not from the one that is cleared away."""
    once = comparison.compare_masks(compare("anew", **{**CHANGED, "first_seed": 7}))
    assert once is not None
    found = comparison.compare_masks(compare("anew", **CHANGED), overwrite=True)
    assert found is not None
    assert as_json(found.results)["race"] == rerun[1]["race"]
    steps = {path.name for path in (found.root / "rerun").glob("*/*")}
    assert steps == {f"{result['steps']}-steps" for result in rerun[1]["race"]["reruns"].values()}

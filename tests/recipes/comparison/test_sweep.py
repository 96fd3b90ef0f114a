"""Points of a sweep meet random masking under their own settings, and strategies meet each at their best."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmlm_cli.analysis.results.plain import as_json
from fmlm_cli.config import CompareSettings
from fmlm_cli.errors import UserError
from fmlm_cli.events import Note
from fmlm_cli.recipes import comparison
from fmlm_cli.recipes.comparison.cautions import cautions_of
from fmlm_cli.recipes.comparison.draft import draft_comparison
from fmlm_cli.recipes.comparison.plan import with_budget
from tests.recipes.comparison.settings import LEARNING, Compare, compare_in
from tests.recipes.runs import without_pictures

RATE = "run.optimizer.learning_rate"
BOTH = ["random", "fully-explored"]


@pytest.fixture(scope="module", autouse=True)
def quick_runs() -> Iterator[None]:
    """Neither the device's peak nor any picture is looked at here."""
    with without_pictures():
        yield


@pytest.fixture(scope="module")
def compare(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Compare:
    """`compare(out, **dotted names)`: settings of a race of tiny runs."""
    fixed = {"only": ["race"], "race.fresh_control": False, "run.evaluation.every_steps": 6, **LEARNING}
    return compare_in(tmp_path_factory.mktemp("swept"), tiny_store, **fixed)


def against(settings: CompareSettings) -> dict[tuple[Any, ...], str | None]:
    """With what each point would be compared, by its values; "itself", or None for nothing."""
    made = draft_comparison(settings, Path("never"), lambda event: None)
    assert made.sweep is not None
    found = {name: arm.name for name, arm in made.points_against.items()}
    names = {tuple(map(str, values.values())): arm.name for values, arm in made.sweep.points}
    return {key: "itself" if found.get(name) == name else found.get(name) for key, name in names.items()}


@pytest.mark.parametrize("rates", [[0.01, 0.02], ["1e-2", "2e-2"]])  # which YAML takes for texts
def test_a_point_meets_the_random_run_of_its_own_settings(compare: Compare, rates: list[Any]) -> None:
    sweep = {
        "strategy": [*BOTH, "fully-explored:scope=batch"],
        "run": {"optimizer": {"learning_rate": rates}},
    }
    found = against(compare("never", sweep=sweep))
    assert found == {
        # At the race's own rate that is the race's baseline, whether the rate is written or not.
        ("random", "0.01"): "random",
        ("fully-explored", "0.01"): "random",
        ("fully-explored:scope=batch", "0.01"): "random",
        ("random", "0.02"): "itself",
        ("fully-explored", "0.02"): f"strategy=random,{RATE}=0.02",
        ("fully-explored:scope=batch", "0.02"): f"strategy=random,{RATE}=0.02",
    }


def test_a_value_is_the_same_however_it_is_written(compare: Compare) -> None:
    twice = {"run": {"optimizer": {"learning_rate": ["1e-2", 0.01]}}}
    with pytest.raises(UserError, match=f"sweep.{RATE} has a value twice"):
        draft_comparison(compare("never", sweep=twice), Path("never"), lambda event: None)


def test_a_point_meets_random_at_its_own_mask_rate_alone(compare: Compare) -> None:
    found = against(compare("never", sweep={"strategy": BOTH, "segments": [4, 5]}))
    assert found == {
        ("random", "4"): "random",
        ("fully-explored", "4"): "random",
        ("random", "5"): "itself",
        ("fully-explored", "5"): "strategy=random,segments=5",
    }
    several = {"strategy": ["random:masks_per_sequence=2", "fully-explored"], "segments": [5]}
    assert set(against(compare("never", sweep=several)).values()) == {None}  # K masks in a step are not plain


def test_corruption_is_compared_under_the_same_where_random_has_it(compare: Compare) -> None:
    shares = {"mask": 1.0, "random": 0.0, "keep": 0.0}
    with_random = against(compare("never", sweep={"strategy": BOTH, "corruption": [shares]}))
    assert list(with_random.values()) == ["random", "strategy=random,corruption=mask1+random0+keep0"]
    assert list(against(compare("never", sweep={"corruption": [shares]})).values()) == ["random"]


def test_rows_of_a_seed_are_no_seeds_own_when_they_are_swept(compare: Compare) -> None:
    swept = {"run": {"data": {"subset_seed": [0, 1]}}}
    assert set(against(compare("never", sweep=swept)).values()) == {None}


def test_a_sweep_without_random_is_cautioned_and_told_what_would_help(compare: Compare) -> None:
    def said(sweep: dict[str, Any]) -> list[str]:
        made = draft_comparison(compare("never", sweep=sweep), Path("never"), lambda event: None)
        return [
            each.text for each in cautions_of(with_budget(made, 12)) if each.code == "sweep-without-baseline"
        ]

    rates = {"run": {"optimizer": {"learning_rate": [0.01, 0.02, 0.03]}}}
    (text,) = said(rates)
    assert text.startswith(f"2 of 3 points of the sweep of {RATE} are compared with nothing")
    assert "--set 'sweep.strategy=[random, fully-explored]'" in text
    assert said({"strategy": BOTH, **rates}) == []
    assert said({"segments": [4]}) == []


@pytest.fixture(scope="module")
def swept(compare: Compare) -> tuple[dict[str, Any], str]:
    """A real sweep of strategies x learning rates, of which the last one diverges; results and words."""
    events: list[Any] = []
    sweep = {"strategy": BOTH, "run": {"optimizer": {"learning_rate": [0.005, 0.02, 1e30]}}}
    found = comparison.compare_masks(compare("swept", sweep=sweep), emit=events.append)
    assert found is not None
    return as_json(found.results), "\n".join(event.text for event in events if isinstance(event, Note))


def test_pairs_of_a_sweep_are_one_family(swept: tuple[dict[str, Any], str]) -> None:
    results, _ = swept
    points = {tuple(p["settings"].values()): p for p in results["sweep"]["points"]}
    for rate in (0.005, 0.02):
        own, random = points["fully-explored", rate], points["random", rate]
        assert own["against"] == random["name"] and random["against"] is None
        assert random["paired"]["note"] == "baseline of its settings"
        difference = np.subtract(list(own["values"].values()), list(random["values"].values()))
        assert own["paired"]["mean"] == pytest.approx(difference.mean())
        assert own["paired"]["tests"] == 2
        assert own["paired"]["better"] in (None, own["name"], random["name"])
    lost = points["fully-explored", 1e30]
    assert set(lost["values"].values()) == {None} and "diverged" in lost["paired"]["note"]


def test_each_strategy_at_its_best_rate(swept: tuple[dict[str, Any], str]) -> None:
    results, text = swept
    points = {tuple(p["settings"].values()): p["values"] for p in results["sweep"]["points"]}
    random, full = results["sweep"]["best"]
    for best in (random, full):
        losses = {rate: points[best["strategy"], rate] for rate in (0.005, 0.02)}
        for seed, other in (("0", "1"), ("1", "0")):
            chosen = min(losses, key=lambda rate: losses[rate][other])
            assert best["values"][seed] == losses[chosen][seed]
        assert best["settings"] == {RATE: min(losses, key=lambda rate: sum(losses[rate].values()))}
    assert random["paired"] is None
    difference = np.subtract(list(full["values"].values()), list(random["values"].values()))
    assert full["paired"]["mean"] == pytest.approx(difference.mean()) and full["paired"]["tests"] == 1
    assert (
        "Each strategy at its best learning_rate, chosen for each seed by the others: fully-explored" in text
    )


def test_a_reports_sweep_shows_points_and_bests(swept: tuple[dict[str, Any], str], compare: Compare) -> None:
    report = (Path(compare("swept").out or "") / "report.md").read_text(encoding="utf-8")
    assert "### Each strategy at its best" in report
    assert "baseline of its settings" in report and "| random | " in report
    assert "diverged, diverged" in report

"""Which sample of the text stands behind a seed, and behind a measurement of gradients."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmlm_cli.config import CHECKPOINTS, CORRUPTIONS, Budget, CompareSettings, PretrainSettings
from fmlm_cli.errors import UserError
from fmlm_cli.events import ignore
from fmlm_cli.recipes.comparison.draft import draft_comparison, request_of
from fmlm_cli.recipes.comparison.gradients import choose_rows
from fmlm_cli.recipes.comparison.plan import ComparisonPlan, with_budget
from fmlm_cli.recipes.comparison.results import results_of
from fmlm_cli.recipes.pretraining.planning.plan import plan_run
from fmlm_cli.recipes.shared.held_out import HeldOut
from tests.recipes.comparison.settings import LEARNING, Compare, compare_in
from tests.recipes.runs import without_pictures


@pytest.fixture(scope="module", autouse=True)
def quick_runs() -> Iterator[None]:
    with without_pictures():
        yield


@pytest.fixture(scope="module")
def compare(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Compare:
    return compare_in(tmp_path_factory.mktemp("compared"), tiny_store, **LEARNING)


def planned(settings: CompareSettings) -> ComparisonPlan:
    made = draft_comparison(settings, Path("never"), ignore)
    return with_budget(made, made.steps(Budget.parse(settings.budget or "")))


def rows_seen(settings: PretrainSettings) -> tuple[set[int], set[int]]:
    """The numbers of the rows that a run trains on, and is evaluated on."""
    run = plan_run(settings, ignore)
    (source,) = run.stream.sources
    held_out = HeldOut.like(source.reader, source.store, run.settings.evaluation, 1).reader
    return tuple(
        set(reader.read(np.arange(len(reader))).numbers.tolist()) for reader in (source.reader, held_out)
    )  # type: ignore[return-value]


def by_item(plan: ComparisonPlan) -> dict[tuple[str, int], tuple[set[int], set[int]]]:
    return {(item.arm.name, item.seed): rows_seen(plan.settings_of(item)) for item in plan.possible("race")}


def test_each_seed_draws_rows_of_its_own_and_arms_of_a_seed_share_them(compare: Compare) -> None:
    plan = planned(compare("never", seeds=3, **{"race.fresh_control": False}))
    seen = by_item(plan)
    for seed in plan.seeds:
        assert seen["random", seed] == seen["fully-explored", seed]
    for one, other in itertools.combinations(plan.seeds, 2):
        for first, second in zip(seen["random", one], seen["random", other], strict=True):
            assert len(first) == len(second) and first != second
    # What has no seed of its own, gradient variance and coverage, is of the first seed's rows.
    base = plan.base.stream.sources[0].reader
    assert set(base.read(np.arange(len(base))).numbers.tolist()) == seen["random", 0][0]


def test_one_sample_for_all_seeds_is_a_setting(compare: Compare) -> None:
    held = {"race.vary_rows": False, "run.data.subset_seed": 5, "run.evaluation.subset_seed": 6}
    seen = by_item(planned(compare("never", **held, **{"race.fresh_control": False})))
    assert len({(frozenset(train), frozenset(valid)) for train, valid in seen.values()}) == 1
    other = by_item(
        planned(compare("never", **{**held, "run.data.subset_seed": 7, "race.fresh_control": False}))
    )
    assert other["random", 0][0] != seen["random", 0][0] and other["random", 0][1] == seen["random", 0][1]


@pytest.mark.parametrize("name", ["run.data.subset_seed", "run.evaluation.subset_seed"])
def test_a_sample_that_each_seed_draws_cannot_be_chosen(compare: Compare, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is different with each seed: give race.vary_rows=false"):
        planned(compare("never", **{name: 1}))


@pytest.mark.parametrize(
    ("changed", "by_seed"),
    [
        ({}, (True, True)),
        ({"run.data.max_rows": None}, (False, True)),
        ({"run.evaluation.max_rows": None}, (True, False)),
        ({"race.vary_rows": False}, (False, False)),
    ],
)
def test_results_say_which_rows_are_a_seeds_own(
    compare: Compare, changed: dict[str, Any], by_seed: tuple[bool, bool]
) -> None:
    plan = planned(compare("never", **changed))
    results = results_of(plan)
    assert results.evaluation is not None
    assert (results.data.by_seed, results.evaluation.by_seed) == by_seed
    assert results.data.of_rows == len(plan.base.stream.sources[0].reader.plan) >= results.data.rows
    assert results.evaluation.of_rows >= results.evaluation.rows


def test_every_measurement_has_rows_and_masks_of_its_own(compare: Compare) -> None:
    changed = {"variance.checkpoints": CHECKPOINTS, "variance.corruptions": CORRUPTIONS}
    plan = planned(compare("never", **changed, **{"run.data.max_rows": 200, "variance.sequences": 40}))
    items = plan.possible("variance")
    seeds = {(item.subject, item.corruption): plan.seed_of_measurement(item) for item in items}
    assert len(set(seeds.values())) == len(seeds) == 6
    reader, request = plan.base.stream.sources[0].reader, request_of(plan.settings)
    chosen = [
        set(choose_rows(reader, 4, request, seed=seed).rows.numbers.tolist()) for seed in seeds.values()
    ]
    for one, other in itertools.combinations(chosen, 2):
        assert len(one & other) < 20  # of 40; 8 of them would be in two samples of 200
    more = planned(compare("never", **changed, first_seed=1))
    assert not {more.seed_of_measurement(item) for item in more.possible("variance")} & set(seeds.values())

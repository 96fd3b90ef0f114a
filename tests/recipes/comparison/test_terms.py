"""At equal terms: what arms share and what stands beside them, and what is said or refused where they do not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli.config import Budget, CompareSettings, build, read_yaml
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event, ignore
from fmlm_cli.recipes import comparison
from fmlm_cli.recipes.comparison.cautions import cautions_of
from fmlm_cli.recipes.comparison.draft import draft_comparison
from fmlm_cli.recipes.comparison.plan import ComparisonPlan, with_budget
from fmlm_cli.recipes.comparison.run import _plan
from fmlm_cli.recipes.pretraining.planning.plan import plan_run
from fmlm_cli.recipes.pretraining.report.describe import FEW_PASSES
from fmlm_cli.recipes.shared.words import BUSY
from tests.recipes.comparison.settings import Compare, compare_in
from tests.recipes.runs import without_pictures

FRESH = "random:rows=fresh"


@pytest.fixture(scope="module", autouse=True)
def quick_runs() -> Iterator[None]:
    """Neither the device's peak nor any picture or report is looked at here."""
    with without_pictures() as patch:
        patch.setattr("fmlm_cli.recipes.comparison.run._report", lambda plan, emit: None)
        yield


@pytest.fixture(scope="module")
def stores(make_store: Any, documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """`large` and `small` have held-out text, `bare` has none; `short` has many rows with few tokens."""
    root = tmp_path_factory.mktemp("stores")
    parts = {
        "large": (documents[60:], documents[:30]),
        "small": (documents[30:60], documents[:30]),
        "bare": (documents[100:160],),
        "other": (documents[160:220], documents[30:60]),
        "short": (
            [" ".join(d.split()[:4]) if i % 3 else d for i, d in enumerate(documents)],
            documents[:30],
        ),
    }
    return {name: str(make_store(root / name, *texts)) for name, texts in parts.items()}


@pytest.fixture(scope="module")
def compare(stores: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Compare:
    """`compare(out, **dotted names)`: settings of a comparison of tiny runs."""
    fixed = {
        "run.evaluation.every_steps": 6,
        "variance.random": 2,
        "variance.pairs": 2,
        "variance.checkpoints": ["start"],
        "variance.corruptions": ["race"],
    }
    return compare_in(tmp_path_factory.mktemp("compared"), stores["large"], **fixed)


def planned(settings: CompareSettings) -> ComparisonPlan:
    made = draft_comparison(settings, Path("never"), lambda event: None)
    return with_budget(made, made.steps(Budget.parse(settings.budget or "")))


def worked(settings: CompareSettings, **how: Any) -> list[str]:
    """Do the work; the cautions that were given, but for the one that depends on what else the machine does."""
    events: list[Event] = []
    comparison.compare_masks(settings, emit=events.append, **how)
    return [event.text for event in events if isinstance(event, Caution) and event.code != BUSY]


def found(settings: CompareSettings, name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((Path(settings.out or "") / "cells" / f"{name}.json").read_text())
    return result["result"]


# ---------------------------------------------------------------- fresh rows


@pytest.mark.parametrize(
    ("more", "controls"),
    [
        ([FRESH], [FRESH]),
        (["random:segments=4:rows=fresh"], ["random:segments=4:rows=fresh"]),
        (["random:masks_per_sequence=2:rows=fresh"], ["random:masks_per_sequence=2:rows=fresh", FRESH]),
    ],
)
def test_fresh_rows_are_a_control_whoever_asks(
    compare: Compare, more: list[str], controls: list[str]
) -> None:
    plan = planned(compare("never", strategies=[*more, "random", "fully-explored"]))
    assert [arm.name for arm in plan.arms if arm.control] == controls
    assert plan.baseline.name == "random"


def test_the_baseline_is_a_candidate(compare: Compare) -> None:
    plan = planned(compare("never", strategies=[FRESH, "span", "fully-explored"]))
    assert plan.baseline.name == "span"


def test_a_control_is_nothing_to_compare_with_one(compare: Compare) -> None:
    with pytest.raises(UserError, match=r"at least two strategies, only random is given \(rows=fresh is"):
        planned(compare("never", strategies=["random", FRESH]))


def test_fresh_rows_that_a_store_does_not_have(compare: Compare, stores: dict[str, str]) -> None:
    changed = {"budget": "200-steps", "strategies": ["random", "fully-explored", FRESH]}
    rows = sum(len(s.reader.plan) for s in planned(compare("never")).base.stream.sources)
    with pytest.raises(
        UserError, match=rf"{FRESH}: .*large has {rows:,} rows, and 200 steps draw 1,600"
    ) as e:
        planned(compare("never", **changed))
    assert "\n" not in str(e.value)
    swept = {**changed, "strategies": ["random", "fully-explored"], "sweep": {"strategy": [FRESH]}}
    with pytest.raises(UserError, match="200 steps draw 1,600"):
        planned(compare("never", **swept))
    assert len(planned(compare("never", budget="200-steps")).arms) == 2


def test_fresh_rows_are_mixed_as_the_others(compare: Compare, stores: dict[str, str]) -> None:
    both = [stores["large"], stores["small"]]
    replay = {"run.data.replay": [f"{stores['other']}:0.1"]}
    for named in (both, [f"{both[0]}:3", f"{both[1]}:1"]):
        plan = planned(compare("never", **{"run.data.stores": named, **replay}))
        runs = {}
        for arm in plan.arms:
            run = plan_run(plan.run_settings(arm, 0, Path("never"), 12), lambda event: None)
            runs[arm.name] = [source.share for source in run.stream.sources], run.stream.rows
        assert runs[FRESH][0] == runs["random"][0]
        assert runs[FRESH][1] > runs["random"][1]
        assert runs[FRESH][1] == plan.rows(plan.arms[-1])


def test_a_small_store_has_to_suffice_for_its_own_share(compare: Compare, stores: dict[str, str]) -> None:
    named = {"run.data.stores": [f"{stores['large']}:1", f"{stores['small']}:1"]}
    plan = planned(compare("never", **named, budget="12-steps"))
    assert [arm.name for arm in plan.arms if arm.control] == [FRESH]
    small = len(plan.base.stream.sources[1].reader.plan)
    steps = small // 4 + 1  # of 8 rows, half of them from each store
    assert steps * 8 < len(plan.base.stream.sources[0].reader.plan)
    assert not [
        arm for arm in planned(compare("never", **named, budget=f"{steps}-steps")).arms if arm.control
    ]
    with pytest.raises(UserError, match=rf"small has {small} rows, and {steps} steps draw {4 * steps}"):
        more = ["random", "fully-explored", FRESH]
        planned(compare("never", **named, budget=f"{steps}-steps", strategies=more))


# ---------------------------------------------------------------- what is measured on


def test_losses_are_those_of_the_first_data_with_held_out_text(
    compare: Compare, stores: dict[str, str]
) -> None:
    named = {
        "run.data.stores": [stores["bare"], stores["other"]],
        "run.data.replay": [f"{stores['large']}:0.2"],
        "run.evaluation.stores": {"general": stores["large"]},
        "only": ["race"],
        "race.fresh_control": False,
    }
    settings = compare("held-out", **named)
    plan = planned(settings)
    assert str(plan.evaluated_store.root) == stores["other"]
    assert str(plan.measured_store.root) == stores["bare"]
    worked(settings, cell="1/4")
    (run,) = (Path(settings.out or "") / "race").glob("*/*/metrics.jsonl")
    records = [json.loads(line) for line in run.read_text().splitlines()]
    wanted = [r["eval_loss"] for r in records if r.get("evaluation") == "other"]
    assert wanted and found(settings, "race/random/seed-0")["losses"] == wanted


def test_what_is_replayed_or_named_is_no_text_to_compare_on(compare: Compare, stores: dict[str, str]) -> None:
    bare = {"run.data.stores": [stores["bare"]], "run.evaluation.stores": {"general": stores["large"]}}
    for more in ({}, {"run.data.replay": [f"{stores['other']}:0.2"]}):
        with pytest.raises(UserError, match="bare has no validation split") as caught:
            planned(compare("never", **bare, **more))
        assert "\n" not in str(caught.value)
    settings = compare("no-loss", **bare, only=["variance"])
    worked(settings)
    assert found(settings, "variance/start.race")["loss"] is None


def test_rows_left_out_of_variance_are_told(compare: Compare, stores: dict[str, str]) -> None:
    changed = {
        "only": ["variance"],
        "run.data.packing": "none",
        "variance.corruptions": ["mask-only", "race"],
    }
    settings = compare("short", **changed, **{"run.data.stores": [stores["short"]]})
    (said,) = [text for text in worked(settings) if "gradient variance" in text]
    result = found(settings, "variance/start.mask-only")  # the first of them
    left, looked = result["left_out"], result["looked_at"]
    assert 0.1 * looked < left == looked - 10
    assert (
        f"gradient variance: {left} of {looked} rows have fewer than 8 maskable tokens and are left out"
        == said
    )
    few = compare("few", **changed, **{"run.data.stores": [stores["short"]], "variance.sequences": 24})
    (said,) = [text for text in worked(few) if "gradient variance" in text]
    result = found(few, "variance/start.race")
    assert result["looked_at"] == 24 == result["left_out"] + result["sequences"]
    assert said.endswith(f"so that {result['sequences']} are measured, not 24")
    less = compare("less", **changed, **{"run.data.stores": [stores["short"]], "variance.sequences": 60})
    (said,) = [text for text in worked(less) if "gradient variance" in text]
    assert "are measured, not 60: of fewer than 60 rows, intervals are too narrow" in said
    whole = compare("whole", only=["variance"])
    assert not [text for text in worked(whole) if "gradient variance" in text]
    assert found(whole, "variance/start.race")["left_out"] <= 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"run.model.freeze": ["embeddings"]}, "run.model.freeze: gradient variance .*checkpoints=.start"),
        ({"run.model.lora.rank": 2}, "run.model.lora: gradient variance .*checkpoints=.start"),
    ],
)
def test_variance_of_a_part_is_not_compared_with_that_of_the_whole(
    compare: Compare, changed: dict[str, Any], message: str
) -> None:
    later = {"variance.checkpoints": ["start", "late"]}
    with pytest.raises(UserError, match=message) as caught:
        planned(compare("never", **changed, **later))
    assert "\n" not in str(caught.value)
    if "run.model.freeze" in changed:
        planned(compare("never", **changed))
        planned(compare("never", **changed, **later, only=["coverage", "race"]))


def test_few_sequences_are_no_interval(compare: Compare) -> None:
    with pytest.raises(UserError, match=r"variance\.sequences"):
        compare("never", **{"variance.sequences": 9})
    with pytest.raises(
        UserError, match=r"takes at least 10 rows of at least 8 maskable tokens, and there are \d"
    ):
        planned(compare("never", **{"run.data.max_rows": 8, "only": ["variance"]}))


def test_coverage_leaves_out_a_rate_that_changes(compare: Compare) -> None:
    changing = "fully-explored:schedule.shape=linear:schedule.final_rate=0.5"
    plan = planned(compare("never", strategies=["random", "fully-explored", changing]))
    covered = [item.arm.name for item in plan.items if item.kind == "coverage"]
    assert covered == ["random", "fully-explored"]
    every = {"run.masking.schedule": {"shape": "linear", "final_rate": 0.5}, "only": ["coverage"]}
    settings = compare("nothing", **every)
    with pytest.raises(UserError, match="--only coverage leaves nothing to do"):
        worked(settings)
    assert not Path(settings.out or "").exists()


# ---------------------------------------------------------------- parts, one after the other


def parts_of(settings: CompareSettings) -> list[str]:
    return list(read_yaml(Path(settings.out or "") / "config.yaml", CompareSettings)["only"])


def test_parts_asked_for_one_after_the_other(compare: Compare) -> None:
    settings = compare("parts", only=["coverage"], budget=None)
    out, cells = CompareSettings(out=settings.out), Path(settings.out or "") / "cells"
    worked(settings)
    assert parts_of(settings) == ["coverage"]
    (cells / "coverage" / "random.json").unlink()
    worked(build(CompareSettings, out.model_dump(exclude_unset=True), {"only": ["variance"]}), resume=True)
    assert parts_of(settings) == ["coverage", "variance"]
    assert (cells / "variance" / "start.race.json").is_file()
    assert not (cells / "coverage" / "random.json").exists()  # not asked for in this call
    worked(out, resume=True)
    assert (cells / "coverage" / "random.json").is_file()
    assert parts_of(settings) == ["coverage", "variance"]
    # A budget that comes later changes the passes that coverage is over: it is looked at anew.
    passes = found(settings, "coverage/random")["epochs"]
    worked(build(CompareSettings, out.model_dump(exclude_unset=True), {"budget": "30-steps"}), resume=True)
    assert found(settings, "coverage/random")["epochs"] == 10 != passes
    worked(build(CompareSettings, out.model_dump(exclude_unset=True), {"only": []}), cell="9/99")
    assert parts_of(settings) == []  # all
    worked(build(CompareSettings, out.model_dump(exclude_unset=True), {"only": ["variance"]}), resume=True)
    assert parts_of(settings) == []


def test_processes_leave_the_report_to_the_one_that_began_them(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []

    def spread(words: list[str], *_: Any) -> None:
        told.append(words)
        assert comparison.compare_masks(settings, cell="1/1", report=False) is None

    monkeypatch.setattr("fmlm_cli.recipes.jobs.work.spread", spread)
    reports: list[ComparisonPlan] = []
    monkeypatch.setattr("fmlm_cli.recipes.comparison.run._report", lambda plan, emit: reports.append(plan))
    settings = compare("spread", only=["coverage"])
    comparison.compare_masks(settings, jobs=2)
    assert told == [["compare-masks", f"{settings.out}/config.yaml", "--only", "coverage", "--no-report"]]
    assert len(reports) == 1
    assert comparison.compare_masks(settings, cell="1/1", report=False) is None
    assert len(reports) == 1


def test_a_plan_leaves_no_trace(compare: Compare) -> None:
    settings = compare("unwritten")
    root = Path(str(settings.out))
    plan, budget = _plan(settings, root, overwrite=False, resume=False, emit=ignore)
    assert plan.items and budget["steps"] == plan.total_steps
    assert not root.exists()


# ---------------------------------------------------------------- cautions


def cautioned(plan: ComparisonPlan) -> list[str]:
    return [each.text for each in cautions_of(plan) if each.code != "few-seeds"]


def test_one_pass_is_the_same_run_as_random(compare: Compare) -> None:
    changed = {"run.data.max_rows": None, "budget": "10-steps", "only": ["race"]}
    settings = compare(
        "one-pass", **changed, strategies=["random", "fully-explored", "span", "fully-explored-span"]
    )
    said = worked(settings)
    assert [text.partition(" makes")[0] for text in said if "the same run as" in text] == [
        "fully-explored (epoch)",
        "fully-explored-span (epoch)",
    ]
    assert "the same run as random: scope epoch differs from the second pass on (fewer rows" in said[0]
    assert "the same run as span:" in said[1]
    for arm, random in (("fully-explored", "random"), ("fully-explored-span", "span")):
        own, other = (found(settings, f"race/{name}/seed-0")["losses"] for name in (arm, random))
        assert own == other


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"budget": "24-steps", "run.data.max_rows": 96}, []),
        (
            {"budget": "18-steps", "run.data.max_rows": 96},
            ["1.50 passes over the data: only the part of the rows"],
        ),
        (
            {"budget": "12-steps", "run.data.max_rows": 96},
            ["1.00 passes over the data: the same run as random:"],
        ),
        (
            {
                "budget": "12-steps",
                "run.data.max_rows": 96,
                "run.masking.schedule": {"shape": "linear", "final_rate": 0.5},
            },
            ["1.00 passes over the data: scope epoch differs"],
        ),
    ],
)
def test_few_passes_in_words(compare: Compare, changed: dict[str, Any], words: list[str]) -> None:
    said = [
        each.text
        for each in cautions_of(planned(compare("never", **changed, **{"race.fresh_control": False})))
        if each.code == FEW_PASSES
    ]
    assert len(said) == len(words)
    for text, part in zip(said, words, strict=True):
        assert part in text


def test_one_store_that_comes_twice_makes_another_run(compare: Compare, stores: dict[str, str]) -> None:
    named = [f"{stores['large']}:1", f"{stores['small']}:1"]
    plan = planned(
        compare("never", **{"run.data.stores": named, "run.data.max_rows": None}, budget="30-steps")
    )
    full = plan.arms[1]
    assert plan.passes(full) < 1 < plan.most_passes(full)
    said = [each.text for each in cautions_of(plan) if each.code == FEW_PASSES]
    assert ["only the part of the rows" in text for text in said] == [True]


@pytest.mark.parametrize(("changed", "told"), [
    ({"variance.sequences": 59}, True), ({"variance.sequences": 60}, False),
    ({"variance.sequences": 59, "only": ["race"]}, False),
])  # fmt: skip
def test_few_rows_in_words(compare: Compare, changed: dict[str, Any], told: bool) -> None:
    plan = planned(compare("never", **{"run.data.max_rows": 96, **changed}))
    said = [each.text for each in cautions_of(plan) if each.code == "few-rows"]
    words = "variance.sequences=59: of fewer than 60 rows, intervals are too narrow where rows differ much"
    assert [text.startswith(words) for text in said] == [True] * told


@pytest.mark.parametrize(("steps", "told"), [(100, False), (10, True)])
def test_gradients_that_take_longer_than_the_runs(compare: Compare, steps: int, told: bool) -> None:
    changed = {
        "run.data.max_rows": 96,
        "variance.sequences": 60,
        "variance.random": 8,
        "budget": f"{steps}-steps",
    }
    plan = planned(compare("never", **changed, **{"run.masking.segments": 4}))
    measured = plan.settings.variance
    each = 60 * (8 + measured.sets * 4 + 2 * measured.pairs * len(measured.distances)) + 64 * 2
    assert plan.gradients_measured == each
    said = [caution.text for caution in cautions_of(plan) if caution.code == "mostly-variance"]
    assert len(said) == told
    assert all(f"{each:,} gradients" in text for text in said)


def test_what_a_sweep_cannot_tell_apart(compare: Compare) -> None:
    sweep = {"segments": [2, 4, 5], "scope": ["epoch"]}
    changed = {"run.data.max_rows": 96, "budget": "12-steps", "only": ["race"], "run.batch.size": 8}
    said = cautioned(planned(compare("never", **changed, sweep=sweep)))
    assert len(said) == 3
    assert "3 of 3 points of the sweep make too few passes: the same run as random" in said[1]
    assert "K and the mask rate vary together: no random masking runs at rate 0.2, 0.5 (" in said[2]
    both = {"segments": [2, 4, 5], "strategy": ["random", "fully-explored"]}
    said = cautioned(planned(compare("never", **changed, sweep=both)))
    assert "3 of 6 points" in said[1] and len(said) == 2

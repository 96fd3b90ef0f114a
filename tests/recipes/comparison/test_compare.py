"""Comparing masks: what the arms share, what is found however the work is cut, and words that follow from the
numbers.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from fmlm_cli import storage
from fmlm_cli.analysis.results.plain import as_json
from fmlm_cli.analysis.statistics import falling_curve
from fmlm_cli.config import Budget, CompareSettings, PretrainSettings, build, nested
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event, Facts, Note, Scoreboard
from fmlm_cli.masking import get_strategy
from fmlm_cli.recipes import comparison
from fmlm_cli.recipes.comparison.coverage import expected_times, hamming
from fmlm_cli.recipes.comparison.draft import draft_comparison
from fmlm_cli.recipes.comparison.plan import with_budget
from fmlm_cli.recipes.comparison.run import COMPARISON
from fmlm_cli.recipes.finetuning.plan import FINETUNING
from fmlm_cli.recipes.pretraining.run import pretrain
from fmlm_cli.recipes.shared.checkpoints import find_checkpoint
from tests.analysis.report.comparison import made_json
from tests.recipes.finetuning.test_finetune import sentences, write_jsonl
from tests.recipes.runs import TINY, without_pictures

Compare = Callable[..., CompareSettings]
K, STEPS = 4, 12
ARMS = ["random", "fully-explored", "fully-explored:scope=batch"]
PARTS = ("coverage", "variance", "race", "downstream")


@pytest.fixture(scope="module", autouse=True)
def quick_runs() -> Iterator[None]:
    """Neither the device's peak nor any picture is looked at here."""
    with without_pictures() as patch:
        patch.setattr(
            "fmlm_cli.recipes.finetuning.report.draw_scores", lambda scores, folder: folder / "x.png"
        )
        patch.setattr("fmlm_cli.recipes.comparison.run.write_report", lambda root, results: [])
        yield


@pytest.fixture(scope="module")
def compare(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Compare:
    """`compare(out, **dotted names)`: settings of a comparison of tiny runs."""
    root = tmp_path_factory.mktemp("compared")
    (root / "config.json").write_text(json.dumps(TINY))
    for name, number, seed in (("train", 60, 1), ("dev", 30, 2), ("test", 30, 3)):
        write_jsonl(root / "rivers" / f"{name}.jsonl", sentences(number, seed))

    def make(out: str, **changed: Any) -> CompareSettings:
        fixed = {
            "out": str(root / out),
            "strategies": ARMS,
            "seeds": 2,
            "budget": f"{STEPS}-steps",
            "run.model.name": str(root / "config.json"),
            "run.data.stores": [str(tiny_store)],
            "run.data.max_rows": 24,
            "run.sequence_length": 32,
            "run.batch.size": 8,
            "run.masking.segments": K,
            "run.evaluation.max_rows": 6,
            "run.evaluation.every_steps": 4,
            "run.optimizer.learning_rate": 0.01,
            "run.model.unigram_bias": False,  # then there is something to learn from the first step on
            "variance.sequences": 10,
            "variance.random": 4,
            "variance.distances": [0.0, 1.0],
            "downstream.training.epochs": 1,
            "downstream.training.learning_rate": 1e-2,
        }
        return build(CompareSettings, nested({**fixed, **changed}))

    return make


@pytest.fixture(scope="module")
def tasks(compare: Compare) -> dict[str, Any]:
    return {"downstream.tasks": ["rivers"], "downstream.folder": str(Path(compare("x").out or "").parent)}


@pytest.fixture(scope="module")
def whole(compare: Compare, tasks: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """A comparison of all parts. Not to be written to."""
    found = comparison.compare_masks(compare("whole", **tasks))
    assert found is not None
    return found.root, json.loads((found.root / "results.json").read_text())


@pytest.fixture(scope="module")
def small(compare: Compare, tasks: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings with a little of everything, and what is found by them in one go."""
    changed = {
        **tasks,
        "strategies": ARMS[:2],
        "race.fresh_control": False,
        "variance.checkpoints": ["early"],
        "variance.corruptions": ["race"],
        "variance.sequences": 10,
    }
    results, _ = said(compare("small", **changed))
    assert results is not None
    return changed, results


def said(settings: CompareSettings, **how: Any) -> tuple[dict[str, Any] | None, str]:
    events: list[Event] = []
    found = comparison.compare_masks(settings, emit=events.append, **how)
    texts = [e.text for e in events if isinstance(e, Note | Caution)]
    texts += [f"{e.title} {dict(e.rows)}" for e in events if isinstance(e, Facts)]
    return None if found is None else as_json(found.results), "\n".join(texts)


def timeless(results: Any) -> Any:
    """Without what time and place have to do with."""
    results = json.loads(json.dumps(results))
    for name in ("settings", "command"):
        results.pop(name)
    for name in ("cost", "next_step"):
        results["verdict"].pop(name)
    for arm in results["arms"]:
        arm.pop("tokens_per_second")
        arm.pop("seconds")
    return results


def records(root: Path, arm: str, seed: int) -> list[dict[str, Any]]:
    path = root / "race" / arm.replace(":", ",") / f"seed-{seed}" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def evaluations(root: Path, arm: str, seed: int) -> list[dict[str, Any]]:
    return [record for record in records(root, arm, seed) if "eval_loss" in record]


# ---------------------------------------------------------------- what is compared


def test_arms_of_a_seed_begin_alike_and_forward_the_same(whole: tuple[Path, Any]) -> None:
    root, results = whole
    names = [arm["name"] for arm in results["arms"]]
    assert names == [*ARMS, "random:rows=fresh"]
    for seed in (0, 1):
        runs = [evaluations(root, name, seed) for name in names]
        assert len({json.dumps(run[0]) for run in runs}) == 1  # the same weights and held-out masks
        assert len({run[-1]["eval_loss"] for run in runs}) == len(names)
        curves = [results["race"]["curves"][name][str(seed)] for name in names[:2]]
        assert curves[0]["tokens"] == curves[1]["tokens"]
    first, second = (evaluations(root, "random", seed)[0]["eval_loss"] for seed in (0, 1))
    assert first != second
    by_name = {arm["name"]: arm for arm in results["arms"]}
    assert [by_name[name]["passes"] for name in names[:3]] == [4, 4, 1]
    assert [by_name[name]["sequences_per_step"] for name in names[:3]] == [8, 8, 2]
    assert by_name["random:rows=fresh"]["control"] and by_name["random:rows=fresh"]["passes"] < 1
    assert {arm["rate"] for arm in results["arms"]} == {1 / K}
    assert [by_name[name]["first_pass_as"] for name in names] == [None, "random", None, None]
    for seed in (0, 1):
        on_targets = {run[-1]["unigram_loss"] for run in (evaluations(root, name, seed) for name in names)}
        assert on_targets == {results["race"]["unigram_loss"][str(seed)]}
    assert not list(root.glob("race/*/*/checkpoints"))


def test_statistics_are_those_of_the_runs(whole: tuple[Path, Any]) -> None:
    root, results = whole
    race = results["race"]
    losses = {
        arm: np.array([evaluations(root, arm, seed)[-1]["eval_loss"] for seed in (0, 1)]) for arm in ARMS
    }
    p_values = {}
    for arm, own in losses.items():
        assert list(race["final"][arm]["values"].values()) == own.tolist()
        assert race["final"][arm]["mean"] == pytest.approx(own.mean())
        assert race["final"][arm]["sd"] == pytest.approx(own.std(ddof=1))
        if arm != "random":
            test, paired = stats.ttest_rel(own, losses["random"]), race["paired"][arm]
            low, high = test.confidence_interval(0.95)
            assert (paired["low"], paired["high"]) == pytest.approx((low, high))
            assert paired["mean"] == pytest.approx((own - losses["random"]).mean())
            assert paired["p_value"] == pytest.approx(test.pvalue)
            p_values[arm] = test.pvalue
    small, large = sorted(p_values, key=p_values.__getitem__)
    assert race["paired"][small]["p_adjusted"] == pytest.approx(min(1, 2 * p_values[small]))
    assert race["paired"][large]["p_adjusted"] == pytest.approx(
        min(1, max(2 * p_values[small], p_values[large]))
    )
    control = race["paired"]["random:rows=fresh"]
    assert control["p_adjusted"] == control["p_value"]  # no candidate: a test of its own


def test_tokens_to_a_loss_that_both_reach(whole: tuple[Path, Any]) -> None:
    _, results = whole
    reached = results["race"]["tokens_to_reach"]
    assert list(reached) == [*ARMS[1:], "random:rows=fresh"]
    own = reached["fully-explored"]
    logs = [np.log(list(own[side].values())) for side in ("values", "baseline")]
    assert own["ratio"]["value"] == pytest.approx(np.exp((logs[0] - logs[1]).mean()))
    low, high = stats.ttest_rel(*logs).confidence_interval(0.95)
    assert (own["ratio"]["low"], own["ratio"]["high"]) == pytest.approx((np.exp(low), np.exp(high)))
    for seed in ("0", "1"):
        curves = (results["race"]["curves"][arm][seed]["losses"] for arm in ARMS[:2])
        assert own["targets"][seed] == pytest.approx(max(falling_curve(losses)[-1] for losses in curves))


def test_variance_is_measured_at_three_points(whole: tuple[Path, Any]) -> None:
    root, results = whole
    measured = results["variance"]
    assert [(m["name"], m["step"]) for m in measured[::2]] == [("start", 0), ("early", 1), ("late", STEPS)]
    assert [m["corruption"] for m in measured] == ["[MASK] only", "80/10/10"] * 3
    for at, step in (("start", 0), ("late", STEPS)):
        (loss,) = [r["eval_loss"] for r in evaluations(root, "random", 0) if r["step"] == step]
        assert [m["loss"] for m in measured if m["name"] == at] == pytest.approx([loss] * 2, abs=1e-5)
    for each in measured:
        same = each["correlations"][0]["value"]  # the same mask; with [MASK] only, the same input
        if each["corruption"] == "[MASK] only":
            assert same == pytest.approx(1, abs=1e-5)
        else:
            assert same < 0.999
        assert set(each["equal_compute"]) == {"random_masks", "segments"}
        assert each["sequences"] + each["left_out"] == each["looked_at"]
    text = " ".join(results["verdict"]["sentences"])
    assert "Within one step, for the same rows forwarded" in text and "scope batch" in text


def test_coverage_is_that_of_the_masks(whole: tuple[Path, Any]) -> None:
    _, results = whole
    found = results["coverage"]
    assert list(found) == ARMS  # rows that come once have nothing to be covered
    for arm in ARMS[1:]:
        assert found[arm]["times_masked"] == [0, 1]
        assert found[arm]["hamming"]["disjoint"] == 1
        assert found[arm]["expected"] == [0, 1]
    random = found["random"]
    assert random["epochs"] == 4
    assert random["expected"] == pytest.approx(stats.binom.pmf(range(5), 4, 1 / K).tolist())
    np.testing.assert_allclose(
        random["times_masked"], random["expected"][: len(random["times_masked"])], atol=0.08
    )
    assert random["hamming"]["mean"] == pytest.approx(1 - 1 / K, abs=0.05)
    assert sum(random["hamming"]["shares"]) == pytest.approx(1)


def test_downstream_scores_are_those_of_finetune(whole: tuple[Path, Any]) -> None:
    root, results = whole
    found = results["downstream"]["rivers"]
    own = found["arms"]
    for arm in (*ARMS, "random:rows=fresh"):
        for seed in (0, 1):
            folder = root / "downstream" / arm.replace(":", ",") / f"seed-{seed}" / "rivers"
            tuned = json.loads((folder / "results.json").read_text())
            assert tuned["settings"]["first_seed"] == seed
            score = tuned["tasks"]["rivers"]["test"]["test"]["macro_f1"]["mean"]
            assert own[arm]["values"][str(seed)] == pytest.approx(score)
            assert not (folder / "models").exists()
    assert (found["split"], own["random"]["paired"]) == ("test", None)
    difference = np.subtract(*(list(own[arm]["values"].values()) for arm in ("fully-explored", "random")))
    assert own["fully-explored"]["paired"]["mean"] == pytest.approx(difference.mean())


def test_made_up_results_have_the_shape_of_real_ones(whole: tuple[Path, Any]) -> None:
    """On what tests/analysis/comparison.py makes the report is tested."""
    _, real = whole
    made = made_json()
    places: tuple[Callable[[Any], Any], ...] = (
        lambda r: r,
        *(lambda r, name=name: r[name] for name in ("model", "data", "evaluation", "race", "verdict")),
        lambda r: r["arms"][0],
        lambda r: r["arms"][0]["tokens_per_second"],
        lambda r: r["coverage"]["random"],
        lambda r: r["coverage"]["random"]["hamming"],
        lambda r: r["variance"][0],
        *(lambda r, name=name: r["variance"][0][name] for name in ("identity", "components", "equal_compute")),
        lambda r: r["variance"][0]["correlations"][0],
        lambda r: r["race"]["curves"]["random"]["0"],
        lambda r: r["race"]["final"]["random"],
        lambda r: next(iter(r["race"]["paired"].values())),
        lambda r: next(iter(r["race"]["tokens_to_reach"].values())),
        lambda r: next(iter(r["race"]["tokens_to_reach"].values()))["ratio"],
        lambda r: next(iter(r["downstream"].values())),
        lambda r: next(iter(r["downstream"].values()))["arms"]["random"],
    )  # fmt: skip
    for place in places:
        assert set(place(made)) == set(place(real))


# ---------------------------------------------------------------- however it is cut


@pytest.mark.parametrize("part", PARTS)
def test_every_part_alone(
    compare: Compare, tasks: dict[str, Any], whole: tuple[Path, Any], part: str
) -> None:
    changed = {"strategies": ARMS[:2], "race.fresh_control": False, "only": [part]}
    results, _ = said(compare(f"only-{part}", **tasks, **changed))
    assert results is not None
    parts = {"race", "downstream"} if part == "downstream" else {part}  # it has to be raced for
    assert {name for name in PARTS if results[name] is not None} == parts
    wanted = timeless(whole[1])[part]
    if part == "variance":
        assert timeless(results)[part] == wanted
        assert [path.name for path in (Path(compare("only-variance").out or "") / "race").iterdir()] == [
            "random"
        ]
        return
    got, arm = timeless(results)[part], "fully-explored"
    keep = {
        "coverage": lambda r: r[arm],
        "race": lambda r: r["curves"][arm],
        "downstream": lambda r: r["rivers"]["arms"][arm]["values"],
    }
    assert keep[part](got) == keep[part](wanted)


def stop_at(done: int, *, running: bool) -> Callable[[Event], None]:
    """An `emit` that fails when so much is done."""

    def emit(event: Event) -> None:
        if isinstance(event, Scoreboard) and event.done == done and event.running == running:
            raise RuntimeError("the power went out")

    return emit


def test_an_interrupted_comparison_ends_as_if_it_never_was(
    compare: Compare, small: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    settings = compare("stopped", **small[0])
    root = Path(settings.out or "")
    for done, running in ((2, True), (3, False), (5, True)):
        with pytest.raises(RuntimeError):
            comparison.compare_masks(settings, resume=root.exists(), emit=stop_at(done, running=running))
    first = root / "race/random/seed-0/final/model.safetensors"
    stamp = first.stat().st_mtime_ns
    results, _ = said(CompareSettings(out=settings.out), resume=True)  # all else is as it was
    assert first.stat().st_mtime_ns == stamp
    assert timeless(results) == timeless(small[1])


@pytest.mark.parametrize(
    "changed", [{"logging.every_steps": 1000}, {"logging.every_steps": 5, "checkpoint.keep": 1}]
)
def test_the_early_model_is_there_however_rarely_is_logged(compare: Compare, changed: dict[str, Any]) -> None:
    given = {
        "only": ["variance"],
        "variance.checkpoints": ["early"],
        "variance.corruptions": ["race"],
        **{f"run.{name}": value for name, value in changed.items()},
    }
    settings = compare(f"sparse {len(changed)}", **given)
    with pytest.raises(RuntimeError):
        comparison.compare_masks(settings, emit=stop_at(0, running=True))
    results, _ = said(settings, resume=True)
    assert results is not None
    assert [(each["name"], each["step"]) for each in results["variance"]] == [("early", 1)]
    root = Path(str(settings.out))
    assert (root / "variance" / "early-model" / "model.safetensors").is_file()
    run = root / "race" / "random" / "seed-0"
    assert (
        yaml.safe_load((run / "config.yaml").read_text())["checkpoint"]["every_steps"] == 2
    )  # as in any run
    assert not (run / "checkpoints").exists()


def test_a_measurement_that_is_damaged_or_gone(compare: Compare, small: tuple[dict[str, Any], Any]) -> None:
    settings = compare("measured", **small[0])
    said(settings)
    (path,) = (Path(settings.out or "") / "variance").glob("*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(UserError, match=r"npz has changed since it was written: remove it, and --resume"):
        said(settings, report_only=True)
    path.unlink()
    with pytest.raises(UserError, match=r"10 of 11 pieces of work are done, and variance/early.race not"):
        said(settings, report_only=True)
    said(settings, resume=True)
    assert path.stat().st_size == len(whole)


def test_cells_in_any_order_make_the_same(
    compare: Compare, small: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    settings = compare("cells", **small[0])
    for i in (3, 1):
        results, text = said(settings, cell=f"{i}/3")
        assert results is None and "pieces of work are done" in text
    with pytest.raises(UserError, match=r"pieces of work are done, and race/random/seed-0, .* not: do them"):
        said(settings, report_only=True)
    results, _ = said(settings, cell="2/3")
    assert timeless(results) == timeless(small[1])
    again, _ = said(CompareSettings(out=settings.out), report_only=True)
    assert timeless(again) == timeless(results)


def test_more_seeds_are_added_to_those_that_are_there(compare: Compare) -> None:
    changed = {"only": ["race"], "strategies": ARMS[:2], "race.fresh_control": False}
    settings = compare("grown", **changed)
    before, _ = said(settings)
    assert before is not None
    more = {**changed, "seeds": 3}
    results, _ = said(compare("grown", **more), resume=True)
    assert results is not None
    assert [len(own["values"]) for own in results["race"]["final"].values()] == [3, 3]
    for arm, own in before["race"]["curves"].items():
        for seed, curve in own.items():
            assert results["race"]["curves"][arm][seed] == curve
    for changed, message in (
        ({"budget": "13-steps"}, r"was made with budget.steps 12, not 13: go back to that"),
        ({"run.batch.size": 12}, r"was made with batch.size 8, not 12"),
        ({"run.masking.segments": 5}, r"masking\.\w+ 0?\.?\w+, not"),
    ):
        with pytest.raises(UserError, match=message):
            said(compare("grown", **{**more, **changed}), resume=True)
    with pytest.raises(UserError, match="is not empty"):
        said(compare("grown", **more))
    results, _ = said(compare("grown", **{**more, "only": ["coverage"]}), overwrite=True)
    assert results is not None and results["race"] is None


# ---------------------------------------------------------------- sweeps, controls, budgets


def test_a_sweep_is_a_grid_of_runs(compare: Compare) -> None:
    sweep = {"strategy": ["random"], "segments": [2, 4]}
    changed = {"only": ["race"], "strategies": ARMS[:2], "race.fresh_control": False, "sweep": sweep}
    results, _ = said(compare("swept", **changed, budget="10-steps"))
    assert results is not None
    points = {(p["settings"]["strategy"], p["settings"]["segments"]): p for p in results["sweep"]["points"]}
    assert set(points) == {(s, k) for s in sweep["strategy"] for k in sweep["segments"]}
    assert len({point["mean"] for point in points.values()}) == 2
    # At the race's own K it is the race's own run.
    assert points["random", K]["values"] == results["race"]["final"]["random"]["values"]
    storage.check_claim(Path(compare("swept").out or ""), COMPARISON, overwrite=True, resume=False)


def test_runs_may_be_swept_by_any_setting(compare: Compare) -> None:
    shares = {"mask": 1.0, "random": 0.0, "keep": 0.0}
    sweep = {"corruption": [shares], "run": {"optimizer": {"learning_rate": [0.01, 0.02]}}}
    made = draft_comparison(compare("never", sweep=sweep), Path("never"), lambda event: None)
    assert made.sweep is not None
    assert list(made.sweep.axes) == ["corruption", "run.optimizer.learning_rate"]
    for (_, arm), rate in zip(made.sweep.points, (0.01, 0.02), strict=True):
        run = made.run_settings(arm, 0, Path("run"), STEPS)
        assert run.optimizer.learning_rate == rate
        assert run.masking.strategy == "fully-explored"
        assert run.masking.corruption.mask == 1


@pytest.mark.parametrize(
    ("changed", "there"),
    [
        ({}, True),
        ({"race.fresh_control": False}, False),
        ({"run.data.max_rows": None}, False),
        ({"budget": "2000-steps"}, False),  # more than the store has
        ({"budget": "24-steps", "run.data.max_rows": 300}, False),  # no row comes twice anyhow
    ],
)
def test_fresh_rows_where_there_are_enough(compare: Compare, changed: dict[str, Any], there: bool) -> None:
    made = draft_comparison(compare("never", **changed), Path("never"), lambda event: None)
    plan = with_budget(made, made.steps(Budget.parse(made.settings.budget or "")))
    assert [arm.name for arm in plan.arms if arm.control] == ["random:rows=fresh"] * there


def test_minutes_are_timed_once(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = iter([100.0])
    monkeypatch.setattr("fmlm_cli.recipes.comparison.run._tokens_per_second", lambda *_: next(speeds))
    changed = {"only": ["coverage"], "strategies": ARMS[:2], "budget": "0.5m"}
    results, text = said(compare("timed", **changed))
    assert "--budget 0.5m is about 3,000 tokens here" in text
    settings = compare("timed", **changed)
    said(CompareSettings(out=settings.out), resume=True)
    again, _ = said(settings, resume=True)
    assert results is not None and again is not None
    assert timeless(again) == timeless(results)
    assert results["steps"] == 12


def test_timing_leaves_nothing_behind(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = compare("soon", budget="0.00001m")
    with pytest.raises(
        UserError, match=r"--budget 0.00001m makes \d steps? of 8 rows: a race takes at least 10"
    ):
        comparison.compare_masks(settings)
    assert not Path(settings.out or "").exists()


def test_few_passes_are_said_once(compare: Compare) -> None:
    changed = {"only": ["race"], "strategies": ARMS[:2], "run.data.max_rows": None, "budget": "10-steps"}
    results, text = said(compare("short", **changed))
    assert results is not None
    assert text.count("passes over the data: the same run as random") == 1
    assert "With 2 seeds an interval reaches 12.7 standard errors either way" in text
    assert any("made at most one pass" in sentence for sentence in results["verdict"]["sentences"])
    own = results["race"]["paired"]["fully-explored"]
    assert own["mean"] == 0 and own["p_value"] is None and own["note"]  # the same runs are no test


def test_runs_that_diverge(compare: Compare) -> None:
    changed = {
        "only": ["race"],
        "strategies": ARMS[:2],
        "race.fresh_control": False,
        "run.optimizer.learning_rate": 1e30,
        "run.optimizer.clip": None,
    }
    with pytest.raises(DivergedError, match=r"^nothing came of any run: not finite at step"):
        said(compare("diverged", **changed))
    results = json.loads((Path(compare("diverged", **changed).out) / "results.json").read_text())
    assert results["race"]["final"]["random"]["values"] == {"0": None, "1": None}
    assert "runs diverged" in results["verdict"]["headline"]


@pytest.mark.parametrize("arm", ["random", "fully-explored"])
def test_a_run_that_diverges_ends_no_comparison(
    compare: Compare, monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    def diverging(settings: PretrainSettings, **how: Any) -> Any:
        if (settings.masking.strategy, settings.seed) == (arm, 1) and settings.masking.scope != "batch":
            raise DivergedError("not finite at step 3")
        return pretrain(settings, **how)

    monkeypatch.setattr("fmlm_cli.recipes.comparison.work.pretrain", diverging)
    results, _ = said(compare(f"one-{arm}", only=["race"], **{"race.fresh_control": False}))
    assert results is not None
    race, sentences = results["race"], results["verdict"]["sentences"]
    assert race["final"][arm]["values"]["1"] is None and race["final"][arm]["values"]["0"] is not None
    assert None not in race["unigram_loss"].values()
    label = {own["name"]: own["label"] for own in results["arms"]}[arm]
    assert any(text.startswith(f"Diverged: {label} with seed 1; shown, not compared") for text in sentences)
    compared = [name for name, pair in race["paired"].items() if pair["n"]]
    assert compared == ([] if arm == "random" else [ARMS[2]])


def test_hamming_distances() -> None:
    one = np.array([[[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]]], bool)
    found = hamming(one)
    assert found is not None
    assert found.pairs == 3 and found.mean == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert found.disjoint == pytest.approx(1 / 3)
    assert hamming(one[:, :1]) is None


def test_what_strategies_promise() -> None:
    assert expected_times(get_strategy("fully-explored", segments=4), 6) == [0, 0.5, 0.5]
    assert expected_times(get_strategy("fully-explored", segments=4, scope="batch"), 2) == [0, 0, 1]
    found = expected_times(get_strategy("random", segments=4, masks_per_sequence=2), 3)
    assert found == pytest.approx(stats.binom.pmf(range(7), 6, 0.25).tolist())


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"strategies": ["random"]}, "at least two strategies, only random is given"),
        ({"strategies": []}, "at least two strategies, none is given"),
        ({"strategies": ["random", "fuly-explored"]}, "did you mean 'fully-explored'"),
        ({"strategies": ["random", "fully-explored:scop=batch"]}, "did you mean 'scope'"),
        ({"strategies": ["random", "fully-explored:scope=step"]}, "scope"),
        (
            {"strategies": ["random", "random:scope=batch"]},
            "strategy random:scope=batch: masking.scope batch",
        ),
        ({"strategies": ["random", "fully-explored", "fully-explored:scope=epoch"]}, "are the same"),
        ({"strategies": ["random", "fully-explored:rows=fresh"]}, "leave scope epoch nothing to do"),
        ({"budget": "9-steps"}, "makes 9 steps of 8 rows: a race takes at least 10"),
        ({"budget": None}, "no budget"),
        ({"seeds": 1}, "--seeds 1: the race's intervals"),
        ({"run.batch.size": 10}, r"batch.size 10 does not suit all strategies.*=8 or 12"),
        ({"run.masking.scope": "batch"}, "is not common to all strategies"),
        ({"run.budget.steps": 20}, "give --budget"),
        ({"run.data.stores": ["nowhere"]}, "nowhere"),
        ({"only": ["downstream"]}, "give --tasks"),
        ({"downstream.tasks": ["colla"]}, "did you mean 'cola'"),
        ({"variance.distances": [0.3]}, "0.3"),
        ({"run.sequence_length": 8}, "gradient variance takes at least 10 rows"),
        ({"sweep": {"segmnts": [2, 4]}}, "did you mean 'segments'"),
        ({"sweep": {"segments": 4}}, "has to be a list"),
        ({"sweep": {"segments": [3], "strategy": ["fully-explored:scope=batch"]}}, "does not suit all"),
        ({"run.optimizer.head_warmup_steps": 12}, "leaves nothing of the runs' 12 steps"),
    ],
)
def test_refusals_leave_nothing(compare: Compare, changed: dict[str, Any], message: str) -> None:
    settings = compare("refused", **changed)
    with pytest.raises(UserError, match=message) as caught:
        comparison.compare_masks(settings)
    assert "\n" not in str(caught.value)
    assert not Path(settings.out or "").exists()


def test_a_store_without_held_out_text(
    compare: Compare, make_store: Any, documents: list[str], tmp_path: Path
) -> None:
    store = make_store(tmp_path / "store", documents[:40])
    with pytest.raises(UserError, match="has no validation split"):
        comparison.compare_masks(compare("refused", **{"run.data.stores": [str(store)]}))


def test_nothing_in_the_folder_is_foreign(whole: tuple[Path, Any]) -> None:
    root, _ = whole
    kinds = {kind.name: kind for kind in (COMPARISON, FINETUNING, storage.RUN)}
    assert {storage.kind_of(path.parent) for path in root.rglob(storage.MARKER)} == set(kinds)
    for folder in (path.parent for path in root.rglob(storage.MARKER)):
        storage.check_claim(folder, kinds[str(storage.kind_of(folder))], overwrite=True, resume=False)
    (root.parent / "fresh").touch()
    modes = {path.stat().st_mode for path in root.rglob("*") if path.is_file()}
    assert modes == {(root.parent / "fresh").stat().st_mode}  # safetensors writes files of mode 600


def test_one_that_others_are_at_work_in_is_not_cleared(
    compare: Compare, whole: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmlm_cli.recipes.jobs.work._ENDING_SECONDS", 0)
    root, _ = whole
    before = sorted(root.rglob("*"))
    with storage.owned_folder(root, COMPARISON, resume=True, shared=True):
        for flags in ({"overwrite": True}, {"resume": True}):
            with pytest.raises(UserError, match="is in use by another fmlm process"):
                comparison.compare_masks(compare("whole"), **flags)
    assert sorted(root.rglob("*")) == before


def test_a_folder_of_something_else(compare: Compare, whole: tuple[Path, Any]) -> None:
    with pytest.raises(UserError, match="is not empty"):
        comparison.compare_masks(compare("whole"))
    with pytest.raises(UserError, match="no comparison to report on"):
        comparison.compare_masks(compare("empty"), report_only=True)
    run = compare("whole/race/random/seed-0")
    with pytest.raises(UserError, match="is a run, not a comparison"):
        comparison.compare_masks(run, resume=True)
    with pytest.raises(UserError, match="what `fmlm compare-masks` left: give one of its runs, such as"):
        find_checkpoint(str(whole[0]))


def test_what_a_comparison_is_made_from_is_not_replaced(
    compare: Compare, tasks: dict[str, Any], tmp_path: Path
) -> None:
    inside = tmp_path / "mine"
    shutil.copytree(Path(tasks["downstream.folder"]) / "rivers", inside / "tasks/rivers")
    (inside / "config.yaml").write_text("")
    settings = compare("x", **{**tasks, "downstream.folder": str(inside / "tasks")})
    settings = settings.model_copy(update={"out": str(inside)})
    with pytest.raises(UserError, match="fmlm did not make it"):  # whatever config.yaml it has
        comparison.compare_masks(settings, overwrite=True)
    shutil.rmtree(inside)
    with storage.owned_folder(inside, COMPARISON):
        shutil.copytree(Path(tasks["downstream.folder"]) / "rivers", inside / "downstream/rivers")
    settings = compare("x", **{**tasks, "downstream.folder": str(inside / "downstream")})
    settings = settings.model_copy(update={"out": str(inside)})
    with pytest.raises(UserError, match=r"task's data .* lies inside"):
        comparison.compare_masks(settings, overwrite=True)
    assert len(list(inside.rglob("*.jsonl"))) == 3


def test_weights_that_are_gone_are_no_divergence(compare: Compare, tasks: dict[str, Any]) -> None:
    changed = {"strategies": ARMS[:2], "race.fresh_control": False}
    settings = compare("gone", **changed, only=["race"])
    said(settings)
    root = Path(settings.out or "")
    shutil.rmtree(root / "race/random/seed-0/final")
    with pytest.raises(
        UserError, match=r"is no longer there to be fine-tuned: remove .*race/random/seed-0.json"
    ):
        said(compare("gone", **changed, **tasks, only=["downstream"]), resume=True)

"""Whatever was found, there is one thing to do next, and its command is one that the command line takes."""

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlm_cli.analysis.report.findings import race as findings
from fmlm_cli.analysis.report.findings.next_steps import seeds_to_halve, visible_with
from fmlm_cli.analysis.report.findings.whole import verdict
from fmlm_cli.analysis.report.html import page
from fmlm_cli.analysis.report.markdown import document
from fmlm_cli.analysis.report.summary import arms_table, setup_table, summary_of
from fmlm_cli.analysis.report.values import Arms
from fmlm_cli.analysis.report.writing import parts_of
from fmlm_cli.analysis.results.comparison import ComparisonResults
from fmlm_cli.analysis.statistics import detectable_effect
from fmlm_cli.config import CompareSettings, PretrainSettings, build, nested, to_yaml
from tests.analysis.report.races import UNIGRAM, by_seed, compared, race_of
from tests.analysis.report.test_diverged import ODD, TWICE
from tests.command_lines import read_back

NAMES = ["random", "full-epoch", "full-batch", "fresh"]
MASKINGS = {
    "random": "random",
    "full-epoch": "fully-explored",
    "full-batch": "fully-explored",
    "fresh": "random",
}
RUN = {
    "data.stores": ["a store:2", "it's"],
    "data.max_rows": 840,
    "model.name": "bert-mini",
    "sequence_length": 64,
    "batch.size": 28,
    "optimizer.learning_rate": 3e-5,
    "optimizer.betas": [0.9, 0.95],
    "masking.segments": 5,
    "evaluation.stores": {"other text": "wiki store"},
}


def made_settings(out: str = "my races", **run: Any) -> dict[str, Any]:
    given = nested({"out": out, "strategies": ["random", "fully-explored"], "budget": "210-steps"})
    tree = build(CompareSettings, given, {"run": nested(RUN | run)})
    return tree.model_dump(mode="json")


def with_masking(results: ComparisonResults, **run: Any) -> ComparisonResults:
    """The same with arms that mask as real ones, and full settings."""
    arms = []
    for arm in results.arms:
        scope = "batch" if "batch" in arm.name else "epoch" if "full" in arm.name else None
        masking = {"strategy": MASKINGS[arm.name], "segments": 5, "scope": scope}
        settled = build(PretrainSettings, {"masking": masking}).masking.model_dump(mode="json")
        arms.append(replace(arm, masking=settled))
    return judged_anew(replace(results, arms=tuple(arms), settings=made_settings(**run)))


def judged_anew(results: ComparisonResults) -> ComparisonResults:
    return replace(results, verdict=verdict(results))


LOSSES = st.sampled_from([4.9, 5.0, 5.001, 5.013, 5.1, UNIGRAM + 0.2, 9.2, None])


@st.composite
def races(draw: st.DrawFn) -> ComparisonResults:
    """Patterns of final losses and scores, with passes, times and missing parts of all kinds."""
    seeds = draw(st.integers(2, 6))
    table = {name: dict(enumerate(draw(st.lists(LOSSES, min_size=seeds, max_size=seeds)))) for name in NAMES}
    race = race_of(table)
    scored = draw(st.booleans())
    scores = {
        name: {s: None if loss is None else draw(st.floats(0, 1)) for s, loss in own.items()}
        for name, own in table.items()
    }
    results = compared(race, scores if scored else None)
    if draw(st.booleans()):
        passes = draw(st.sampled_from([0.001, 0.67, 1.5, 1234.5]))
        arms = tuple(replace(arm, passes=passes) for arm in results.arms)
        results = compared(race, scores if scored else None, arms=arms)
    if draw(st.integers(0, 5)) == 0:
        results = replace(results, race=None, downstream=None, steps=draw(st.sampled_from([0, 210])))
    return results


@settings(max_examples=60)
@given(races(), st.sampled_from([None, "roberta-base"]), st.sampled_from([840, None]))
def test_there_is_one_next_step_and_its_command_is_taken(
    results: ComparisonResults,
    checkpoint: str | None,
    rows: int | None,
) -> None:
    results = with_masking(results, **{"model.checkpoint": checkpoint, "data.max_rows": rows})
    arms, step = Arms.of(results), results.verdict.next_step
    assert step.text and not ODD.search(step.text) and not TWICE.search(step.text), step
    summary, setup, parts = (
        summary_of(results, arms),
        [setup_table(results), arms_table(arms)],
        parts_of(results),
    )
    drawn = {exhibit.name: ("", "") for part in parts for exhibit in part.exhibits}
    for text in (page(summary, parts, drawn, setup, "", ""), document(summary, parts, setup, "", "")):
        assert not ODD.search(text) and text.count("--out 'my races-") + text.count("&#x27;my races-") <= 1
    check(results, step.text, step.command)


def check(results: ComparisonResults, text: str, line: str) -> None:
    """The command does what the text says."""
    kind = shlex.split(line)[1]
    if kind == "compare-masks":
        _check_comparison(results, text, line)
        return
    checkpoint = results.settings["run"]["model"]["checkpoint"]
    assert kind == ("continue" if checkpoint else "pretrain")
    assert text.startswith(("use ", "keep ", "no difference told, where "))
    _check_run(results, line, checkpoint)


def _check_run(results: ComparisonResults, line: str, checkpoint: str | None) -> None:
    """All settings are those of the race's runs, but for the masking, the seed, and that all rows are seen."""
    _, got, options = read_back(line)
    assert not options["resume"] and not options["overwrite"]
    run = results.settings["run"]
    stores = got.data.stores or got.text.sources  # `continue` looks what is there
    assert list(stores) == run["data"]["stores"] and got.model.checkpoint == checkpoint
    assert got.out == "my races-run" and got.data.max_rows is None
    assert got.masking.strategy in MASKINGS.values() and got.masking.segments == 5
    for name in ("batch", "sequence_length", "optimizer", "evaluation"):
        mine = got.model_dump(mode="json")[name]
        assert mine == run[name], name
    lengths = [arm.passes for arm in results.arms if arm.passes is not None]
    passes = got.budget.epochs
    assert got.budget.steps == results.steps or any(math.isclose(passes, n, rel_tol=0.01) for n in lengths)


@pytest.fixture(scope="module", autouse=True)
def _config(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "config.yaml").write_text(to_yaml(build(CompareSettings, made_settings())))
    CONFIG.append(folder / "config.yaml")


CONFIG: list[Path] = []


def _check_comparison(results: ComparisonResults, text: str, line: str) -> None:
    assert "'my races/config.yaml'" in line
    _, got, options = read_back(line, CONFIG[-1])
    if "--resume" in line:
        assert (options["resume"] and got.out != results.settings["out"]) or got.out
    else:
        assert got.out.startswith("my races-") and not options["resume"]
    if "seeds would see" in text:
        assert got.seeds > len(results.seeds) and f"{got.seeds} seeds would see" in text
    if text.startswith("train for longer"):
        assert int(got.budget.removesuffix("-steps")) > results.steps
    if text.startswith("lower the learning rate"):
        assert 0 < got.run.optimizer.learning_rate < results.learning_rate
    if text.startswith("let rows come"):
        assert got.run.data.max_rows < results.steps * results.batch_size
    if text.startswith("try other learning rates"):
        low, high = got.sweep["run"]["optimizer"]["learning_rate"]
        assert low < results.learning_rate < high
        assert got.sweep["strategy"][0] == results.baseline and len(got.sweep["strategy"]) > 1


def said(table: Any, **changed: Any) -> tuple[str, str]:
    """Text and command of a race of three arms with these losses."""
    losses = by_seed(np.asarray(table, float), NAMES[: len(table)])
    step = with_masking(compared(race_of(losses), **changed)).verdict.next_step
    check(with_masking(compared(race_of(losses), **changed)), step.text, step.command)
    return step.text, step.command


# Of mean 0 over the first 3, 5 and 8 seeds, nearly, so that arms that gain nothing are not told apart.
NOISE = 0.003 * np.array(
    [[0, 0, 0, 0, 0, 0, 0, 0], [1, -1, 0.1, 1, -1, 1, -1, 0.5], [-1, 1, 0, -1, 1, 0.5, 1, -1]]
)


def levels(*gains: float, seeds: int = 5, noise: float = 1) -> Any:
    return 5 - np.array(gains)[:, None] + noise * NOISE[: len(gains), :seeds]


def test_a_better_masking_is_used() -> None:
    text, command = said(levels(0, 0.1, 0))
    assert text == "use fully-explored (epoch)"
    assert (
        command.startswith("fmlm pretrain --data 'a store:2' --data ")
        and "--masking fully-explored" in command
    )
    assert "--set masking.scope=epoch" in command and "--set optimizer.learning_rate=3.0e-05" in command


def test_where_all_are_worse_the_baseline_is_kept() -> None:
    assert (
        said(levels(0, -0.1, -0.2))[0]
        == "keep random: fully-explored (epoch), fully-explored (batch) are worse"
    )
    assert "--masking random" in said(levels(0, -0.1))[1]


def test_what_is_not_told_takes_seeds_as_long_as_they_are_few() -> None:
    text, command = said(levels(0, 0.001, seeds=3))
    assert text.startswith("no difference told: the smallest visible is 0.") and " seeds would see 0." in text
    assert command.startswith("fmlm compare-masks 'my races/config.yaml' --resume --seeds ")


def test_then_the_cheaper_is_taken() -> None:
    text, _ = said(levels(0, 0.0, seeds=8))
    assert text.startswith("no difference told, where 0.") and text.endswith("take random")
    results = compared(race_of(by_seed(levels(0, 0.0, seeds=8), NAMES[:2])))
    random, full = results.arms
    faster = random, replace(full, seconds=0.5 * (random.seconds or 1))
    text, command = said(levels(0, 0.0, seeds=8), arms=faster)
    assert text.endswith("take the cheaper, fully-explored (epoch)") and "--masking fully-explored" in command


def test_too_short_a_race_is_made_longer() -> None:
    text, command = said([[UNIGRAM + 0.2] * 3, [UNIGRAM + 0.21] * 3])
    assert text.startswith(("train for longer: about ", "try other learning rates: ")), text
    assert "--budget" in command or "sweep.run.optimizer.learning_rate=" in command


def test_a_loss_that_does_not_fall_takes_another_learning_rate() -> None:
    text, command = said([[9.2] * 3, [9.3] * 3])  # above where they began
    assert text == "try other learning rates: with 0.001 the loss hardly falls"
    assert "--resume --only race" in command and "'sweep.strategy=[random, full-epoch]'" in command


def test_a_longer_race_has_rows_that_come_again() -> None:
    results = compared(race_of(by_seed([[UNIGRAM + 0.2] * 3, [UNIGRAM + 0.21] * 3], NAMES[:2])))
    arms = tuple(replace(arm, passes=0.01) for arm in results.arms)
    text, command = said([[UNIGRAM + 0.2] * 3, [UNIGRAM + 0.21] * 3], arms=arms)
    steps = int(command.split("--budget ")[1].split("-steps")[0])
    assert f"run.data.max_rows={steps * 28 // 7} " in command and "so that they come again" in text


def test_rows_that_come_once_are_made_to_come_again() -> None:
    results = compared(race_of(by_seed(levels(0, 0.0), NAMES[:2])))
    arms = tuple(replace(arm, passes=0.9) for arm in results.arms)
    text, command = said(levels(0, 0.0), arms=arms)
    assert text.startswith("let rows come 7 times, with fewer of them for the same time")
    assert "--set run.data.max_rows=840 " in command  # 210 steps of 28 rows


@pytest.mark.parametrize(("better", "text"), [
    ("random", "keep random where citation_intent is what the model is for: fully-explored (epoch) is worse there"),
    ("full-epoch", "use fully-explored (epoch)"),
])  # fmt: skip
def test_a_task_may_overrule_the_loss(better: str, text: str) -> None:
    race, rng = race_of(by_seed(levels(0, 0.1), NAMES[:2])), np.random.default_rng(1)
    scores = by_seed(0.7 + 0.001 * rng.normal(size=(2, 5)), NAMES[:2])
    scores[better] = {seed: (score or 0) + 0.1 for seed, score in scores[better].items()}
    assert with_masking(compared(race, scores)).verdict.next_step.text == text


def test_a_task_may_decide_where_the_loss_does_not() -> None:
    race, rng = race_of(by_seed(levels(0, 0.0), NAMES[:2])), np.random.default_rng(1)
    scores = by_seed(0.7 + np.array([[0], [0.1]]) + 0.001 * rng.normal(size=(2, 5)), NAMES[:2])
    step = with_masking(compared(race, scores)).verdict.next_step
    assert step.text == "use fully-explored (epoch): not told by its loss, but better at citation_intent"


def test_more_seeds_are_the_fewest_that_halve_what_is_seen() -> None:
    race = race_of(by_seed(levels(0, 0.0, seeds=3), NAMES[:2]))
    pair = race.paired["full-epoch"]
    seeds = seeds_to_halve(pair)
    assert seeds is not None and pair.detectable is not None
    half = detectable_effect(3) / 2
    assert detectable_effect(seeds) <= half < detectable_effect(seeds - 1)
    assert float(visible_with(pair, seeds)) <= 1.11 * pair.detectable / 2
    assert findings.rounded_up(pair.detectable) == visible_with(pair, None)


@pytest.mark.parametrize("out", ["races", ".", "..", "/", "-races", "a/b", "it's [odd]"])
def test_folders_with_odd_names(out: str) -> None:
    results = compared(race_of(by_seed([[UNIGRAM + 0.2] * 3, [None] * 3], NAMES[:2])))
    step = judged_anew(replace(results, settings=made_settings(out))).verdict.next_step
    assert not shlex.split(step.command)[2].startswith("-")  # which would be an option
    _, got, _ = read_back(step.command, CONFIG[-1])
    assert got.out and Path(got.out) != Path(out)
    assert "lower" in got.out

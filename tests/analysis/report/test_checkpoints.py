"""What is said of fine-tuned checkpoints against the first of them."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fmlm_cli.analysis.paired import Contest, compare_on_tasks
from fmlm_cli.analysis.report.checkpoints import Remedies, comparison_table, next_step, verdicts
from fmlm_cli.analysis.results.comparison import TaskResult
from fmlm_cli.analysis.statistics import detectable_effect

REMEDIES = Remedies(
    more_seeds=lambda seeds: f"more seeds: {seeds}",
    lower_rate="lower rate",
    ask=lambda name: f"ask {name}",
    paths={"original": "roberta-base", "adapted": "run/final", "one": "one", "two": "two"},
)


def compared(**scores: list[float | None]) -> dict[str, TaskResult]:
    """One task; the first arm is the baseline."""
    by_arm = {name: dict(enumerate(values)) for name, values in scores.items()}
    contest = Contest(next(iter(scores)), frozenset())
    return compare_on_tasks(contest, {"task": by_arm}, {"task": ("accuracy", "test")})


def said(**scores: list[float | None]) -> tuple[str, str, str]:
    """The sentence, what to do next, and its command."""
    results = compared(**scores)
    (sentence,), step = verdicts(results, "original"), next_step(results, "original", REMEDIES)
    return sentence, step.text, step.command


def test_a_gain_in_the_words_of_its_interval() -> None:
    gains = [0.004, 0.011, 0.018, 0.025, 0.032]
    sentence, step, command = said(original=[0.7, 0.72, 0.71, 0.7, 0.73], adapted=[
        a + b for a, b in zip([0.7, 0.72, 0.71, 0.7, 0.73], gains, strict=True)
    ])  # fmt: skip
    low, high = stats.t.interval(0.95, 4, 1.8, 100 * stats.sem(gains))
    p = stats.ttest_1samp(gains, 0).pvalue
    assert sentence == (
        f"adapted minus original: +1.8 ({low:.1f} to {high:.1f}), 5 seeds: better, p = {p:.2g} "
        "(task, test accuracy)"
    )
    assert (step, command) == ("use adapted (run/final)", "ask adapted")


def test_a_loss_and_what_is_not_told() -> None:
    sentence, step, command = said(original=[0.7, 0.71, 0.72], adapted=[0.6, 0.615, 0.62])
    assert ": worse, p" in sentence and sentence.startswith("adapted minus original: −9.")
    assert step.startswith("keep original (roberta-base); ") and command == "ask original"
    sentence, step, command = said(original=[0.7, 0.71, 0.72], adapted=[0.72, 0.70, 0.74])
    assert "3 seeds: not told apart, p = 0.4" in sentence and "can be expected to show" in sentence
    assert step.startswith("no difference told: the smallest visible is ") and command == "more seeds: 6"
    rng = np.random.default_rng(0)
    many = [list(0.7 + 0.01 * rng.standard_normal(12)) for _ in range(2)]
    _, step, command = said(original=many[0], adapted=many[1])
    assert (
        step.startswith("no difference told, where ") and "take either" in step and command == "ask original"
    )


def test_what_cannot_be_tested() -> None:
    sentence, step, command = said(original=[0.7], adapted=[0.72])
    assert sentence.startswith("adapted minus original: +2.0, not tested: one seed has no spread")
    assert (step, command) == ("run 5 seeds, which make a test", "more seeds: 5")
    sentence, step, command = said(original=[0.7, 0.7], adapted=[0.72, None])
    assert sentence.startswith("adapted minus original: not tested: diverged with seed 1 ")
    assert "lower the learning rate" in step and command == "lower rate"
    sentence, _, command = said(original=[None, None], adapted=[0.72, 0.8])
    assert "not tested: the baseline diverged" in sentence and command == "lower rate"
    _, step, _ = said(original=[0.7] * 5, adapted=[0.7] * 5)
    assert step == "keep original (roberta-base): no seed differs"


SCORES = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@given(SCORES, SCORES, SCORES)
def test_sentences_and_table_agree_on_who_is_better(
    original: list[float], one: list[float], two: list[float]
) -> None:
    results = compared(original=list(original), one=list(one), two=list(two))
    table = comparison_table(results, "original")
    assert [row[1] for row in table.rows] == ["original", "one", "two"]
    assert {len(row) for row in table.rows} == {len(table.header)}
    step = next_step(results, "original", REMEDIES)
    winners = []
    for name, sentence, values in zip(("one", "two"), verdicts(results, "original"), (one, two), strict=True):
        pair = results["task"].arms[name].paired
        assert pair is not None
        assert sentence.startswith(f"{name} minus original: ")
        if not pair.tested:
            assert "not tested" in sentence
            continue
        gain = float(np.mean(values) - np.mean(original))
        told = (pair.p_adjusted or 0.0) <= 0.05
        assert ("better" in sentence) == (told and gain > 0)
        assert ("worse" in sentence) == (told and gain < 0)
        assert ("not told apart" in sentence) == (not told)
        winners += [(gain, name)] if told and gain > 0 else []
        if told and gain < 0:
            assert not step.text.startswith(f"use {name}")
    assert bool(winners) == step.text.startswith("use ")
    assert not winners or step.command == f"ask {max(winners)[1]}"
    if step.command.startswith("more seeds") and "visible" in step.text:
        seeds = int(step.command.rpartition(" ")[2])
        pairs = [arm.paired for arm in results["task"].arms.values() if arm.paired]
        now = max(pair.detectable or 0.0 for pair in pairs if pair.better is None)
        alpha = 0.05 / (pairs[0].tests or 1)
        effect = now / detectable_effect(3, alpha) * detectable_effect(seeds, alpha)
        assert 3 < seeds <= 30 and effect <= now / 2
        power = stats.nct.sf(
            stats.t.isf(alpha / 2, seeds - 1), seeds - 1, detectable_effect(seeds, alpha) * math.sqrt(seeds)
        )
        assert power > 0.79


def test_a_mean_of_tasks_is_what_is_judged() -> None:
    tasks = {
        "easy": {"original": {0: 0.5, 1: 0.6, 2: 0.55}, "adapted": {0: 0.7, 1: 0.81, 2: 0.74}},
        "mean of 2 tasks": {"original": {0: 0.5, 1: 0.6, 2: 0.55}, "adapted": {0: 0.6, 1: 0.55, 2: 0.58}},
    }
    measured: dict[str, tuple[str, str | None]] = dict.fromkeys(tasks, ("score", "dev"))
    results = compare_on_tasks(Contest("original", frozenset()), tasks, measured)
    (sentence,) = verdicts(results, "original")
    assert sentence.endswith("(mean of 2 tasks, dev score)") and "not told apart" in sentence
    assert {arm.paired.tests for task in results.values() for arm in task.arms.values() if arm.paired} == {2}

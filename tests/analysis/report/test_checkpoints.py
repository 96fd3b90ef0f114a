"""What is said of fine-tuned checkpoints against the first of them."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fmlm_cli.analysis.paired import Contest, compare_on_tasks
from fmlm_cli.analysis.report.checkpoints import comparison_table, next_steps, verdicts
from fmlm_cli.analysis.results.comparison import TaskResult

AGAIN = "fmlm finetune tuned/config.yaml"


def compared(**scores: list[float | None]) -> dict[str, TaskResult]:
    """One task; the first arm is the baseline."""
    by_arm = {name: dict(enumerate(values)) for name, values in scores.items()}
    contest = Contest(next(iter(scores)), frozenset())
    return compare_on_tasks(contest, {"task": by_arm}, {"task": ("accuracy", "test")})


def said(**scores: list[float | None]) -> tuple[str, str]:
    """The sentence, and what to do next."""
    results = compared(**scores)
    (sentence,), (step,) = verdicts(results, "original"), list(next_steps(results, "original", AGAIN))
    return sentence, step


def test_a_gain_in_the_words_of_its_interval() -> None:
    gains = [0.004, 0.011, 0.018, 0.025, 0.032]
    sentence, step = said(original=[0.7, 0.72, 0.71, 0.7, 0.73], adapted=[
        a + b for a, b in zip([0.7, 0.72, 0.71, 0.7, 0.73], gains, strict=True)
    ])  # fmt: skip
    low, high = stats.t.interval(0.95, 4, 1.8, 100 * stats.sem(gains))
    p = stats.ttest_1samp(gains, 0).pvalue
    assert sentence == (
        f"adapted minus original: +1.8 ({low:.1f} to {high:.1f}), 5 seeds: better, p = {p:.2g} "
        "(task, test accuracy)"
    )
    assert step == "adapted: go on with it"


def test_a_loss_and_what_is_not_told() -> None:
    sentence, step = said(original=[0.7, 0.71, 0.72], adapted=[0.6, 0.615, 0.62])
    assert ": worse, p" in sentence and sentence.startswith("adapted minus original: −9.")
    assert step.startswith("adapted: keep original; ")
    sentence, step = said(original=[0.7, 0.71, 0.72], adapted=[0.72, 0.70, 0.74])
    assert "3 seeds: not told apart, p = 0.4" in sentence and "can be expected to show" in sentence
    assert step.startswith("adapted: a difference like the one seen takes ")
    assert step.endswith("--resume`") and f"`{AGAIN} --seeds " in step
    _, step = said(original=[0.7, 0.71, 0.72], adapted=[0.7001, 0.72, 0.71])
    assert step == "adapted: take either; more than 100 seeds would tell so small a difference"


def test_what_cannot_be_tested() -> None:
    sentence, step = said(original=[0.7], adapted=[0.72])
    assert sentence.startswith("adapted minus original: +2.0, not tested: one seed has no spread")
    assert step == f"adapted: several seeds make a test: `{AGAIN} --seeds 5 --resume`"
    sentence, step = said(original=[0.7, 0.7], adapted=[0.72, None])
    assert sentence.startswith("adapted minus original: not tested: diverged with seed 1 ")
    assert "lower the learning rate" in step
    sentence, _ = said(original=[None, None], adapted=[0.72, 0.8])
    assert "not tested: the baseline diverged" in sentence


SCORES = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@given(SCORES, SCORES, SCORES)
def test_sentences_and_table_agree_on_who_is_better(
    original: list[float], one: list[float], two: list[float]
) -> None:
    results = compared(original=list(original), one=list(one), two=list(two))
    table = comparison_table(results, "original")
    assert [row[1] for row in table.rows] == ["original", "one", "two"]
    assert {len(row) for row in table.rows} == {len(table.header)}
    steps = list(next_steps(results, "original", AGAIN))
    for name, sentence, step, values in zip(
        ("one", "two"), verdicts(results, "original"), steps, (one, two), strict=True
    ):
        pair = results["task"].arms[name].paired
        assert pair is not None
        assert sentence.startswith(f"{name} minus original: ") and step.startswith(f"{name}: ")
        if not pair.tested:
            assert "not tested" in sentence
            continue
        gain = float(np.mean(values) - np.mean(original))
        told = (pair.p_adjusted or 0.0) <= 0.05
        assert ("better" in sentence) == (step.endswith("go on with it")) == (told and gain > 0)
        assert ("worse" in sentence) == ("keep original" in step) == (told and gain < 0)
        assert ("not told apart" in sentence) == (not told)
        if "takes" in step:
            seeds = int(step.partition("takes ")[2].split()[0])
            effect = abs(pair.mean or 0.0) / (pair.sd or math.inf)
            t = stats.t.isf(0.025 / (pair.tests or 1), seeds - 1)
            assert stats.nct.sf(t, seeds - 1, effect * math.sqrt(seeds)) >= 0.79
            assert seeds > 3


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

"""Fine-tuned checkpoints against the first of them, in tables and sentences. Differences are in points."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fmlm_cli.analysis.report.findings.next_steps import FEW_SEEDS, seeds_to_halve, visible_with
from fmlm_cli.analysis.report.parts import ReportTable
from fmlm_cli.analysis.report.race import compared as columns_of
from fmlm_cli.analysis.report.race import marked
from fmlm_cli.analysis.report.values import Estimate, p_is, rounded_up, spell
from fmlm_cli.analysis.results.comparison import NextStep, PairedResult, ScoresResult, TaskResult
from fmlm_cli.events import counted

Compared = Mapping[str, TaskResult]  # by task, the mean of several last

HOW = (
    "Differences are paired by seed, in points, with the 95 % Student-t interval of each alone; p of the "
    "two-sided paired t-test, after Holm’s correction over all rows of the table. “Smallest visible” is the "
    "true difference that would be told with a probability of 80 %, by the spread seen (in brackets: at the "
    "ends of that spread’s 95 % interval). Seeds are those of fine-tuning: intervals hold for these "
    "checkpoints and these test rows, and another pre-training run, or other rows, would add to the spread."
)


def comparison_table(compared: Compared, baseline: str) -> ReportTable:
    """A row for each task and checkpoint: mean, spread, difference from the baseline and its test."""
    rows = [
        (
            f"{task} ({result.split})",
            name,
            marked(_points(scores.mean), scores),
            _points(scores.sd),
            *columns_of(scores.paired, 100),
        )
        for task, result in compared.items()
        for name, scores in result.arms.items()
    ]
    header = ("task", "checkpoint", "mean", "sd", f"minus {baseline}", "p", "p (Holm)", "smallest visible")
    return ReportTable(header, rows)


def _points(share: float | None) -> str:
    return spell(None if share is None else 100 * share, 1)


def verdicts(compared: Compared, baseline: str) -> tuple[str, ...]:
    """What came of each checkpoint but the baseline, by the task or, of several, by their mean."""
    task, result = _judged(compared)
    others = [(name, scores) for name, scores in result.arms.items() if name != baseline]
    return tuple(
        f"{name} minus {baseline}: {_verdict(scores, result.arms[baseline], name)} "
        f"({task}, {result.split} {result.measure})"
        for name, scores in others
    )


def _judged(compared: Compared) -> tuple[str, TaskResult]:
    return list(compared.items())[-1]


def _verdict(scores: ScoresResult, baseline: ScoresResult, name: str) -> str:
    pair = scores.paired
    assert pair is not None  # which the baseline alone has not
    if not pair.tested:
        difference = "" if scores.lacking or baseline.lacking else f"{_difference(scores, baseline)}, "
        return f"{difference}not tested: {pair.note}"
    estimate = Estimate.of(pair).times(100)
    text = f"{estimate.point(sign=True)} ({estimate.ends()}), {counted(pair.n or 0, 'seed')}"
    p = p_is(pair.p_adjusted)
    if pair.better is None:
        seen = rounded_up(100 * (pair.detectable or 0.0))
        return f"{text}: not told apart, {p}; so many can be expected to show {seen} or more"
    return f"{text}: {'better' if pair.better == name else 'worse'}, {p}"


def _difference(scores: ScoresResult, baseline: ScoresResult) -> str:
    assert scores.mean is not None and baseline.mean is not None
    return spell(100 * (scores.mean - baseline.mean), 1, sign=True)


@dataclass(frozen=True)
class Remedies:
    """Command lines: of more seeds, of a lower learning rate, and of asking a checkpoint's model by its name.

    `paths`: the checkpoints by name, as they were given.
    """

    more_seeds: Callable[[int], str]
    lower_rate: str
    ask: Callable[[str], str]
    paths: Mapping[str, str]


def next_step(compared: Compared, baseline: str, remedies: Remedies) -> NextStep:
    """The one thing to do next: what is better is used, what cannot be told is looked at for longer."""
    _, result = _judged(compared)
    others = {name: scores for name, scores in result.arms.items() if scores.paired is not None}
    pairs = {name: scores.paired for name, scores in others.items() if scores.paired is not None}
    better = [name for name, pair in pairs.items() if pair.better == name]
    if better:
        best = max(better, key=lambda name: others[name].mean or 0.0)
        return NextStep(f"use {best} ({remedies.paths[best]})", remedies.ask(best))
    if result.arms[baseline].lacking or any(scores.lacking for scores in others.values()):
        return NextStep("lower the learning rate, until no run diverges", remedies.lower_rate)
    if not all(pair.tested for pair in pairs.values()):
        return _make_a_test(pairs, baseline, remedies)
    undecided = [pair for pair in pairs.values() if pair.better is None]
    if not undecided:
        text = f"keep {baseline} ({remedies.paths[baseline]}); text that is nearer to the task may do better"
        return NextStep(text, remedies.ask(baseline))
    return _of_undecided(undecided, baseline, remedies)


def _make_a_test(pairs: Mapping[str, PairedResult], baseline: str, remedies: Remedies) -> NextStep:
    """Where some could not be tested, for one seed or because nothing differs."""
    seeds = max(pair.n or 1 for pair in pairs.values())
    if seeds >= FEW_SEEDS:
        return NextStep(
            f"keep {baseline} ({remedies.paths[baseline]}): no seed differs", remedies.ask(baseline)
        )
    return NextStep(f"run {FEW_SEEDS} seeds, which make a test", remedies.more_seeds(FEW_SEEDS))


def _of_undecided(pairs: Sequence[PairedResult], baseline: str, remedies: Remedies) -> NextStep:
    pair = max(pairs, key=lambda pair: pair.detectable or 0.0)
    seen, more = visible_with(pair, None, 100), seeds_to_halve(pair)
    if more is None:
        text = f"no difference told, where {seen} points can be expected to show, and less takes many seeds"
        text += ": take either"
        return NextStep(text, remedies.ask(baseline))
    return NextStep(
        f"no difference told: the smallest visible is {seen} points; {more} seeds would see "
        f"{visible_with(pair, more, 100)}",
        remedies.more_seeds(more),
    )

"""Fine-tuned checkpoints against the first of them, in tables and sentences. Differences are in points."""

from collections.abc import Iterator, Mapping

from fmlm_cli.analysis.report.parts import ReportTable
from fmlm_cli.analysis.report.race import compared as columns_of
from fmlm_cli.analysis.report.race import marked
from fmlm_cli.analysis.report.values import Estimate, p_is, rounded_up, spell
from fmlm_cli.analysis.results.comparison import PairedResult, ScoresResult, TaskResult
from fmlm_cli.analysis.statistics import ALPHA, pairs_to_detect
from fmlm_cli.events import counted

Compared = Mapping[str, TaskResult]  # by task, the mean of several last

HOW = (
    "Differences are paired by seed, in points, with the 95 % Student-t interval of each alone; p of the "
    "two-sided paired t-test, after Holm’s correction over all rows of the table. “Smallest visible” is the "
    "true difference that would be told with a probability of 80 %, by the spread seen (in brackets: at the "
    "ends of that spread’s 95 % interval). Seeds are those of fine-tuning: intervals hold for these "
    "checkpoints and these test rows, and another pre-training run, or other rows, would add to the spread."
)
_MANY = 100  # seeds that hardly anyone runs


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


def next_steps(compared: Compared, baseline: str, again: str) -> Iterator[str]:
    """What to do about each checkpoint but the baseline. `again`: the command that takes more --seeds."""
    _, result = _judged(compared)
    for name, scores in result.arms.items():
        if scores.paired is not None:
            diverged = [*scores.lacking, *result.arms[baseline].lacking]
            remedy = "lower the learning rate, in another --out, until no run diverges"
            yield f"{name}: {remedy}" if diverged else _next(scores.paired, name, baseline, again)


def _next(pair: PairedResult, name: str, baseline: str, again: str) -> str:
    if not pair.tested:
        return f"{name}: several seeds make a test: `{again} --seeds 5 --resume`"
    if pair.better == name:
        return f"{name}: go on with it"
    if pair.better == baseline:
        return (
            f"{name}: keep {baseline}; text that is nearer to the task, more of it, or a lower learning rate "
            "may do better"
        )
    assert pair.mean is not None and pair.sd
    seeds = pairs_to_detect(abs(pair.mean) / pair.sd, ALPHA / (pair.tests or 1), most=_MANY)
    if seeds is None:
        return f"{name}: take either; more than {_MANY} seeds would tell so small a difference"
    return f"{name}: a difference like the one seen takes {seeds} seeds: `{again} --seeds {seeds} --resume`"

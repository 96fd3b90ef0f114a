"""Races from made-up losses, by the statistics of real ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fmlm_cli.analysis.paired import Contest, spread_of
from fmlm_cli.analysis.report.findings.whole import verdict
from fmlm_cli.analysis.results.comparison import (
    BySeed,
    ComparisonResults,
    CurveResult,
    Measurements,
    RaceResult,
    ScoresResult,
    TaskResult,
)
from tests.analysis.report.comparison import ARMS, made_arm, made_results

MADE = made_results()
START, UNIGRAM = 9.1, 6.06  # nats, of every run
Losses = Mapping[str, BySeed]  # final ones by arm, of which the first is the baseline


def race_of(
    losses: Losses,
    controls: frozenset[str] = frozenset({"fresh"}),
    *,
    start: float = START,
    unigram: float = UNIGRAM,
    evaluations: int = 22,
    steps: int = 210,
    reach: bool = True,
) -> RaceResult:
    """The race that ends with these losses; None for a run that diverged. `reach`: with tokens to a loss."""
    at = np.linspace(0, 1, evaluations)
    down = (np.exp(-4 * at) - np.exp(-4)) / (1 - np.exp(-4))  # from 1 to 0
    whole = tuple(np.round(steps * at).astype(int).tolist())
    tokens = tuple(1792 * step for step in whole)
    curves = {
        arm: {
            seed: CurveResult(whole, tokens, tuple((loss + (start - loss) * down).tolist()))
            for seed, loss in own.items()
            if loss is not None
        }
        for arm, own in losses.items()
    }
    contest, seeds = Contest(next(iter(losses)), controls), list(next(iter(losses.values())))
    return RaceResult(
        unigram_loss={
            seed: unigram if any(seed in runs for runs in curves.values()) else None for seed in seeds
        },
        curves=curves,
        final={arm: spread_of(own) for arm, own in losses.items()},
        paired=contest.judge(contest.pairs(losses)),
        tokens_to_reach=contest.tokens_to_reach(curves, seeds) if reach else {},
    )


def compared(race: RaceResult, scores: Losses | None = None, **changed: Any) -> ComparisonResults:
    """A comparison of nothing but this race, and perhaps a task."""
    measurements = measured(race, scores, **changed)
    return ComparisonResults(**vars(measurements), verdict=verdict(measurements))


def measured(race: RaceResult, scores: Losses | None = None, **changed: Any) -> Measurements:
    """The same before there is a verdict."""
    names, seeds = list(race.final), tuple(race.unigram_loss)
    downstream = None if scores is None else {"citation_intent": task_of(scores)}
    parts: dict[str, Any] = {"race": race, "downstream": downstream, **changed}
    values = {name: getattr(MADE, name) for name in Measurements.__dataclass_fields__} | {
        "arms": tuple(made_arm(name, ARMS.get(name, name)) for name in names),
        "seeds": seeds,
        "baseline": names[0],
        **dict.fromkeys(("coverage", "variance", "sweep")),
        **parts,
    }
    return Measurements(**values)


def task_of(scores: Losses) -> TaskResult:
    """A task with these scores."""
    contest = Contest(next(iter(scores)), frozenset({"fresh"}))
    paired = contest.judge(contest.pairs(scores), lower_is_better=False)
    arms = {arm: ScoresResult(**vars(spread_of(own)), paired=paired.get(arm)) for arm, own in scores.items()}
    return TaskResult("macro-F1", "test", arms)


def by_seed(table: Any, arms: list[str]) -> dict[str, dict[int, float | None]]:
    """Losses float[arms, seeds] by arm and seed."""
    return {arm: dict(enumerate(np.asarray(own).tolist())) for arm, own in zip(arms, table, strict=True)}


def told(results: ComparisonResults, begin: str) -> str:
    """The one sentence that begins so; empty if there is none."""
    sentences = [text for text in results.verdict.sentences if text.startswith(begin)]
    assert len(sentences) <= 1, sentences
    return sentences[0] if sentences else ""

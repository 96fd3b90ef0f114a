"""What a comparison finds of which every part was run; made up, near METHOD.md's first measurements.

That it has the shape of a real one: tests/recipes/comparison/test_compare.py.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fmlm_cli.analysis.paired import Contest, NoPair, judge_together, pair_up, spread_of
from fmlm_cli.analysis.report.findings.whole import verdict
from fmlm_cli.analysis.results.comparison import (
    ArmResult,
    ComparedData,
    ComparedModel,
    ComparisonResults,
    CurveResult,
    HeldOutData,
    Measurements,
    PointResult,
    RaceResult,
    ScoresResult,
    Speed,
    SweepResult,
    TaskResult,
)
from fmlm_cli.analysis.results.coverage import CoverageResult, HammingResult, MaskSizes
from fmlm_cli.analysis.results.plain import as_json
from fmlm_cli.analysis.results.variance import (
    ComponentsResult,
    CorrelationResult,
    EqualComputeResult,
    IntervalResult,
    VarianceResult,
)
from fmlm_cli.analysis.sweep import best_of_each

ARMS = {
    "random": "random",
    "random-k": "random x7",
    "full-batch": "fully-explored (batch)",
    "full-epoch": "fully-explored (epoch)",
    "full-span": "fully-explored-span (epoch)",
    "fresh": "random (fresh rows)",
}


def interval(value: float, half: float) -> IntervalResult:
    return IntervalResult(value, value - half, value + half)


def made_json(names: Mapping[str, str] = ARMS, seeds: int = 3) -> dict[str, Any]:
    """What results.json would hold after every part was run."""
    return dict(as_json(made_results(names, seeds)))


def made_results(names: Mapping[str, str] = ARMS, seeds: int = 3) -> ComparisonResults:
    """The results of a comparison of every part."""
    rng, all_seeds, arms = np.random.default_rng(0), list(range(seeds)), list(names)
    contest = Contest(arms[0], frozenset({"fresh"}))
    measured = Measurements(
        fmlm="0.1.0",
        command="fmlm compare-masks compared/config.yaml --out DIR",
        settings={
            "out": "comparison",
            "strategies": arms,
            "run": {"batch": {"size": 28}, "masking": {"segments": 7}},
        },
        model=ComparedModel("all-MiniLM-L6-v2, 2 layers", 15_234_816),
        data=ComparedData("stores/arxiv-cs.CL", 840, 32_000, True, 64, 53_760),
        evaluation=HeldOutData("stores/arxiv-cs.CL", 512, 1_500, True, "single tokens, 15 %, 80/10/10"),
        steps=210,
        segments=7,
        batch_size=28,
        learning_rate=0.001,
        device="cpu",
        baseline=arms[0],
        arms=tuple(made_arm(name, label) for name, label in names.items()),
        seeds=tuple(all_seeds),
        coverage={name: made_coverage(name) for name in arms if name != "fresh"},
        variance=tuple(
            made_variance(*entry)
            for entry in (("start", 0, 10.4, 0.004), ("early", 21, 6.95, 0.12), ("late", 210, 4.58, 0.457))
        ),
        race=made_race(contest, arms, all_seeds, rng),
        downstream={"citation_intent": made_scores(contest, arms, all_seeds, rng)},
        sweep=made_sweep(all_seeds, rng),
    )
    return ComparisonResults(**vars(measured), verdict=verdict(measured))


def made_arm(name: str, label: str) -> ArmResult:
    masks = 7 if "batch" in name or "-k" in name else 1
    return ArmResult(
        name=name,
        label=label,
        masking={"strategy": name, "segments": 7},
        description=f"masks of {label}",
        rate=1 / 7,
        cycle=7 if "full" in name and masks == 1 else 1,
        masks_per_sequence=masks,
        sequences_per_step=28 // masks,
        rows=840,
        passes=7 / masks,
        tokens=376_320.0,
        seconds=140.0,
        tokens_per_second=Speed(4400.0, 4300.0, 4500.0),
        control=name == "fresh",
        first_pass_as="random" if name == "full-epoch" else None,
    )


def made_coverage(name: str) -> CoverageResult:
    binomial = tuple(math.comb(7, k) * (1 / 7) ** k * (6 / 7) ** (7 - k) for k in range(8))
    times = binomial if name.startswith(("random", "fresh")) else (0.0, 1.0)
    return CoverageResult(
        rows=256,
        epochs=1 if "batch" in name else 7,
        rate=1 / 7,
        never_masked=times[0],
        times_masked=times,
        expected=times,
        covered=(1.0,),
        tokens_in_a_mask=MaskSizes(8, 9.0, 9),
        hamming=HammingResult(7, 5376, 0.856, 0.11, 0.29, 0.23, edges=(0, 1), shares=(1.0,)),
    )


def made_variance(name: str, step: int, loss: float, ratio: float) -> VarianceResult:
    half, disjoint = 0.002 + 0.03 * ratio, (ratio - 1) / 6
    same = interval(ratio, half)
    return VarianceResult(
        name=name,
        step=step,
        loss=loss,
        corruption="80/10/10",
        unit="token",
        store="stores/arxiv-cs.CL",
        sequences=100,
        left_out=2,
        looked_at=50,
        segments=7,
        gradients=42,
        parameters=15_234_816,
        relative_error=0.0,
        ratio=same,
        identity={
            "left": same,
            "right": interval(ratio + 0.004, half),
            "difference": interval(-0.004, 0.02),
            "right_of_pairs": interval(ratio, 0.1),
            "difference_of_pairs": interval(0.0, 0.1),
        },
        correlations=tuple(made_correlation(h, ratio, disjoint) for h in (0, 0.25, 0.5, 0.75, 1)),
        components=ComponentsResult(
            interval(1.0, 0.1), interval(0.13, 0.03), interval(0.13, 0.03), interval(0.12, 0.03)
        ),
        repeated_ratio=interval(0.6 + 0.1 * ratio, 0.03),
        equal_compute=EqualComputeResult(interval(1.57, 0.05), interval(1.08, 0.04)),
    )


def made_correlation(h: float, ratio: float, disjoint: float) -> CorrelationResult:
    value = (1 - h) * (1 - 0.4 * ratio) + h * disjoint - 0.15 * h * (1 - h)
    return CorrelationResult(h, **vars(interval(value, 0.02)))


def made_race(contest: Contest, arms: list[str], seeds: list[int], rng: Any) -> RaceResult:
    tokens = np.linspace(0, 376_320, 22)
    ends = {name: 5.010 - 0.025 * (place - 1 if place else 0) for place, name in enumerate(arms)}
    shift = {seed: 0.01 * rng.standard_normal() for seed in seeds}

    def curve(name: str, seed: int) -> CurveResult:
        losses = ends[name] + shift[seed] + 2.2 * np.exp(-tokens / 9e4) + 0.003 * rng.standard_normal(22)
        return CurveResult(tuple(range(0, 211, 10)), tuple(tokens.tolist()), tuple(losses.tolist()))

    curves = {name: {seed: curve(name, seed) for seed in seeds} for name in arms}
    losses = {name: {seed: run.losses[-1] for seed, run in runs.items()} for name, runs in curves.items()}
    return RaceResult(
        unigram_loss=dict.fromkeys(seeds, 6.06),
        curves=curves,
        final={name: spread_of(by_seed) for name, by_seed in losses.items()},
        paired=contest.judge(contest.pairs(losses)),
        tokens_to_reach=contest.tokens_to_reach(curves, seeds),
    )


def made_scores(contest: Contest, arms: list[str], seeds: list[int], rng: Any) -> TaskResult:
    scores = {
        name: {seed: 0.62 + 0.01 * place + 0.015 * float(rng.standard_normal()) for seed in seeds}
        for place, name in enumerate(arms)
    }
    paired = contest.judge(contest.pairs(scores), lower_is_better=False)
    spreads = {name: spread_of(by_seed) for name, by_seed in scores.items()}
    of_arms = {
        name: ScoresResult(**vars(spread), paired=paired.get(name)) for name, spread in spreads.items()
    }
    return TaskResult("macro-F1", "test", of_arms)


def made_sweep(seeds: list[int], rng: Any) -> SweepResult:
    """Strategies x learning rates, each against random at its rate; at 0.004 one run diverges."""
    rates, strategies = (0.0005, 0.001, 0.002, 0.004), ("random", "fully-explored", "span")
    axes = {"strategy": strategies, "run.optimizer.learning_rate": rates}
    shift = {seed: 0.01 * float(rng.standard_normal()) for seed in seeds}
    values: dict[str, dict[int, float | None]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for place, strategy in enumerate(strategies):
        for rate in rates:
            name = f"strategy={strategy},run.optimizer.learning_rate={rate:g}"
            settings[name] = {"strategy": strategy, "run.optimizer.learning_rate": rate}
            level = 5.0 + 0.05 * (math.log2(rate / 0.001) - 0.4 * place) ** 2 - 0.06 * (place == 1)
            values[name] = {s: level + shift[s] + 0.004 * float(rng.standard_normal()) for s in seeds}
    values[f"strategy=span,run.optimizer.learning_rate={rates[-1]:g}"][seeds[-1]] = None
    base = {name: name.replace(str(own["strategy"]), "random") for name, own in settings.items()}
    pairs = {
        name: pair_up(values[name], values[other]) if other != name else NoPair("baseline of its settings")
        for name, other in base.items()
    }
    compared = judge_together(pairs, base.__getitem__, base.get)
    points = tuple(
        PointResult(
            name=name,
            settings=settings[name],
            passes=7.0,
            **vars(spread_of(values[name])),
            against=None if base[name] == name else base[name],
            paired=compared[name],
        )
        for name in settings
    )
    return SweepResult(axes=axes, points=points, best=best_of_each(points, "random"))

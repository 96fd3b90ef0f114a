"""What results.json holds after a comparison of which every part was run; made up, near METHOD.md's first measurements."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fmlm_cli.analysis.statistics import paired_difference, verdicts

ARMS = {
    "random": "random, a new mask every pass",
    "random-k": "random, K masks in one step",
    "full-batch": "fully explored, scope batch",
    "full-epoch": "fully explored, scope epoch",
    "full-span": "fully explored spans, scope epoch",
    "fresh": "random, fresh rows",
}
STEPS = (
    ("distinct sequences, one random mask each", 28, 28, 1, 1.0),
    ("K random masks of each sequence", 28, 4, 7, 1.57),
    ("K segments of each sequence (scope batch)", 28, 4, 7, 1.08),
    ("one segment of each sequence (scope epoch)", 28, 28, 1, 1.0),
    ("K steps: distinct sequences, one random mask each", 28, 196, 1, 1.0),
    ("K steps: the same sequences, independent masks", 28, 28, 7, 1.57),
    ("K steps: the same sequences, one segment a step (scope epoch)", 28, 28, 7, 1.08),
)


def interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def made_results(names: Mapping[str, str] = ARMS, seeds: int = 3) -> dict[str, Any]:
    """What results.json would hold after every part was run."""
    rng, own_seeds = np.random.default_rng(0), list(range(seeds))
    arms = list(names)
    return {
        "fmlm": "0.1.0",
        "command": "fmlm compare-masks --data store --from checkpoint --seeds 3 --budget 7-epochs --out comparison",
        "settings": {"out": "comparison", "strategies": arms, "run": {"batch": {"size": 28}, "masking": {"segments": 7}}},
        "model": {"name": "all-MiniLM-L6-v2, 2 layers", "parameters": 15_234_816},
        "data": {"store": "stores/arxiv-cs.CL", "rows": 840, "sequence_length": 64, "tokens": 53_760},
        "baseline": arms[0],
        "arms": [
            {"name": name, "label": label, "masking": {"strategy": name, "segments": 7}, "masks_per_sequence": 7 if "batch" in name or "-k" in name else 1,
             "sequences_per_step": 4 if "batch" in name or "-k" in name else 28, "passes": 7, "tokens": 376_320, "control": name == "fresh"}
            for name, label in names.items()
        ],
        "seeds": own_seeds,
        "coverage": {name: made_coverage(name) for name in arms},
        "variance": [
            made_variance(*entry, rng=rng)
            for entry in (("start", 0, 10.4, 0.004), ("early", 21, 6.95, 0.12), ("late", 210, 4.58, 0.457))
        ],
        "race": made_race(arms, own_seeds, rng),
        "sweep": {
            "axes": ["segments", "corruption"],
            "points": [
                {"settings": {"segments": k, "corruption": c}, "values": [4.9 + 0.01 * abs(k - 7) + d + 0.003 * s for s in own_seeds],
                 "mean": 4.9 + 0.01 * abs(k - 7) + d + 0.003}
                for k in (3, 5, 7, 10) for c, d in (("100/0/0", 0.0), ("80/10/10", 0.03))
            ],
        },
        "downstream": {
            "citation_intent": {name: made_scores(place, own_seeds, rng) for place, name in enumerate(arms)},
        },
        "verdict": {
            "headline": "Fully explored masks, one segment a pass: lower held-out loss than random masks for the same compute",
            "sentences": [
                "Scope epoch ends 0.076 nats below random masking (95 % interval 0.069 to 0.083, n = 3 seeds).",
                "Within one step, at equal compute, the K segments of fewer sequences vary 1.08 times as much as distinct sequences: there the method does not help.",
                "Three seeds stand behind it; differences below about 0.02 nats could not be seen.",
            ],
            "cost": "Nothing more per step: the same rows are forwarded. Seven passes are needed before every token was predicted.",
        },
    }  # fmt: skip


def made_coverage(name: str) -> dict[str, Any]:
    binomial = [math.comb(7, k) * (1 / 7) ** k * (6 / 7) ** (7 - k) for k in range(8)]
    times = binomial if name.startswith(("random", "fresh")) else [0.0, 1.0]
    return {"epochs": 7, "never_masked": times[0], "times_masked": times, "hamming": {"mean": 15.6, "least": 8, "values": [1, 2]}}  # fmt: skip


def made_variance(name: str, step: int, loss: float, ratio: float, rng: Any) -> dict[str, Any]:
    half = 0.002 + 0.03 * ratio
    disjoint = (ratio - 1) / 6
    return {
        "name": name, "step": step, "loss": loss, "corruption": {"mask": 0.8, "random": 0.1, "keep": 0.1}, "sequences": 48,
        "segments": 7, "gradients": 42, "relative_error": 0.0, "ratio": interval(ratio, half),
        "identity": {"left": interval(ratio, half), "right": interval(ratio + 0.004, half), "difference": interval(-0.004, 0.02)},
        "correlations": [{"distance": h, **interval((1 - h) * (1 - 0.4 * ratio) + h * disjoint - 0.15 * h * (1 - h), 0.02)} for h in (0, 0.25, 0.5, 0.75, 1)],
        "components": {"ratio": interval(0.13, 0.03)}, "repeated_ratio": interval(0.6 + 0.1 * ratio, 0.03),
        "steps": [{"name": text, "rows": rows, "sequences": n, "masks": m, "relative": interval(value, 0.0 if value == 1 else 0.04)}
                  for text, rows, n, m, value in STEPS],
    }  # fmt: skip


def made_race(arms: list[str], seeds: list[int], rng: Any) -> dict[str, Any]:
    tokens = np.linspace(0, 376_320, 22)[1:]
    ends = {name: 5.010 - 0.025 * (place - 1 if place else 0) for place, name in enumerate(arms)}
    shift = {seed: 0.01 * rng.standard_normal() for seed in seeds}
    curves, final, paired, reached = {}, {}, {}, {}
    for name in arms:
        curves[name] = {
            seed: {"tokens": tokens.tolist(), "losses": (ends[name] + shift[seed] + 2.2 * np.exp(-tokens / 9e4) + 0.003 * rng.standard_normal(21)).tolist()}
            for seed in seeds
        }  # fmt: skip
        values = {seed: own["losses"][-1] for seed, own in curves[name].items()}
        final[name] = {
            "values": values,
            "mean": float(np.mean(list(values.values()))),
            "sd": float(np.std(list(values.values()), ddof=1)) if len(seeds) > 1 else None,
        }
        gain = 1 - 8 * (5.01 - ends[name])
        reached[name] = {
            "values": {seed: 3.5e5 * gain + 4000 * seed for seed in seeds},
            "ratio": None
            if name == arms[0]
            else {**interval(gain, 0.05), "p_value": 0.004, "p_adjusted": 0.02},
        }
    if len(seeds) > 1:
        base = list(final[arms[0]]["values"].values())
        differences = {
            name: paired_difference(list(final[name]["values"].values()), base) for name in arms[1:]
        }
        for own in verdicts(differences, arms[0]):
            d = own.difference
            paired[own.arm] = {"n": d.n, "mean": d.mean, "low": d.low, "high": d.high, "p_value": d.p_value, "p_adjusted": own.p_adjusted,
                               "half_width": d.half_width, "detectable": d.detectable, "better": own.better, "text": own.text}  # fmt: skip
    return {"curves": curves, "final": final, "paired": paired, "target_loss": 5.01, "tokens_to_reach": reached,
            "test": "paired t-test, two-sided"}  # fmt: skip


def made_scores(place: int, seeds: list[int], rng: Any) -> dict[str, Any]:
    values = {seed: 0.62 + 0.01 * place + 0.015 * float(rng.standard_normal()) for seed in seeds}
    return {
        "values": values, "mean": float(np.mean(list(values.values()))), "sd": 0.015,
        "paired": None if place == 0 else {"n": len(seeds), "mean": 0.01 * place, "low": 0.01 * place - 0.02, "high": 0.01 * place + 0.02,
                                           "p_value": 0.3, "p_adjusted": 0.9, "half_width": 0.02, "detectable": 0.03, "better": None, "text": ""},
    }  # fmt: skip

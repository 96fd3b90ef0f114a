"""What results.json holds after a comparison of which every part was run; made up, near METHOD.md's first measurements.

That it has the shape of a real one: tests/recipes/test_compare.py.
"""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from fmlm_cli.analysis.report.findings import verdict
from fmlm_cli.analysis.statistics import paired_difference
from fmlm_cli.recipes.comparison.results import _pairs, _tokens_to_reach, against_baseline, plain, spread_of

ARMS = {
    "random": "random",
    "random-k": "random x7",
    "full-batch": "fully-explored (batch)",
    "full-epoch": "fully-explored (epoch)",
    "full-span": "fully-explored-span (epoch)",
    "fresh": "random (fresh rows)",
}


def interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def made_results(names: Mapping[str, str] = ARMS, seeds: int = 3) -> dict[str, Any]:
    """What results.json would hold after every part was run."""
    rng, own_seeds, arms = np.random.default_rng(0), list(range(seeds)), list(names)
    plan = made_plan(arms, own_seeds)
    results = {
        "fmlm": "0.1.0",
        "command": "fmlm compare-masks compared/config.yaml --out DIR",
        "settings": {"out": "comparison", "strategies": arms, "run": {"batch": {"size": 28}, "masking": {"segments": 7}}},
        "model": {"name": "all-MiniLM-L6-v2, 2 layers", "parameters": 15_234_816},
        "data": {"store": "stores/arxiv-cs.CL", "rows": 840, "sequence_length": 64, "tokens": 53_760},
        "evaluation": {"store": "stores/arxiv-cs.CL", "rows": 512, "masks": "single tokens, 15 %, 80/10/10"},
        "steps": 210, "segments": 7, "batch_size": 28, "learning_rate": 0.001, "device": "cpu",
        "baseline": arms[0],
        "arms": [made_arm(name, label) for name, label in names.items()],
        "seeds": own_seeds,
        "coverage": {name: made_coverage(name) for name in arms if name != "fresh"},
        "variance": [
            made_variance(*entry)
            for entry in (("start", 0, 10.4, 0.004), ("early", 21, 6.95, 0.12), ("late", 210, 4.58, 0.457))
        ],
        "race": made_race(plan, arms, own_seeds, rng),
        "downstream": {"citation_intent": made_scores(plan, arms, own_seeds, rng)},
        "sweep": made_sweep(plan, own_seeds),
    }  # fmt: skip
    results = plain(results)
    return results | {"verdict": plain(verdict(results))}


def made_plan(arms: list[str], seeds: list[int]) -> Any:
    """As much of a plan as results are computed from."""
    own = [SimpleNamespace(name=name, control=name == "fresh") for name in arms]
    return SimpleNamespace(arms=own, baseline=own[0], seeds=seeds, settings=SimpleNamespace(target_loss=None))


def made_arm(name: str, label: str) -> dict[str, Any]:
    masks = 7 if "batch" in name or "-k" in name else 1
    return {
        "name": name, "label": label, "masking": {"strategy": name, "segments": 7}, "description": f"masks of {label}", "rate": 1 / 7,
        "cycle": 7 if "full" in name and masks == 1 else 1, "masks_per_sequence": masks, "sequences_per_step": 28 // masks, "rows": 840,
        "passes": 7 / masks, "tokens": 376_320.0, "seconds": 140.0, "tokens_per_second": {"mean": 4400.0, "low": 4300.0, "high": 4500.0},
        "control": name == "fresh",
    }  # fmt: skip


def made_coverage(name: str) -> dict[str, Any]:
    binomial = [math.comb(7, k) * (1 / 7) ** k * (6 / 7) ** (7 - k) for k in range(8)]
    times = binomial if name.startswith(("random", "fresh")) else [0.0, 1.0]
    hamming = {
        "masks": 7,
        "pairs": 5376,
        "mean": 0.856,
        "sd": 0.11,
        "least": 0.29,
        "disjoint": 0.23,
        "edges": [0, 1],
        "shares": [1.0],
    }
    return {"rows": 256, "epochs": 1 if "batch" in name else 7, "rate": 1 / 7, "never_masked": times[0], "times_masked": times, "expected": times,
            "covered": [1.0], "tokens_in_a_mask": {"least": 8, "mean": 9.0, "most": 9}, "hamming": hamming}  # fmt: skip


def made_variance(name: str, step: int, loss: float, ratio: float) -> dict[str, Any]:
    half, disjoint = 0.002 + 0.03 * ratio, (ratio - 1) / 6
    same = interval(ratio, half)
    return {
        "name": name, "step": step, "loss": loss, "corruption": "80/10/10", "unit": "token", "store": "stores/arxiv-cs.CL", "sequences": 48,
        "left_out": 2, "looked_at": 50, "segments": 7, "gradients": 42, "parameters": 15_234_816, "relative_error": 0.0, "ratio": same,
        "identity": {"left": same, "right": interval(ratio + 0.004, half), "difference": interval(-0.004, 0.02),
                     "right_of_pairs": interval(ratio, 0.1), "difference_of_pairs": interval(0.0, 0.1)},
        "correlations": [{"distance": h, **interval((1 - h) * (1 - 0.4 * ratio) + h * disjoint - 0.15 * h * (1 - h), 0.02)} for h in (0, 0.25, 0.5, 0.75, 1)],
        "components": {"masks": interval(1.0, 0.1), "data": interval(0.13, 0.03), "ratio": interval(0.13, 0.03), "data_share": interval(0.12, 0.03)},
        "repeated_ratio": interval(0.6 + 0.1 * ratio, 0.03),
        "equal_compute": {"random_masks": interval(1.57, 0.05), "segments": interval(1.08, 0.04)},
    }  # fmt: skip


def made_race(plan: Any, arms: list[str], seeds: list[int], rng: Any) -> dict[str, Any]:
    steps = list(range(0, 211, 10))
    tokens = np.linspace(0, 376_320, 22)
    ends = {name: 5.010 - 0.025 * (place - 1 if place else 0) for place, name in enumerate(arms)}
    shift = {seed: 0.01 * rng.standard_normal() for seed in seeds}
    curves = {
        name: {
            seed: {
                "steps": steps,
                "tokens": tokens.tolist(),
                "losses": (ends[name] + shift[seed] + 2.2 * np.exp(-tokens / 9e4) + 0.003 * rng.standard_normal(22)).tolist(),
            }
            for seed in seeds
        }
        for name in arms
    }  # fmt: skip
    losses = {name: {seed: run["losses"][-1] for seed, run in own.items()} for name, own in curves.items()}
    return {
        "curves": curves,
        "final": {name: spread_of(own) for name, own in losses.items()},
        "paired": against_baseline(plan, _pairs(plan, losses)),
        "tokens_to_reach": _tokens_to_reach(plan, curves),
    }


def made_scores(plan: Any, arms: list[str], seeds: list[int], rng: Any) -> dict[str, Any]:
    scores = {
        name: {seed: 0.62 + 0.01 * place + 0.015 * float(rng.standard_normal()) for seed in seeds}
        for place, name in enumerate(arms)
    }
    paired = against_baseline(plan, _pairs(plan, scores), lower_is_better=False)
    own = {name: spread_of(values) | {"paired": paired.get(name)} for name, values in scores.items()}
    return {"measure": "macro-F1", "split": "test", "arms": own}


def made_sweep(plan: Any, seeds: list[int]) -> dict[str, Any]:
    points: list[dict[str, Any]] = []
    pairs = {}
    for k in (3, 5, 7, 10):
        for corruption, more in (("mask1+random0", 0.0), ("mask0.8+random0.1", 0.03)):
            name, settings = (
                f"segments={k},corruption={corruption}",
                {"segments": k, "corruption": corruption},
            )
            values = {seed: 4.9 + 0.01 * abs(k - 7) + more + 0.003 * seed**2 for seed in seeds}
            points.append({"name": name, "settings": settings, "passes": 7.0, **spread_of(values)})
            pairs[name] = paired_difference(list(values.values()), [5.0 + 0.003 * seed for seed in seeds])
    compared = against_baseline(plan, pairs)
    return {
        "axes": {"segments": [3, 5, 7, 10], "corruption": ["mask1+random0", "mask0.8+random0.1"]},
        "points": [point | {"paired": compared[point["name"]]} for point in points],
    }

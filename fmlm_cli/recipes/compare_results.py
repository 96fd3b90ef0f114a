"""What a comparison found, as plain values: results.json, from the records of its items alone."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fmlm_cli import __version__
from fmlm_cli.analysis.estimators import Estimates
from fmlm_cli.analysis.statistics import (
    Interval,
    PairedDifference,
    holm,
    paired_difference,
    reachable_loss,
    tokens_to_reach,
    verdicts,
)
from fmlm_cli.analysis.variance import Records
from fmlm_cli.model.build import parameter_counts
from fmlm_cli.recipes.compare_arms import Arm, base_segments
from fmlm_cli.recipes.compare_plan import Item, Kind, Plan
from fmlm_cli.recipes.compare_verdict import verdict

Found = dict[str, Any]
BySeed = Mapping[int, float | None]


def results_of(plan: Plan) -> Found:
    """All results that are there, by the settings of the plan; a part that is not complete is None.

    Of gradient variance every measurement counts that is finished. Values are plain: no tuple, no number that is not finite.
    """
    found: Found = {
        "fmlm": __version__,
        "command": shlex.join(["fmlm", "compare-masks", str(plan.root / "config.yaml"), "--out", "DIR"]),
        "settings": plan.settings.model_dump(mode="json"),
        "model": {
            "name": plan.base.origin.name if plan.base.origin else plan.base.settings.model.name,
            "parameters": parameter_counts(plan.base.model)["total"],
        },
        "data": _data(plan),
        "steps": plan.total_steps,
        "segments": base_segments(plan.settings),
        "batch_size": plan.size,
        "baseline": plan.baseline.name,
        "arms": [_arm(plan, arm) for arm in plan.arms],
        "seeds": plan.seeds,
        "coverage": _coverage(plan),
        "variance": _variance(plan),
        "race": _race(plan),
        "sweep": _sweep(plan),
        "downstream": _downstream(plan),
    }
    found["verdict"] = verdict(found)
    return dict(plain(found))


def plain(value: Any) -> Any:
    """A value as JSON has it: keys as text, lists, None for what is no finite number."""
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _complete(plan: Plan, kind: Kind) -> list[tuple[Item, Found]] | None:
    """The items of a kind with their results, if all that there can be are finished."""
    items = plan.possible(kind)
    results = [(item, plan.result(item)) for item in items]
    done = [(item, result) for item, result in results if result is not None]
    return done if done and len(done) == len(items) else None


# ---------------------------------------------------------------- what was compared


def _data(plan: Plan) -> Found:
    rows = plan.rows(plan.baseline)
    return {
        "store": ", ".join(str(source.store.root) for source in plan.base.stream.sources),
        "rows": rows,
        "sequence_length": plan.settings.run.sequence_length,
        "tokens": round(rows * plan.tokens_per_row),
    }


def _arm(plan: Plan, arm: Arm) -> Found:
    runs = [plan.result(item) for item in plan.possible("race") if item.arm.name == arm.name]
    done = [run for run in runs if run is not None and run["loss"] is not None]
    masks = arm.strategy.masks_per_sequence
    return {
        "name": arm.name,
        "label": arm.label,
        "masking": arm.masking.model_dump(mode="json"),
        "description": arm.strategy.description,
        "rate": arm.strategy.rate,
        "cycle": arm.strategy.cycle,
        "masks_per_sequence": masks,
        "sequences_per_step": plan.size // masks,
        "rows": plan.rows(arm),
        "passes": plan.passes(arm),
        "tokens": _mean([run["tokens"][-1] for run in done]),
        "tokens_per_second": _mean([run["tokens_per_second"] for run in done]),
        "control": arm.control,
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _coverage(plan: Plan) -> Found | None:
    done = _complete(plan, "coverage")
    if done is None:
        return None
    return {item.arm.name: {k: v for k, v in found.items() if k != "seconds"} for item, found in done}


# ---------------------------------------------------------------- gradient variance


def _variance(plan: Plan) -> list[Found] | None:
    found = []
    for item in plan.possible("variance"):
        result = plan.result(item)
        if result is not None:
            with np.load(plan.root / f"{item.name}.npz") as arrays:
                records = Records.from_arrays(dict(arrays))
            found.append(_summary(plan, item, result, records))
    return found or None


def _summary(plan: Plan, item: Item, result: Mapping[str, Any], records: Records) -> Found:
    """The figures of one measurement; steps are those of the race, or of K rows where it has fewer."""
    corruption = plan.settings.run.masking.corruption
    shares = f"{100 * corruption.mask:g}/{100 * corruption.random:g}/{100 * corruption.keep:g}"
    shown = "[MASK] only" if item.corruption == "mask-only" else shares
    segments = records.plan.segments
    summary = Estimates(records).summary(rows=max(plan.size, segments))
    return {
        "name": item.what,
        "step": result["step"],
        "loss": result["loss"],
        "corruption": shown,
        "unit": plan.settings.variance.unit,
        "sequences": summary.sequences,
        "segments": segments,
        "gradients": summary.gradients,
        "parameters": records.parameters,
        "relative_error": summary.relative_error,
        "ratio": _interval(summary.variance_ratio),
        "identity": {
            name: _interval(value) for name, value in vars(summary.identity).items() if value is not None
        },
        "correlations": [{"distance": c.distance, **_interval(c.value)} for c in summary.correlations],
        "components": {name: _interval(value) for name, value in vars(summary.components).items()},
        "repeated_ratio": _interval(summary.repeated_ratio),
        "steps": [
            {**asdict(step), "variance": step.variance, "relative": _interval(step.relative)}
            for step in summary.steps
        ],
    }


def _interval(found: Interval) -> Found:
    return {"value": found.value, "low": found.low, "high": found.high}


# ---------------------------------------------------------------- race


def _race(plan: Plan) -> Found | None:
    done = _complete(plan, "race")
    if done is None:
        return None
    runs: dict[str, dict[int, Found]] = {}
    for item, result in done:
        runs.setdefault(item.arm.name, {})[item.seed] = result
    losses = {arm: {seed: run["loss"] for seed, run in own.items()} for arm, own in runs.items()}
    curves = {
        arm: {
            seed: {name: run[name] for name in ("steps", "tokens", "losses")}
            for seed, run in own.items()
            if run["loss"] is not None
        }
        for arm, own in runs.items()
    }
    target, reached = _reached(plan, curves)
    return {
        "curves": curves,
        "final": {arm: spread_of(own) for arm, own in losses.items()},
        "paired": compare(plan, losses, lower_is_better=True),
        "target_loss": target,
        "tokens_to_reach": reached,
        "test": "paired t-test, Holm",
    }


def spread_of(values: BySeed) -> Found:
    """Values by seed, mean and sample standard deviation of those that are there."""
    there = [value for value in values.values() if value is not None]
    return {
        "values": dict(values),
        "mean": _mean(there),
        "sd": float(np.std(there, ddof=1)) if len(there) > 1 else None,
    }


def compare(plan: Plan, values: Mapping[str, BySeed], *, lower_is_better: bool) -> Found:
    """Every arm against the baseline, paired by seed. Controls are no candidates: each is a test of its own."""
    controls = {arm.name for arm in plan.arms if arm.control}
    others = [name for name in values if name != plan.baseline.name]
    families = [
        [name for name in others if name not in controls],
        *([name] for name in others if name in controls),
    ]
    found: Found = {}
    for family in families:
        found |= _family(plan, family, values, lower_is_better)
    return found


def _family(plan: Plan, names: Sequence[str], values: Mapping[str, BySeed], lower_is_better: bool) -> Found:
    labels = {arm.name: _unique_label(plan, arm) for arm in plan.arms}
    differences, found = {}, {}
    for name in names:
        pair = _paired(values[name], values[plan.baseline.name])
        if isinstance(pair, str):
            found[name] = {**_NOTHING, "text": f"{labels[name]}: {pair}"}
        else:
            differences[labels[name]] = pair
    by_label = {label: name for name, label in labels.items()}
    judged = verdicts(differences, labels[plan.baseline.name], lower_is_better=lower_is_better)
    for one in judged:
        own = asdict(one.difference)
        own |= {"p_adjusted": one.p_adjusted, "better": by_label.get(one.better or ""), "text": one.text}
        found[by_label[one.arm]] = own
    return found


def _unique_label(plan: Plan, arm: Arm) -> str:
    same = [other for other in plan.arms if other.label == arm.label]
    return arm.label if len(same) == 1 else arm.name


_NOTHING = dict.fromkeys(
    ("n", "mean", "sd", "low", "high", "p_value", "p_adjusted", "half_width", "detectable", "better")
)


def _paired(arm: BySeed, baseline: BySeed) -> PairedDifference | str:
    """The paired difference, or why there is none."""
    seeds = list(arm)
    lacking = [seed for seed in seeds if arm[seed] is None or baseline[seed] is None]
    if lacking:
        return f"no comparison, for seed {lacking[0]} diverged (with it or with the baseline)"
    if len(seeds) < 2:
        return "no interval, for there is one seed"
    first, second = ([float(own[seed] or 0.0) for seed in seeds] for own in (arm, baseline))
    return paired_difference(first, second)


def _reached(plan: Plan, curves: Mapping[str, Mapping[int, Found]]) -> tuple[float | None, Found | None]:
    """The target loss, and how many tokens each run took to it, as a ratio to the baseline's.

    By default every run reaches it, but for controls: they may see less or more than the candidates.
    """
    candidates = [arm.name for arm in plan.arms if not arm.control]
    every = [curve["losses"] for name in candidates for curve in curves[name].values()]
    if not every:
        return None, None
    target = plan.settings.target_loss or reachable_loss(every)
    found: Found = {}
    for arm, own in curves.items():
        values: dict[int, float | None] = dict.fromkeys(plan.seeds)
        for seed, curve in own.items():
            values[seed] = tokens_to_reach(curve["tokens"], curve["losses"], target)
        found[arm] = {"values": values, "ratio": None}
    _add_ratios(plan, found)
    return target, found


def _add_ratios(plan: Plan, found: Found) -> None:
    """Ratios to the baseline, geometric means over seeds: differences of logarithms, tested together."""
    baseline = found[plan.baseline.name]["values"]
    pairs: dict[str, PairedDifference] = {}
    for name, own in found.items():
        every = [*own["values"].values(), *baseline.values()]
        if name != plan.baseline.name and len(plan.seeds) > 1 and all(every):  # neither None nor nought
            logs = [[math.log(values[seed]) for seed in plan.seeds] for values in (own["values"], baseline)]
            pairs[name] = paired_difference(*logs)
    controls = {arm.name for arm in plan.arms if arm.control}
    tested = [name for name in pairs if name not in controls]
    adjusted = dict(zip(tested, holm([pairs[name].p_value for name in tested]).tolist(), strict=True))
    for name, pair in pairs.items():
        ends = (math.exp(end) if math.isfinite(end) else math.nan for end in (pair.mean, pair.low, pair.high))
        ratio = dict(zip(("value", "low", "high"), ends, strict=True))
        found[name]["ratio"] = ratio | {
            "n": pair.n,
            "p_value": pair.p_value,
            "p_adjusted": adjusted.get(name, pair.p_value),
        }


# ---------------------------------------------------------------- sweep and downstream


def _sweep(plan: Plan) -> Found | None:
    done = _complete(plan, "sweep") if plan.sweep else None
    if done is None or plan.sweep is None:
        return None
    points = []
    for chosen, arm in plan.sweep.points:
        values = {item.seed: result["loss"] for item, result in done if item.arm.name == arm.name}
        own = spread_of(values)
        points.append({"name": arm.name, "settings": dict(chosen), "passes": plan.passes(arm), **own})
    return {"axes": {name: list(values) for name, values in plan.sweep.axes.items()}, "points": points}


def _downstream(plan: Plan) -> Found | None:
    done = _complete(plan, "downstream") if plan.tasks else None
    if done is None:
        return None
    found: Found = {}
    for task in plan.tasks:
        results: dict[str, dict[int, Found]] = {}
        for item, result in done:
            if item.what == task.name:
                results.setdefault(item.arm.name, {})[item.seed] = result
        scores = {arm: {seed: r["score"] for seed, r in own.items()} for arm, own in results.items()}
        paired = compare(plan, scores, lower_is_better=False)
        first = next((r for own in results.values() for r in own.values() if "measures" in r), {})
        found[task.name] = {
            arm: {
                **spread_of(own),
                "paired": paired.get(arm),
                "dev": {seed: result.get("dev") for seed, result in results[arm].items()},
                "split": first.get("split"),
                "measure": " and ".join(first.get("measures", ())),
            }
            for arm, own in scores.items()
        }
    return found

"""What a comparison found, as plain values: results.json, from the records of its items alone."""

import math
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fmlm_cli import __version__
from fmlm_cli.analysis.gradient_noise.estimators import Estimates
from fmlm_cli.analysis.gradient_noise.measure import Records
from fmlm_cli.analysis.report.findings import verdict
from fmlm_cli.analysis.statistics import (
    Interval,
    PairedDifference,
    judged,
    paired_difference,
    reachable_loss,
    tokens_to_reach,
)
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.model.build import parameter_counts
from fmlm_cli.recipes.comparison.arms import Arm, base_segments
from fmlm_cli.recipes.comparison.draft import held_out
from fmlm_cli.recipes.comparison.plan import Item, Kind, Plan
from fmlm_cli.recipes.shared.held_out import EVALUATION_RATE

Found = dict[str, Any]
BySeed = Mapping[int, float | None]

_PAIRED = ("n", "mean", "sd", "low", "high", "p_value", "p_adjusted", "tests", "better", "detectable")
_EVALUATED_ON = f"single tokens, {100 * EVALUATION_RATE:.0f} %, 80/10/10"


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
        "evaluation": _evaluation(plan),
        "steps": plan.total_steps,
        "segments": base_segments(plan.settings),
        "batch_size": plan.size,
        "learning_rate": plan.base.settings.optimizer.learning_rate,
        "device": str(Runtime.resolve(plan.settings.run.device).device),
        "baseline": plan.baseline.name,
        "arms": [_arm(plan, arm) for arm in plan.arms],
        "seeds": plan.seeds,
        "coverage": _coverage(plan),
        "variance": _variance(plan),
        "race": _race(plan),
        "downstream": _downstream(plan),
    }
    found["sweep"] = _sweep(plan, found["race"])
    found = plain(found)
    found["verdict"] = verdict(found)
    return found


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


def _evaluation(plan: Plan) -> Found | None:
    """What held-out losses are measured on, the same for every run."""
    if not plan.needs_runs:
        return None
    evaluated = held_out(plan, 1)
    return {"store": str(plan.evaluated_store.root), "rows": len(evaluated.reader), "masks": _EVALUATED_ON}


def _arm(plan: Plan, arm: Arm) -> Found:
    runs = [plan.result(item) for item in plan.possible("race") if item.arm.name == arm.name]
    done = [run for run in runs if run is not None and run["loss"] is not None]
    masks, speeds = arm.strategy.masks_per_sequence, [run["tokens_per_second"] for run in done]
    alike = [other for other in plan.arms if other.label == arm.label]
    return {
        "name": arm.name,
        "label": arm.label if len(alike) == 1 else arm.name,
        "masking": arm.masking.model_dump(mode="json"),
        "description": arm.strategy.description,
        "rate": arm.strategy.rate,
        "cycle": arm.strategy.cycle,
        "masks_per_sequence": masks,
        "sequences_per_step": plan.size // masks,
        "rows": plan.rows(arm),
        "passes": plan.passes(arm) if plan.total_steps else None,
        "tokens": _mean([run["tokens"][-1] for run in done]),
        "seconds": _mean([run["seconds"] for run in done]),
        "tokens_per_second": {"mean": _mean(speeds), "low": min(speeds), "high": max(speeds)}
        if speeds
        else None,
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
            found.append(_summary(plan, item, result, _read(plan.measured(item))))
    return found or None


def _read(path: Path) -> Records:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return Records.from_arrays(dict(arrays))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise UserError(
            f"{path} is damaged: remove it, and the same command with --resume measures it again"
        ) from None


def _summary(plan: Plan, item: Item, result: Mapping[str, Any], records: Records) -> Found:
    """The figures of one measurement."""
    corruption = plan.settings.run.masking.corruption
    shares = f"{100 * corruption.mask:g}/{100 * corruption.random:g}/{100 * corruption.keep:g}"
    shown = "[MASK] only" if item.corruption == "mask-only" else shares
    summary = Estimates(records).summary()
    return {
        "name": item.what,
        "step": result["step"],
        "loss": result["loss"],
        "corruption": shown,
        "unit": plan.settings.variance.unit,
        "store": str(plan.measured_store.root),
        "sequences": summary.sequences,
        "left_out": result["left_out"],
        "looked_at": result["looked_at"],
        "segments": records.plan.segments,
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
        "equal_compute": {name: _interval(value) for name, value in vars(summary.equal_compute).items()},
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
    return {
        "curves": curves,
        "final": {arm: spread_of(own) for arm, own in losses.items()},
        "paired": against_baseline(plan, _pairs(plan, losses)),
        "tokens_to_reach": _tokens_to_reach(plan, curves),
    }


def spread_of(values: BySeed) -> Found:
    """Values by seed, mean and sample standard deviation of those that are there."""
    there = [value for value in values.values() if value is not None]
    return {
        "values": dict(values),
        "mean": _mean(there),
        "sd": float(np.std(there, ddof=1)) if len(there) > 1 else None,
    }


def against_baseline(
    plan: Plan, pairs: Mapping[Any, PairedDifference | str], *, lower_is_better: bool = True
) -> dict[Any, Found]:
    """What comparisons with the baseline came to, by arm or by task and arm; of a pair that is none, why.

    The candidates are judged together. Controls are no candidates: each is a test of its own.
    """
    controls = {arm.name for arm in plan.arms if arm.control}
    together = {key: pair for key, pair in pairs.items() if _arm_of(key) not in controls}
    alone = [{key: pair} for key, pair in pairs.items() if key not in together]
    found = {}
    for family in (together, *alone):
        tested = judged({key: pair for key, pair in family.items() if not isinstance(pair, str)})
        for key, pair in family.items():
            own = found[key] = dict.fromkeys((*_PAIRED, "note"))
            if isinstance(pair, str):
                own["note"] = pair
            elif key not in tested:
                note = (
                    "the baseline's own result with every seed" if pair.mean == 0 else "no spread to test by"
                )
                own |= {"n": pair.n, "mean": pair.mean, "sd": 0.0, "note": note}
            else:
                one, gains = tested[key], (pair.mean < 0) == lower_is_better
                own |= asdict(pair) | {
                    "p_adjusted": one.p_adjusted,
                    "tests": len(tested),
                    "detectable": one.detectable,
                }
                own["better"] = (_arm_of(key) if gains else plan.baseline.name) if one.told else None
    return {key: found[key] for key in pairs}


def _arm_of(key: Any) -> str:
    """The arm that a comparison is of; those of tasks are named by task and arm."""
    return str(key[-1] if isinstance(key, tuple) else key)


def _pairs(plan: Plan, values: Mapping[str, BySeed]) -> dict[str, PairedDifference | str]:
    """Every arm but the baseline against it."""
    base = plan.baseline.name
    return {name: _paired(own, values[base]) for name, own in values.items() if name != base}


def _paired(arm: BySeed, baseline: BySeed) -> PairedDifference | str:
    """The paired difference, or why there is none."""
    lacking = [seed for seed in arm if arm[seed] is None or baseline[seed] is None]
    if lacking:
        return f"seed {lacking[0]} diverged, with it or with the baseline"
    first, second = ([float(own[seed] or 0.0) for seed in arm] for own in (arm, baseline))
    return paired_difference(first, second)


def _tokens_to_reach(plan: Plan, curves: Mapping[str, Mapping[int, Found]]) -> Found:
    """How many tokens each arm and the baseline took to a loss that all runs of both reach; ratios by seed.

    A target that all arms share would be set by the worst of them, and so early in the others' curves.
    """
    base = curves[plan.baseline.name]
    pairs: dict[str, PairedDifference | str] = {}
    found: Found = {}
    for arm in plan.arms:
        own = curves[arm.name]
        if arm.name == plan.baseline.name or not own or not base:
            continue
        target = plan.settings.target_loss or reachable_loss(
            [c["losses"] for c in (*own.values(), *base.values())]
        )
        values, against_it = (_tokens(plan, these, target) for these in (own, base))
        found[arm.name] = {"target": target, "values": values, "baseline": against_it}
        pairs[arm.name] = _log_ratio(values, against_it)
    for name, compared in against_baseline(plan, pairs).items():
        found[name]["ratio"] = _exponential(compared)
    return found


def _tokens(plan: Plan, curves: Mapping[int, Found], target: float) -> dict[int, float | None]:
    return {
        seed: tokens_to_reach(curves[seed]["tokens"], curves[seed]["losses"], target)
        if seed in curves
        else None
        for seed in plan.seeds
    }


def _log_ratio(values: BySeed, baseline: BySeed) -> PairedDifference | str:
    """Of positive tokens, as differences of logarithms."""
    every = [*values.values(), *baseline.values()]
    if any(value is None for value in every):
        return "not every seed got there"
    if not all(every):
        return "a run ended no lower than it began"
    return paired_difference(*([math.log(v) for v in own.values() if v] for own in (values, baseline)))


def _exponential(paired: Found) -> Found:
    """A comparison of logarithms as one of ratios, whose value is the geometric mean over seeds."""
    ends = {name: paired[key] for name, key in (("value", "mean"), ("low", "low"), ("high", "high"))}
    ratios = {name: None if end is None else math.exp(end) for name, end in ends.items()}
    return ratios | {key: paired[key] for key in ("n", "p_value", "p_adjusted", "tests", "better", "note")}


# ---------------------------------------------------------------- sweep and downstream


def _sweep(plan: Plan, race: Found | None) -> Found | None:
    """The points, all judged together, each against the race's baseline where that masks as much and is trained alike."""
    done = _complete(plan, "sweep") if plan.sweep else None
    if done is None or plan.sweep is None:
        return None
    points: list[Found] = []
    pairs: dict[str, PairedDifference | str] = {}
    baseline = race["final"][plan.baseline.name]["values"] if race else None
    for chosen, arm in plan.sweep.points:
        values = {item.seed: result["loss"] for item, result in done if item.arm.name == arm.name}
        points.append(
            {"name": arm.name, "settings": dict(chosen), "passes": plan.passes(arm), **spread_of(values)}
        )
        if baseline is not None:
            alike = math.isclose(arm.strategy.rate, plan.baseline.strategy.rate) and not arm.overrides
            pairs[arm.name] = (
                _paired(values, baseline) if alike else "no random run of this mask rate and these settings"
            )
    found = against_baseline(plan, pairs)
    for point in points:
        point["paired"] = found.get(point["name"])
    return {"axes": {name: list(values) for name, values in plan.sweep.axes.items()}, "points": points}


def _downstream(plan: Plan) -> Found | None:
    """Scores by task and arm. The comparisons of all tasks are judged together, but for the controls'."""
    done = _complete(plan, "downstream") if plan.tasks else None
    if done is None:
        return None
    found: Found = {}
    pairs: dict[tuple[str, str], PairedDifference | str] = {}
    for task in plan.tasks:
        results: dict[str, dict[int, Found]] = {}
        for item, result in done:
            if item.what == task.name:
                results.setdefault(item.arm.name, {})[item.seed] = result
        scores = {arm: {seed: r["score"] for seed, r in own.items()} for arm, own in results.items()}
        first = next((r for own in results.values() for r in own.values() if "measures" in r), {})
        found[task.name] = {
            "measure": " and ".join(first.get("measures", ())),
            "split": first.get("split"),
            "arms": {arm: spread_of(own) for arm, own in scores.items()},
        }
        pairs |= {(task.name, arm): pair for arm, pair in _pairs(plan, scores).items()}
    compared = against_baseline(plan, pairs, lower_is_better=False)
    for name, task_found in found.items():
        for arm, own in task_found["arms"].items():
            own["paired"] = compared.get((name, arm))
    return found

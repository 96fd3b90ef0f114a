"""The report's parts about downstream tasks and the sweep."""

import functools
import re

from fmlm_cli.analysis.report import findings
from fmlm_cli.analysis.report.figures.race import draw_downstream, draw_sweep
from fmlm_cli.analysis.report.parts import Exhibit, Part, ReportTable, absent
from fmlm_cli.analysis.report.race import PAIRED, paired_data, paired_table
from fmlm_cli.analysis.report.values import Arms, Estimate, Json, compact, probability, rounded_up, spell


def downstream_part(results: Json, arms: Arms) -> Part:
    """The raced models, fine-tuned."""
    tasks, title = results["downstream"], "Downstream"
    if not tasks:
        return Part(
            "downstream", title, missing=absent("No model was fine-tuned.", "downstream --tasks TASK")
        )
    return Part("downstream", title, [_task(name, own, arms) for name, own in tasks.items()])


def _task(task: str, found: Json, arms: Arms) -> Exhibit:
    own, measure = found["arms"], f"{found['split']} {found['measure']}"
    paired = {name: arm["paired"] for name, arm in own.items() if arm["paired"]}
    values = {name: arm["values"] for name, arm in own.items()}
    best = (
        ""
        if found["split"] == "test"
        else " The epoch may have been chosen on the same data (downstream.select), which flatters all arms alike."
    )
    return Exhibit(
        "downstream-" + re.sub(r"[^\w.-]+", "-", task),
        f"Does it carry over to {task}?",
        findings.told(paired, arms, measure, "points", 100),
        f"Models of the race fine-tuned with the same settings, {measure} in %; a dot for each seed of the race. Differences in points. {PAIRED} All tasks "
        f"are corrected together.{best}",
        functools.partial(
            draw_downstream,
            values,
            {name: Estimate.of(own, "mean") for name, own in paired.items() if own["n"]},
            arms,
            measure,
        ),
        [
            {"task": task, "arm": name, "passes": arms.own[name]["passes"], "seed": seed, "score": score, **paired_data(paired.get(name))}
            for name, by_seed in values.items()
            for seed, score in by_seed.items()
        ],
        paired_table(own, paired, arms, 100),
    )  # fmt: skip


def sweep_part(results: Json, arms: Arms) -> Part:
    """An ablation over settings."""
    sweep, title = results["sweep"], "Sweep"
    if not sweep:
        return Part(
            "sweep",
            title,
            missing="No settings were varied. Give lists of values, such as `--set sweep.segments=[3,5,7]`, and run the same command "
            "with `--resume --only race` to add it.",
        )
    axes, points = list(sweep["axes"]), sweep["points"]
    known = [own for own in points if own["mean"] is not None]
    says = "No point is finished without diverging."
    if known:
        best = min(known, key=lambda own: float(own["mean"]))
        at = ", ".join(f"{key} {value}" for key, value in best["settings"].items())
        says = f"Held-out loss is lowest, {best['mean']:.3f} nats, at {at}; the lowest of many is lower than it would be again."
    exhibit = Exhibit(
        "sweep",
        "What does each setting change?",
        says,
        f"Final held-out loss (nats), mean over seeds at each point, darker is lower; measured on the same masks of the same rate at every point, "
        f"to which some are nearer than others. {PAIRED} Points are corrected together.",
        functools.partial(draw_sweep, axes, points),
        [
            {**own["settings"], "passes": own["passes"], "seed": seed, "loss": loss, **paired_data(own["paired"])}
            for own in points
            for seed, loss in own["values"].items()
        ],
        ReportTable(
            [*axes, "passes", "mean", "by seed", f"minus {arms.base}", "p (Holm)", "smallest visible"],
            [_point(own, axes) for own in points],
        ),
    )  # fmt: skip
    return Part("sweep", title, [exhibit])


def _point(own: Json, axes: list[str]) -> tuple[str, ...]:
    values = ", ".join("diverged" if value is None else spell(value, 3) for value in own["values"].values())
    paired, compared = own["paired"], ("–", "–", "–")
    if paired:
        there = paired["p_value"] is not None
        text = Estimate.of(paired, "mean").text(sign=True) if there else paired["note"]
        compared = (text, probability(paired["p_adjusted"]), rounded_up(paired["detectable"]))
    settings = (str(own["settings"][axis]) for axis in axes)
    return (*settings, compact(own["passes"]), spell(own["mean"], 3), values, *compared)

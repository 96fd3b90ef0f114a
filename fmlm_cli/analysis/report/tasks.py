"""The report's parts about downstream tasks and the sweep."""

import functools
import re
from collections.abc import Sequence

from fmlm_cli.analysis.report.figures.race import draw_downstream, draw_sweep
from fmlm_cli.analysis.report.findings.race import told
from fmlm_cli.analysis.report.parts import Exhibit, Part, ReportTable, absent
from fmlm_cli.analysis.report.race import PAIRED, paired_data, paired_table
from fmlm_cli.analysis.report.values import DASH, Arms, Estimate, compact, probability, rounded_up, spell
from fmlm_cli.analysis.results.comparison import Measurements, PointResult, TaskResult


def downstream_part(results: Measurements, arms: Arms) -> Part:
    """The raced models, fine-tuned."""
    tasks, title = results.downstream, "Downstream"
    if not tasks:
        return Part(
            "downstream", title, missing=absent("No model was fine-tuned.", "downstream --tasks TASK")
        )
    return Part("downstream", title, [_task(name, scores, arms) for name, scores in tasks.items()])


def _task(task: str, scores: TaskResult, arms: Arms) -> Exhibit:
    measure = f"{scores.split} {scores.measure}"
    paired = {name: arm.paired for name, arm in scores.arms.items() if arm.paired is not None}
    values = {name: arm.values for name, arm in scores.arms.items()}
    flattered = (
        ""
        if scores.split == "test"
        else " The epoch may have been chosen on the same data (downstream.select), which flatters all arms "
        "alike."
    )
    return Exhibit(
        "downstream-" + re.sub(r"[^\w.-]+", "-", task),
        f"Does it carry over to {task}?",
        told(paired, arms, measure, "points", 100),
        f"Models of the race fine-tuned with the same settings, {measure} in %; a dot for each seed of the "
        f"race. Differences in points. {PAIRED} All tasks are corrected together.{flattered}",
        functools.partial(
            draw_downstream,
            values,
            {name: Estimate.of(pair) for name, pair in paired.items() if pair.n},
            arms,
            measure,
        ),
        [
            {
                "task": task,
                "arm": name,
                "passes": arms.by_name[name].passes,
                "seed": str(seed),
                "score": score,
                **paired_data(paired.get(name)),
            }
            for name, by_seed in values.items()
            for seed, score in by_seed.items()
        ],
        paired_table(scores.arms, paired, arms, 100),
    )


def sweep_part(results: Measurements, arms: Arms) -> Part:
    """An ablation over settings."""
    sweep, title = results.sweep, "Sweep"
    if sweep is None:
        return Part(
            "sweep",
            title,
            missing="No settings were varied. Give lists of values, such as `--set sweep.segments=[3,5,7]`, "
            "and run the same command with `--resume --only race` to add it.",
        )
    axes, points = list(sweep.axes), sweep.points
    exhibit = Exhibit(
        "sweep",
        "What does each setting change?",
        _lowest(points),
        "Final held-out loss (nats), mean over seeds at each point, darker is lower; measured on the same "
        "masks of the same rate at every point, to which some are nearer than others. "
        f"{PAIRED} Points are corrected together.",
        functools.partial(draw_sweep, axes, points),
        [
            {
                **point.settings,
                "passes": point.passes,
                "seed": str(seed),
                "loss": loss,
                **paired_data(point.paired),
            }
            for point in points
            for seed, loss in point.values.items()
        ],
        ReportTable(
            [*axes, "passes", "mean", "by seed", f"minus {arms.base}", "p (Holm)", "smallest visible"],
            [_row(point, axes) for point in points],
        ),
    )
    return Part("sweep", title, [exhibit])


def _lowest(points: Sequence[PointResult]) -> str:
    """Which point has the lowest loss."""
    losses = [(point.mean, place) for place, point in enumerate(points) if point.mean is not None]
    if not losses:
        return "No point is finished without diverging."
    loss, place = min(losses)
    settings = ", ".join(f"{key} {value}" for key, value in points[place].settings.items())
    return (
        f"Held-out loss is lowest, {loss:.3f} nats, at {settings}; the lowest of many is lower than it would "
        "be again."
    )


def _row(point: PointResult, axes: Sequence[str]) -> tuple[str, ...]:
    values = ", ".join("diverged" if loss is None else spell(loss, 3) for loss in point.values.values())
    pair, compared = point.paired, (DASH, DASH, DASH)
    if pair is not None:
        difference = Estimate.of(pair).text(sign=True) if pair.tested else pair.note or ""
        compared = (difference, probability(pair.p_adjusted), rounded_up(pair.detectable))
    settings = (str(point.settings[axis]) for axis in axes)
    return (*settings, compact(point.passes), spell(point.mean, 3), values, *compared)

"""The report's parts about downstream tasks and the sweep."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from fmlm_cli.analysis.report_figures import draw_downstream, draw_sweep
from fmlm_cli.analysis.report_pairs import (
    DETECTABLE,
    paired_data,
    paired_table,
    seed_count,
    told_apart,
    values_by_seed,
)
from fmlm_cli.analysis.report_parts import Exhibit, Part, Table, absent
from fmlm_cli.analysis.report_values import DASH, Arms, Estimate, Json, number, numbers, part, spell


def downstream_part(results: Json, arms: Arms, seeds: Sequence[str]) -> Part:
    """The raced models, fine-tuned."""
    tasks = {task: own for task, own in part(results, "downstream").items() if arms.of_part(part(own))}
    title = "Downstream"
    if not tasks:
        return Part(
            "downstream", title, missing=absent("No model was fine-tuned.", "downstream --tasks TASK")
        )
    values: dict[str, dict[str, dict[str, float | None]]] = {
        task: {name: values_by_seed(part(own[name]).get("values"), seeds) for name in arms.of_part(own)} for task, own in tasks.items()
    }  # fmt: skip
    paired = {task: {name: part(own[name], "paired") for name in values[task]} for task, own in tasks.items()}
    drawn = {
        task: (own, {name: Estimate.of(paired[task][name], "mean") for name in own})
        for task, own in values.items()
    }
    tables = [
        paired_table(
            values[task],
            {name: part(own[name]) for name in values[task]},
            paired[task],
            arms,
            100,
        )
        for task, own in tasks.items()
    ]
    exhibit = Exhibit(
        "downstream",
        "Does it carry over to tasks?",
        " ".join(
            f"{task}: {told_apart(own, arms, 'score', 'points', lower=False)}" for task, own in _scaled(paired).items()
        ),
        f"Scores on development data (%), models of the race fine-tuned with the same settings; a dot for each seed. Differences in "
        f"points, paired by seed, with 95 % Student-t interval and two-sided paired t-test; p after Holm’s correction. {DETECTABLE} "
        f"{seed_count({f'{t}/{n}': own for t, by_arm in values.items() for n, own in by_arm.items()})}.",
        functools.partial(draw_downstream, drawn, arms),
        [
            {"task": task, "arm": name, "passes": part(arms.own.get(name)).get("passes"), "seed": seed, "score": score,
             **paired_data(paired[task][name])}
            for task, by_arm in values.items()
            for name, own in by_arm.items()
            for seed, score in own.items()
        ],
        _joined(list(tasks), tables),
    )  # fmt: skip
    return Part("downstream", title, [exhibit])


def _scaled(paired: Mapping[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """With the smallest visible difference in points."""
    return {
        task: {
            name: own
            | {
                "detectable": None
                if (seen := number(own.get("detectable"))) is None
                else float(f"{100 * seen:.2g}")
            }
            for name, own in by_arm.items()
        }
        for task, by_arm in paired.items()
    }


def _joined(tasks: Sequence[str], tables: Sequence[Table]) -> Table:
    """One table of several with a column for the task; columns that one of them lacks stay empty there."""
    header = list(dict.fromkeys(name for table in tables for name in table.header))
    for name in ("mean", "sd", "minus the baseline", "p (Holm)", "detectable"):  # after all seeds
        header.remove(name)
        header.append(name)
    rows = []
    for task, table in zip(tasks, tables, strict=True):
        for row in table.rows:
            cells = dict(zip(table.header, row, strict=True))
            rows.append((task, *(cells.get(name, DASH) for name in header)))
    return Table(["task", *header], rows)


def sweep_part(results: Json) -> Part:
    """An ablation over settings."""
    sweep = part(results, "sweep")
    points = [part(own) for own in sweep.get("points") or [] if own]
    title = "Sweep"
    if not points:
        return Part(
            "sweep",
            title,
            missing="No settings were varied. Give lists of values, such as `--set sweep.segments=[3,5,7]`, and run the same command with `--only race` to add it.",
        )
    axes = [str(part(own).get("name") or own) for own in sweep.get("axes") or part(points[0], "settings")]
    known = [own for own in points if number(own.get("mean")) is not None]
    best = min(known, key=lambda own: float(own["mean"]), default=None)
    at = "" if best is None else ", ".join(f"{key} {value}" for key, value in part(best, "settings").items())
    says = f"Held-out loss is lowest, {best['mean']:.4g} nats, at {at}; the lowest of many is lower than it would be again." if best else "No point is finished."  # fmt: skip
    n = sorted({len(numbers(own.get("values"))) for own in points})
    exhibit = Exhibit(
        "sweep",
        "What does each setting change?",
        says,
        f"Final held-out loss (nats), mean over n = {' or '.join(map(str, n))} seeds at each point; no intervals. Darker is lower.",
        functools.partial(draw_sweep, axes, points),
        [{**part(own, "settings"), "mean": own.get("mean"), "values": " ".join(map(str, numbers(own.get("values"))))} for own in points],
        Table(
            [*axes, "mean", "by seed"],
            [
                (
                    *(str(part(own, "settings").get(axis, DASH)) for axis in axes),
                    spell(number(own.get("mean")), 3),
                    ", ".join(spell(value, 3) for value in numbers(own.get("values"))),
                )
                for own in points
            ],
        ),
        folded=len(points) > 12,
    )  # fmt: skip
    return Part("sweep", title, [exhibit])

"""The report's part about downstream tasks."""

import functools
import re

from fmlm_cli.analysis.report.figures.race import draw_downstream
from fmlm_cli.analysis.report.findings.race import told
from fmlm_cli.analysis.report.parts import Exhibit, Part, absent
from fmlm_cli.analysis.report.race import PAIRED, paired_data, paired_table
from fmlm_cli.analysis.report.values import Arms, Estimate
from fmlm_cli.analysis.results.comparison import Measurements, TaskResult


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

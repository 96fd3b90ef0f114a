"""What fine-tuning found: results.json, tables in Markdown and LaTeX, a picture, and GLUE's submission."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmlm_cli import __version__, storage
from fmlm_cli.analysis.figures import draw_scores
from fmlm_cli.config import to_yaml
from fmlm_cli.events import Caution, Emit, Table
from fmlm_cli.model.classifier import Encoder
from fmlm_cli.objectives.classification import SequenceClassification
from fmlm_cli.recipes.cells import CellResult, predict_split, write_predictions
from fmlm_cli.recipes.finetune_plan import FINETUNED, Plan
from fmlm_cli.tasks import (
    GLUE,
    TaskData,
    compute_metrics,
    glue_average,
    write_submission,
    zip_submissions,
)

_SCORE = "score"


@dataclass(frozen=True)
class Report:
    """Where the report lies, and what results.json holds."""

    root: Path
    results: Mapping[str, Any]


def write_report(plan: Plan, done: Sequence[CellResult], emit: Emit) -> Report:
    """Sum the finished cells up, and write all files of the report."""
    tasks = {
        name: _summary(plan, data, [r for r in done if r.task == name]) for name, data in plan.data.items()
    }
    submitted, missing = _submit(plan, emit)
    results = {
        "fmlm": __version__,
        "checkpoint": plan.origin.name,
        "revision": plan.origin.revision,
        "model_type": plan.encoder.config.model_type,
        "settings": plan.settings.model_dump(mode="json"),
        "tasks": tasks,
        "glue_average": glue_average(
            {name: own["mean"] for name, own in tasks.items() if own["mean"] is not None}
        ),
        "submission": submitted,
        "cells": [vars(result) for result in done],
    }
    storage.write_json(plan.root / "results.json", results)
    notes = [*_notes(plan, tasks, results["glue_average"]), *missing]
    storage.write_text(plan.root / "results.md", _markdown(plan, tasks, notes))
    storage.write_text(plan.root / "results.tex", _latex(plan, tasks))
    picture = draw_scores(
        {name: own["points"][own["point"]]["scores"] for name, own in tasks.items()}, plan.root / "plots"
    )
    for note in notes:
        emit(Caution(note))
    emit(Table(f"development scores, {plan.settings.seeds} seeds", dict(_console_rows(tasks))))
    emit(Table("done", _where(plan, picture, submitted)))
    return Report(plan.root, results)


# ---------------------------------------------------------------- numbers


def statistics(values: Sequence[float]) -> dict[str, Any]:
    """Mean, median, sample standard deviation, least and greatest of some values; None where there are too few."""
    own = np.asarray(values, np.float64)
    return {
        "n": len(own),
        "mean": float(own.mean()) if len(own) else None,
        "median": float(np.median(own)) if len(own) else None,
        "sd": float(own.std(ddof=1)) if len(own) > 1 else None,
        "least": float(own.min()) if len(own) else None,
        "best": float(own.max()) if len(own) else None,
        "values": own.tolist(),
    }


def _summary(plan: Plan, data: TaskData, results: Sequence[CellResult]) -> dict[str, Any]:
    """A task's results: of every point its scores, and all measures of the point with the best median score."""
    by_point: dict[str, list[CellResult]] = {}
    for result in results:
        by_point.setdefault(result.point, []).append(result)
    points = {
        name: {
            **statistics([r.score for r in own if r.score is not None]),
            "scores": {r.seed: r.score for r in own},
            "diverged": sum(r.failed is not None for r in own),
            "training": own[0].training,
        }
        for name, own in by_point.items()
    }
    chosen = max(points, key=lambda name: _median_of_all(by_point[name]))
    finished = [result for result in by_point[chosen] if result.failed is None]
    baseline = _baseline(data)
    return {
        "point": chosen,
        "training": points[chosen]["training"],
        "begun_from_mnli": plan.begins_from_mnli(data.task.name),
        "measures": list(data.task.score),
        **{name: points[chosen][name] for name in ("n", "mean", "median", "sd", "least", "best", "diverged")},
        "dev": _measures(finished, "dev"),
        "test": _measures(finished, "test"),
        "baseline": baseline,
        "not_above_baseline": sum(
            baseline is not None and (r.score or 0.0) <= baseline[_SCORE] + 1e-12 for r in finished
        ),
        "examples": {"train": len(data.train), "dev": {k: len(v) for k, v in data.dev.items()}},
        "examples_per_second": statistics([r.examples_per_second for r in finished])["median"],
        "padding": results[0].padding,
        "cut": _cut(plan, data),
        "points": points,
    }


def _median_of_all(results: Sequence[CellResult]) -> float:
    """The median score, one that diverged being worse than any."""
    return float(np.median([-np.inf if r.score is None else r.score for r in results]))


def _measures(results: Sequence[CellResult], kind: str) -> dict[str, dict[str, Any]]:
    """For each split and measure its statistics over seeds."""
    splits: Mapping[str, Mapping[str, float]] = getattr(results[0], kind) if results else {}
    return {
        split: {name: statistics([getattr(r, kind)[split][name] for r in results]) for name in measures}
        for split, measures in splits.items()
    }


def _baseline(data: TaskData) -> dict[str, float] | None:
    """What always naming the training set's most frequent class would reach."""
    if data.task.regression:
        return None
    dev = next(iter(data.dev.values()))
    assert data.train.labels is not None and dev.labels is not None
    outputs = np.zeros((len(dev), len(data.task.labels)))
    outputs[:, np.bincount(data.train.labels.astype(np.int64)).argmax()] = 1
    return compute_metrics(data.task, dev.labels, outputs)


def _cut(plan: Plan, data: TaskData) -> dict[str, int]:
    """Sequences that were too long, by split."""
    splits = {"train": data.train, **data.dev, **data.test}
    return {name: plan.split(examples).sequences.cut for name, examples in splits.items()}


# ---------------------------------------------------------------- GLUE's submission


def _submit(plan: Plan, emit: Emit) -> tuple[str | None, list[str]]:
    """Predict the unlabelled test splits with each task's best model; the zip, and what it lacks."""
    files, missing = [], []
    for name, data in plan.data.items():
        tests = {k: examples for k, examples in data.test.items() if examples.labels is None}
        if name in GLUE:
            missing += [f"{f}.tsv" for split, f in GLUE[name].submissions.items() if split not in tests]
        folder = plan.model_folder(name)
        if not tests or not (folder / FINETUNED).is_file():
            continue
        model = Encoder.read(folder, name=str(folder)).classifier(data.task.labels, seed=0).model
        model.to(plan.where.device)
        objective = SequenceClassification(data.task.regression, int(plan.tokenizer.pad_token_id or 0))
        for split, examples in tests.items():
            outputs = predict_split(model, objective, plan.split(examples).sequences, 32, plan.where)
            outputs = outputs[:, 0] if data.task.regression else outputs
            if name in GLUE:
                files.append(write_submission(plan.root / "submission", data.task, split, examples, outputs))
            else:
                files.append(_own_predictions(plan, data, split, outputs))
    if not files or not set(plan.data) <= set(GLUE):
        return None, []
    target = plan.root / "submission.zip"
    zip_submissions(files, target)
    lacking = f"submission.zip lacks {', '.join(missing)}: there is no such test file" if missing else ""
    return str(target), [lacking] if lacking else []


def _own_predictions(plan: Plan, data: TaskData, split: str, outputs: Any) -> Path:
    path = plan.root / "predictions" / f"{split}.jsonl"
    write_predictions(path, data, data.test[split], outputs)
    return path


# ---------------------------------------------------------------- words


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _rows(tasks: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """(task, split, measure, statistics) for every measure of the chosen points, development before test."""
    for name, own in tasks.items():
        for kind in ("dev", "test"):
            for split, measures in own[kind].items():
                several = len(own[kind]) > 1
                for measure, found in measures.items():
                    if measure != _SCORE or len(own["measures"]) > 1:
                        yield name, f"{kind} {split}" if several else kind, measure.replace("_", "-"), found


def _console_rows(tasks: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, split, measure, found in _rows(tasks):
        label = f"{name} {measure}" + ("" if split == "dev" else f" ({split})")
        yield (
            label,
            f"median {_percent(found['median'])}, mean {_percent(found['mean'])} ± {_percent(found['sd'])}, "
            f"best {_percent(found['best'])}, least {_percent(found['least'])}",
        )


def _notes(plan: Plan, tasks: Mapping[str, Any], average: float | None) -> list[str]:
    """What has to be known to read the numbers rightly."""
    notes = []
    for name, own in tasks.items():
        for split, number in own["cut"].items():
            if number:
                notes.append(
                    f"{name}: {number:,} sequences of {split} were longer than {plan.settings.max_length} tokens and were cut"
                )
        if own["not_above_baseline"]:
            baseline = _percent(own["baseline"][_SCORE])
            notes.append(
                f"{name}: {own['not_above_baseline']} of {own['n']} seeds are no better than always naming the most frequent "
                f"class ({baseline})"
            )
        if own["diverged"]:
            notes.append(f"{name}: {own['diverged']} seeds diverged and are in none of the figures")
        if len(own["points"]) > 1:
            notes.append(
                f"{name}: {own['point']} has the best median of {len(own['points'])} points of the grid; choosing it on the "
                "development split makes its score there a little too good"
            )
    if average is not None:
        notes.append(
            f"GLUE average of the mean development scores, WNLI left out as is usual: {_percent(average)}"
        )
    return notes


def _markdown(plan: Plan, tasks: Mapping[str, Any], notes: Sequence[str]) -> str:
    lines = [
        f"# Fine-tuning of {plan.origin.name}",
        "",
        f"In percent, over {plan.settings.seeds} seeds. Of each run the {plan.settings.select} epoch counts, by the score on the "
        "development split; the standard deviation is that of the sample.",
        "",
        "| task | split | measure | seeds | median | mean | sd | best | least |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, split, measure, found in _rows(tasks):
        begun = " (from MNLI)" if tasks[name]["begun_from_mnli"] else ""
        values = " | ".join(_percent(found[key]) for key in ("median", "mean", "sd", "best", "least"))
        lines.append(f"| {name}{begun} | {split} | {measure} | {found['n']} | {values} |")
    if any(len(own["points"]) > 1 for own in tasks.values()):
        lines += [
            "",
            "## Grid",
            "",
            "| task | point | seeds | median score | mean | sd | best |",
            "| --- " * 7 + "|",
        ]
        for name, own in tasks.items():
            for point, found in own["points"].items():
                values = " | ".join(_percent(found[key]) for key in ("median", "mean", "sd", "best"))
                mark = " (chosen)" if point == own["point"] else ""
                lines.append(f"| {name} | {point}{mark} | {found['n']} | {values} |")
    lines += ["", "## Notes", "", *(f"- {note}" for note in notes)] if notes else []
    lines += ["", "![development score by seed](plots/scores.png)", "", "## All settings", ""]
    lines += ["```yaml", to_yaml(plan.settings).rstrip(), "```", ""]
    return "\n".join(lines)


def _latex(plan: Plan, tasks: Mapping[str, Any]) -> str:
    """A table for a paper (booktabs), mean and standard deviation over seeds."""
    lines = [
        f"% fine-tuning of {plan.origin.name}, {plan.settings.seeds} seeds: mean, standard deviation, median and best",
        r"\begin{tabular}{lllrrr}",
        r"\toprule",
        r"task & split & measure & mean $\pm$ sd & median & best \\",
        r"\midrule",
    ]
    for name, split, measure, found in _rows(tasks):
        task = name.replace("_", r"\_")
        mean = f"{_percent(found['mean'])} $\\pm$ {_percent(found['sd'])}"
        lines.append(
            rf"{task} & {split} & {measure} & {mean} & {_percent(found['median'])} & {_percent(found['best'])} \\"
        )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _where(plan: Plan, picture: Path, submitted: str | None) -> dict[str, str]:
    rows = {
        "tables": f"{plan.root / 'results.md'}, results.tex, results.json",
        "scores by seed": str(picture),
        "models": f"{plan.root / 'models'}/TASK (Hugging Face folders, the best cell of each task)",
        "predictions": f"{plan.root / 'cells'}/TASK/.../predictions",
    }
    if submitted:
        rows["GLUE submission"] = submitted
    first = next(iter(plan.data))
    rows["predict"] = f'fmlm predict --from {plan.root / "models" / first} "..."'
    return rows

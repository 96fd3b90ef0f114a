"""What fine-tuning found: results.json, tables in Markdown and LaTeX, a picture, and GLUE's submission."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmlm_cli import __version__, storage
from fmlm_cli.analysis.report import parts as report_parts
from fmlm_cli.analysis.report.figures.training import draw_scores
from fmlm_cli.analysis.report.markdown import table_lines
from fmlm_cli.config import to_yaml
from fmlm_cli.events import Caution, Emit, Table
from fmlm_cli.model.classifier import Encoder
from fmlm_cli.objectives.classification import SequenceClassification
from fmlm_cli.recipes.finetuning.cells import CellResult
from fmlm_cli.recipes.finetuning.plan import Plan
from fmlm_cli.recipes.shared.checkpoints import FINETUNED
from fmlm_cli.recipes.shared.predictions import predict_split, write_predictions
from fmlm_cli.recipes.shared.words import counted
from fmlm_cli.tasks import (
    GLUE,
    TaskData,
    compute_metrics,
    glue_average,
    write_submission,
    zip_submissions,
)

_SCORE = "score"
_SPREAD = ("median", "mean", "sd", "best", "least")  # over seeds, in the order of the tables
_LATEX = re.compile(r"[&%$#_{}]")  # characters with a meaning of their own


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
        "glue_average": _average(plan, tasks),
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
    emit(Table(f"scores over {counted(plan.settings.seeds, 'seed')}, in %", dict(_console_rows(tasks))))
    emit(Table("done", _where(plan, picture, submitted)))
    return Report(plan.root, results)


# ---------------------------------------------------------------- numbers


def _average(plan: Plan, tasks: Mapping[str, Any]) -> float | None:
    """GLUE's average of the mean scores, where its tasks are complete."""
    scores = {name: own["mean"] for name, own in tasks.items() if own["mean"] is not None}
    return glue_average(scores) if plan.is_glue else None


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
    dev = data.dev[data.decides]
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
    files = []
    for name, data in plan.data.items():
        tests = {k: examples for k, examples in data.test.items() if examples.labels is None}
        folder = plan.model_folder(name)
        if not tests or not (folder / FINETUNED).is_file():
            continue
        model = Encoder.read(folder, name=str(folder)).classifier(data.task.labels, seed=0).model
        model.to(plan.runtime.device)
        objective = SequenceClassification(data.task.regression, int(plan.tokenizer.pad_token_id or 0))
        for split, examples in tests.items():
            outputs = predict_split(model, objective, plan.split(examples).sequences, 32, plan.runtime)
            outputs = outputs[:, 0] if data.task.regression else outputs
            if plan.is_glue:
                files.append(write_submission(plan.root / "submission", data.task, split, examples, outputs))
            else:
                path = plan.root / "predictions" / f"{split}.jsonl"
                write_predictions(path, data, examples, outputs)
    if not files:
        return None, []
    target = plan.root / "submission.zip"
    zip_submissions(files, target)
    wanted = [f"{file}.tsv" for task in GLUE.values() for file in task.submissions.values()]
    missing = [file for file in wanted if file not in {path.name for path in files}]
    lacking = f"submission.zip lacks {', '.join(missing)}: GLUE's server takes it only when it is complete"
    return str(target), [lacking] if missing else []


# ---------------------------------------------------------------- words


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _rows(tasks: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """(task, split, measure, statistics) for every measure of the chosen points, development before test."""
    for name, own in tasks.items():
        for kind in ("dev", "test"):
            for split, measures in own[kind].items():
                for measure, found in measures.items():
                    if measure != _SCORE or len(own["measures"]) > 1:
                        yield (
                            name,
                            kind if split == kind else f"{kind} {split}",
                            measure.replace("_", "-"),
                            found,
                        )


def _console_rows(tasks: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, split, measure, found in _rows(tasks):
        label = f"{name} {measure}" + ("" if split == "dev" else f" ({split})")
        spread = (
            f"median {_percent(found['median'])}, mean {_percent(found['mean'])} ± {_percent(found['sd'])}, "
            f"best {_percent(found['best'])}, least {_percent(found['least'])}"
        )
        yield label, spread if found["n"] > 1 else f"{_percent(found['mean'])}, one seed"


def _notes(plan: Plan, tasks: Mapping[str, Any], average: float | None) -> list[str]:
    """What has to be known to read the numbers rightly."""
    notes = []
    for name, own in tasks.items():
        for split, number in own["cut"].items():
            if number:
                notes.append(
                    f"{name}: {counted(number, 'sequence')} of {split} cut to {plan.settings.max_length} tokens"
                )
        if own["not_above_baseline"]:
            baseline = _percent(own["baseline"][_SCORE])
            notes.append(
                f"{name}: {own['not_above_baseline']} of {counted(own['n'], 'seed')} no better than always naming the "
                f"most frequent class ({baseline})"
            )
        if own["diverged"]:
            every = counted(own["n"] + own["diverged"], "seed")
            notes.append(
                f"{name}: {own['diverged']} of {every} diverged, and no figure counts them: lower the learning rate"
            )
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
    counts = (
        "the epoch with the best development score" if plan.settings.select == "best" else "the last epoch"
    )
    measures = [
        [name + " (from MNLI)" * tasks[name]["begun_from_mnli"], split, measure, *_figures(found)]
        for name, split, measure, found in _rows(tasks)
    ]
    points = [
        [name, point + " (chosen)" * (point == own["point"]), *_figures(found)]
        for name, own in tasks.items()
        for point, found in own["points"].items()
    ]
    lines = [
        f"# Fine-tuning of {plan.origin.name}",
        "",
        f"In percent, over {counted(plan.settings.seeds, 'seed')}. Of each run {counts} counts; sd is the standard "
        "deviation of the sample.",
        "",
        *table_lines(report_parts.Table(["task", "split", "measure", "seeds", *_SPREAD], measures)),
        "",
    ]
    if len(points) > len(tasks):
        lines += ["## Grid", "", "Scores that decide between points:", ""]
        lines += [*table_lines(report_parts.Table(["task", "point", "seeds", *_SPREAD], points)), ""]
    lines += ["## Notes", "", *(f"- {note}" for note in notes), ""] if notes else []
    lines += ["![development score by seed](plots/scores.png)", "", "## All settings", ""]
    lines += ["```yaml", to_yaml(plan.settings).rstrip(), "```", ""]
    return "\n".join(lines)


def _figures(found: Mapping[str, Any]) -> list[str]:
    return [str(found["n"]), *(_percent(found[key]) for key in _SPREAD)]


def _latex(plan: Plan, tasks: Mapping[str, Any]) -> str:
    """A table for a paper (booktabs), mean and standard deviation over seeds."""
    lines = [
        f"% fine-tuning of {plan.origin.name}, {counted(plan.settings.seeds, 'seed')}: mean, standard deviation, median, best",
        r"\begin{tabular}{lllrrr}",
        r"\toprule",
        r"task & split & measure & mean $\pm$ sd & median & best \\",
        r"\midrule",
    ]
    for name, split, measure, found in _rows(tasks):
        task = _LATEX.sub(r"\\\g<0>", name)
        mean = f"{_percent(found['mean'])} $\\pm$ {_percent(found['sd'])}"
        lines.append(
            rf"{task} & {split} & {measure} & {mean} & {_percent(found['median'])} & {_percent(found['best'])} \\"
        )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _where(plan: Plan, picture: Path, submitted: str | None) -> dict[str, str]:
    """What lies where, and what to do with it."""
    rows = {
        "tables": f"{plan.root / 'results.md'}, results.tex, results.json",
        "scores by seed": str(picture),
        "predictions": f"{plan.root / 'cells'}/TASK/.../predictions",
    }
    if submitted:
        rows["GLUE submission"] = submitted
    made = [name for name in plan.data if (plan.model_folder(name) / FINETUNED).is_file()]
    if made:
        each = made[0] if len(made) == 1 else "TASK"
        rows["models"] = (
            f"{plan.model_folder(each)} (a Hugging Face folder: the best run of {'the task' if len(made) == 1 else 'each task'})"
        )
        words = ["fmlm", "predict", "--from", str(plan.model_folder(made[0]))]
        rows["next"] = f'{shlex.join(words)} "a text"' + (
            ' --pair "another text"' if plan.data[made[0]].task.pair else ""
        )
    return rows

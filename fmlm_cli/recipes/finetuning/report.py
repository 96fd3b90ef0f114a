"""What fine-tuning found: results.json, tables in Markdown and LaTeX, a picture, and GLUE's submission."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmlm_cli import __version__, storage
from fmlm_cli.analysis.report.figures.training import draw_scores
from fmlm_cli.analysis.report.markdown import fenced, literal, table_lines
from fmlm_cli.analysis.report.parts import ReportTable
from fmlm_cli.analysis.results.finetuning import (
    CellResult,
    ExampleCounts,
    FinetuneResults,
    PointScores,
    Statistics,
    TaskScores,
)
from fmlm_cli.analysis.results.plain import as_json
from fmlm_cli.config import to_yaml
from fmlm_cli.events import Caution, Emit, Facts, counted
from fmlm_cli.model.classification.sequence_classifier import ready_classifier
from fmlm_cli.model.classifier import EncoderCheckpoint
from fmlm_cli.recipes.finetuning.cells import objective_for
from fmlm_cli.recipes.finetuning.plan import FinetunePlan
from fmlm_cli.recipes.shared.checkpoints import FINETUNED
from fmlm_cli.recipes.shared.predictions import AT_ONCE, keep_predictions, predict_split
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
Tasks = Mapping[str, TaskScores]
# Characters that mean something to TeX, or come out as another in its default font.
_TEX = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
)


@dataclass(frozen=True)
class Report:
    """Where the report lies, and what results.json holds."""

    root: Path
    results: FinetuneResults


def write_report(plan: FinetunePlan, done: Sequence[CellResult], emit: Emit) -> Report:
    """Sum the finished cells up, and write all files of the report."""
    tasks = {
        name: _summary(plan, data, [cell for cell in done if cell.task == name])
        for name, data in plan.data.items()
    }
    submitted, missing = _submit(plan, emit)
    results = FinetuneResults(
        fmlm=__version__,
        checkpoint=plan.origin.name,
        revision=plan.origin.revision,
        model_type=plan.encoder.config.model_type,
        settings=plan.settings.model_dump(mode="json"),
        tasks=tasks,
        glue_average=_average(plan, tasks),
        submission=submitted,
        cells=tuple(done),
    )
    notes = [*_notes(plan, results), *missing]
    storage.write_json(plan.root / "results.json", as_json(results))
    storage.write_text(plan.root / "results.md", _markdown(plan, tasks, notes))
    storage.write_text(plan.root / "results.tex", _latex(plan, tasks))
    picture = draw_scores(
        {name: task.points[task.point].scores for name, task in tasks.items()}, plan.root / "plots"
    )
    for note in notes:
        emit(Caution(note))
    emit(Facts(f"scores over {counted(plan.settings.seeds, 'seed')}, in %", dict(_console_rows(tasks))))
    emit(Facts("done", _where(plan, picture, submitted)))
    return Report(plan.root, results)


# ---------------------------------------------------------------- numbers


def _average(plan: FinetunePlan, tasks: Tasks) -> float | None:
    """GLUE's average of the mean scores, where its tasks are complete."""
    scores = {name: task.mean for name, task in tasks.items() if task.mean is not None}
    return glue_average(scores) if plan.is_glue else None


def statistics(values: Sequence[float]) -> Statistics:
    """Mean, median, sample standard deviation, least and greatest of some values."""
    numbers = np.asarray(values, np.float64)
    return Statistics(
        n=len(numbers),
        mean=float(numbers.mean()) if len(numbers) else None,
        median=float(np.median(numbers)) if len(numbers) else None,
        sd=float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
        least=float(numbers.min()) if len(numbers) else None,
        best=float(numbers.max()) if len(numbers) else None,
        values=tuple(numbers.tolist()),
    )


def _summary(plan: FinetunePlan, data: TaskData, cells: Sequence[CellResult]) -> TaskScores:
    """Of every point its scores, and all measures of the point with the best median score."""
    by_point: dict[str, list[CellResult]] = {}
    for cell in cells:
        by_point.setdefault(cell.point, []).append(cell)
    points = {name: _point(of_point) for name, of_point in by_point.items()}
    name = max(points, key=lambda name: _median_of_all(by_point[name]))
    best, finished = points[name], [cell for cell in by_point[name] if cell.failed is None]
    baseline = _baseline(data)
    return TaskScores(
        point=name,
        training=best.training,
        begun_from_mnli=plan.begins_from_mnli(data.task.name),
        measures=tuple(data.task.score),
        n=best.n,
        mean=best.mean,
        median=best.median,
        sd=best.sd,
        least=best.least,
        best=best.best,
        diverged=best.diverged,
        dev=_measures(finished, "dev"),
        test=_measures(finished, "test"),
        baseline=baseline,
        not_above_baseline=sum(
            baseline is not None and (cell.score or 0.0) <= baseline[_SCORE] + 1e-12 for cell in finished
        ),
        examples=ExampleCounts(len(data.train), {split: len(dev) for split, dev in data.dev.items()}),
        examples_per_second=statistics([cell.examples_per_second for cell in finished]).median,
        padding=cells[0].padding,
        cut=_cut(plan, data),
        points=points,
    )


def _point(cells: Sequence[CellResult]) -> PointScores:
    """The scores of one point's cells."""
    return PointScores(
        **vars(statistics([cell.score for cell in cells if cell.score is not None])),
        scores={cell.seed: cell.score for cell in cells},
        diverged=sum(cell.failed is not None for cell in cells),
        training=cells[0].training,
    )


def _median_of_all(cells: Sequence[CellResult]) -> float:
    """The median score, one that diverged being worse than any."""
    return float(np.median([-np.inf if cell.score is None else cell.score for cell in cells]))


def _measures(cells: Sequence[CellResult], kind: str) -> dict[str, dict[str, Statistics]]:
    """For each split and measure its statistics over seeds."""
    splits: Mapping[str, Mapping[str, float]] = getattr(cells[0], kind) if cells else {}
    return {
        split: {name: statistics([getattr(cell, kind)[split][name] for cell in cells]) for name in measures}
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


def _cut(plan: FinetunePlan, data: TaskData) -> dict[str, int]:
    """Sequences that were too long, by split."""
    splits = {"train": data.train, **data.dev, **data.test}
    return {name: plan.split(examples).sequences.cut for name, examples in splits.items()}


# ---------------------------------------------------------------- GLUE's submission


def _submit(plan: FinetunePlan, emit: Emit) -> tuple[str | None, list[str]]:
    """Predict the unlabelled test splits with each task's best model; the zip, and what it lacks."""
    files = []
    for name, data in plan.data.items():
        tests = {k: examples for k, examples in data.test.items() if examples.labels is None}
        folder = plan.model_folder(name)
        if not tests or not (folder / FINETUNED).is_file() or plan.loss_of_model(name):  # which has been said
            continue
        saved = EncoderCheckpoint.read(folder, name=str(folder)).classifier(data.task.labels, seed=0)
        backend = next(iter(plan.backends.values()))  # any: nothing is dropped here
        model = ready_classifier(saved.model, backend, plan.runtime.device)
        objective = objective_for(model, plan.settings, plan.tokenizer, data.task)
        for split, examples in tests.items():
            outputs = predict_split(model, objective, plan.split(examples).sequences, AT_ONCE, plan.runtime)
            outputs = outputs[:, 0] if data.task.regression else outputs
            if plan.is_glue:
                files.append(write_submission(plan.root / "submission", data.task, split, examples, outputs))
            else:
                path = plan.root / "predictions" / f"{split}.jsonl"
                keep_predictions(path, data, examples, outputs)
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


def _rows(tasks: Tasks) -> Iterator[tuple[str, str, str, Statistics]]:
    """(task, split, measure, statistics) for every measure of the best points, development before test."""
    for name, task in tasks.items():
        for kind, splits in (("dev", task.dev), ("test", task.test)):
            for split, measures in splits.items():
                for measure, over_seeds in measures.items():
                    if measure != _SCORE or len(task.measures) > 1:
                        shown = kind if split == kind else f"{kind} {split}"
                        yield name, shown, measure.replace("_", "-"), over_seeds


def _console_rows(tasks: Tasks) -> Iterator[tuple[str, str]]:
    for name, split, measure, over_seeds in _rows(tasks):
        label = f"{name} {measure}" + ("" if split == "dev" else f" ({split})")
        spread = (
            f"median {_percent(over_seeds.median)}, mean {_percent(over_seeds.mean)} ± "
            f"{_percent(over_seeds.sd)}, best {_percent(over_seeds.best)}, least {_percent(over_seeds.least)}"
        )
        yield label, spread if over_seeds.n > 1 else f"{_percent(over_seeds.mean)}, one seed"


def _notes(plan: FinetunePlan, results: FinetuneResults) -> list[str]:
    """What has to be known to read the numbers rightly."""
    notes = [note for name, task in results.tasks.items() for note in _notes_of(plan, name, task)]
    if results.glue_average is not None:
        average = _percent(results.glue_average)
        notes.append(f"GLUE average of the mean development scores, WNLI left out as is usual: {average}")
    return notes


def _notes_of(plan: FinetunePlan, name: str, task: TaskScores) -> Iterator[str]:
    for split, number in task.cut.items():
        if number:
            cut = counted(number, "sequence")
            yield f"{name}: {cut} of {split} cut to {plan.settings.max_length} tokens"
    if task.not_above_baseline and task.baseline is not None:
        yield (
            f"{name}: {task.not_above_baseline} of {counted(task.n, 'seed')} no better than always naming "
            f"the most frequent class ({_percent(task.baseline[_SCORE])})"
        )
    if task.diverged:
        every = counted(task.n + task.diverged, "seed")
        yield (
            f"{name}: {task.diverged} of {every} diverged, and no figure counts them: lower the learning rate"
        )
    if len(task.points) > 1:
        yield (
            f"{name}: {task.point} has the best median of {len(task.points)} points of the grid; choosing it "
            "on the development split makes its score there a little too good"
        )


def _markdown(plan: FinetunePlan, tasks: Tasks, notes: Sequence[str]) -> str:
    counts = (
        "the epoch with the best development score" if plan.settings.select == "best" else "the last epoch"
    )
    measures = [
        [name + " (from MNLI)" * tasks[name].begun_from_mnli, split, measure, *_figures(over_seeds)]
        for name, split, measure, over_seeds in _rows(tasks)
    ]
    points = [
        [name, point + " (chosen)" * (point == task.point), *_figures(scores)]
        for name, task in tasks.items()
        for point, scores in task.points.items()
    ]
    lines = [
        f"# Fine-tuning of {literal(plan.origin.name)}",
        "",
        f"In percent, over {counted(plan.settings.seeds, 'seed')}. Of each run {counts} counts; sd is the "
        "standard deviation of the sample.",
        "",
        *table_lines(ReportTable(["task", "split", "measure", "seeds", *_SPREAD], measures)),
        "",
    ]
    if len(points) > len(tasks):
        lines += ["## Grid", "", "Scores that decide between points:", ""]
        lines += [*table_lines(ReportTable(["task", "point", "seeds", *_SPREAD], points)), ""]
    lines += ["## Notes", "", *(f"- {literal(note)}" for note in notes), ""] if notes else []
    lines += ["![development score by seed](plots/scores.png)", "", "## All settings", ""]
    lines += [*fenced(to_yaml(plan.settings), "yaml"), ""]
    return "\n".join(lines)


def _figures(over_seeds: Statistics) -> list[str]:
    """How many seeds, and what `_SPREAD` names."""
    figures = over_seeds.median, over_seeds.mean, over_seeds.sd, over_seeds.best, over_seeds.least
    return [str(over_seeds.n), *map(_percent, figures)]


def _latex(plan: FinetunePlan, tasks: Tasks) -> str:
    """A table for a paper (booktabs), mean and standard deviation over seeds."""
    lines = [
        f"% fine-tuning of {tex(plan.origin.name)}, {counted(plan.settings.seeds, 'seed')}: mean, standard "
        "deviation, median, best",
        r"\begin{tabular}{lllrrr}",
        r"\toprule",
        r"task & split & measure & mean $\pm$ sd & median & best \\",
        r"\midrule",
    ]
    for name, split, measure, over_seeds in _rows(tasks):
        mean, sd, median, best = map(
            _percent, (over_seeds.mean, over_seeds.sd, over_seeds.median, over_seeds.best)
        )
        lines.append(rf"{tex(name)} & {split} & {measure} & {mean} $\pm$ {sd} & {median} & {best} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def tex(text: str) -> str:
    """One line that TeX sets as it stands, whatever it holds."""
    return " ".join(text.split()).translate(_TEX)


def _where(plan: FinetunePlan, picture: Path, submitted: str | None) -> dict[str, str]:
    """What lies where, and what to do with it."""
    rows = {
        "tables": f"{plan.root / 'results.md'}, results.tex, results.json",
        "scores by seed": str(picture),
        "predictions": f"{plan.root / 'cells'}/TASK/.../predictions",
    }
    if submitted:
        rows["GLUE submission"] = submitted
    with_model = [name for name in plan.data if (plan.model_folder(name) / FINETUNED).is_file()]
    if with_model:
        task = with_model[0] if len(with_model) == 1 else "TASK"
        rows["models"] = (
            f"{plan.model_folder(task)} (a Hugging Face folder: the best run of "
            f"{'the task' if len(with_model) == 1 else 'each task'})"
        )
        words = ["fmlm", "predict", "--from", str(plan.model_folder(with_model[0]))]
        rows["next"] = f'{shlex.join(words)} "a text"' + (
            ' --pair "another text"' if plan.data[with_model[0]].task.pair else ""
        )
    return rows

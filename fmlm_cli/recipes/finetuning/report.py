"""The report of fine-tuning: results.json, tables, a picture, model cards, and GLUE's submission."""

from dataclasses import dataclass
from pathlib import Path

from fmlm_cli import __version__, events, storage
from fmlm_cli.analysis.report.checkpoints import comparison_table, verdicts
from fmlm_cli.analysis.report.figures.training import draw_scores
from fmlm_cli.analysis.results.finetuning import CheckpointComparison, FinetuneResults
from fmlm_cli.analysis.results.plain import as_json
from fmlm_cli.events import Caution, Emit, Facts, Grid, Note, counted
from fmlm_cli.model.classification.sequence_classifier import ready_classifier
from fmlm_cli.model.classifier import EncoderCheckpoint
from fmlm_cli.recipes.finetuning.candidates import Candidate
from fmlm_cli.recipes.finetuning.cards import write_cards
from fmlm_cli.recipes.finetuning.cells import objective_for
from fmlm_cli.recipes.finetuning.plan import FinetunePlan
from fmlm_cli.recipes.finetuning.summary import compare, scores_of
from fmlm_cli.recipes.finetuning.tables import (
    Findings,
    ask_model,
    console_rows,
    latex,
    markdown,
    next_of,
    notes_of,
)
from fmlm_cli.recipes.shared.checkpoints import FINETUNED
from fmlm_cli.recipes.shared.predictions import AT_ONCE, keep_predictions, predict_split
from fmlm_cli.tasks import GLUE, Examples, TaskData, write_submission, zip_submissions

Results = FinetuneResults | CheckpointComparison


@dataclass(frozen=True)
class Report:
    """Where the report lies, and what results.json holds."""

    root: Path
    results: Results


def write_report(plan: FinetunePlan, emit: Emit) -> Report:
    """Sum the finished cells up, and write all files of the report."""
    scores, missing = [], list[str]()
    for candidate in plan.candidates.values():
        submitted, lacking = _submit(plan, candidate)
        scores.append(scores_of(plan, candidate, submitted))
        missing += lacking
    compared = compare(plan, scores) if plan.compares else {}
    sentences = verdicts(compared, scores[0].name) if compared else ()
    found = Findings(plan, scores, compared, sentences)
    write_cards(plan, scores)
    results, notes = _results(found), [*notes_of(found), *missing]
    storage.write_json(plan.root / "results.json", as_json(results))
    storage.write_text(plan.root / "results.md", markdown(found, notes))
    storage.write_text(plan.root / "results.tex", latex(found))
    picture = draw_scores(
        {name: task.points[task.point].scores for name, _, _, task in found.tasks}, plan.root / "plots"
    )
    for note in notes:
        emit(Caution(note))
    _tell(found, picture, emit)
    return Report(plan.root, results)


def _results(found: Findings) -> Results:
    """What results.json holds: of one checkpoint its scores, of several how they compare too."""
    settings = found.plan.settings.model_dump(mode="json")
    first, *others = found.scores
    if others:
        return CheckpointComparison(
            fmlm=__version__,
            settings=settings,
            baseline=first.name,
            compared=found.compared,
            sentences=tuple(found.sentences),
            next_step=next_of(found),
            checkpoints=tuple(found.scores),
        )
    own = {name: value for name, value in vars(first).items() if name != "name"}
    return FinetuneResults(fmlm=__version__, settings=settings, next_step=next_of(found), **own)


# ---------------------------------------------------------------- GLUE's submission


def _submit(plan: FinetunePlan, candidate: Candidate) -> tuple[str | None, list[str]]:
    """Predict the unlabelled test splits with each task's best model; the zip, and what it lacks."""
    files: list[Path] = []
    for task, data in plan.data.items():
        tests = {split: examples for split, examples in data.test.items() if examples.labels is None}
        has_model = (plan.model_folder(candidate.name, task) / FINETUNED).is_file()
        if tests and has_model and not plan.loss_of_model(candidate.name, task):  # which has been said
            files += _predict_tests(plan, candidate, data, tests)
    if not files:
        return None, []
    name = f"submission-{candidate.name}.zip" if plan.compares else "submission.zip"
    zip_submissions(files, plan.root / name)
    wanted = [f"{file}.tsv" for task in GLUE.values() for file in task.submissions.values()]
    missing = [file for file in wanted if file not in {path.name for path in files}]
    lacking = f"{name} lacks {', '.join(missing)}: GLUE's server takes it only when it is complete"
    return str(plan.root / name), [lacking] if missing else []


def _predict_tests(
    plan: FinetunePlan, candidate: Candidate, data: TaskData, tests: dict[str, Examples]
) -> list[Path]:
    """Keep what a task's best model says of unlabelled splits; the files that are for GLUE's server."""
    folder = plan.model_folder(candidate.name, data.task.name)
    saved = EncoderCheckpoint.read(folder, name=str(folder)).classifier(data.task.labels, seed=0)
    backend = next(iter(candidate.backends.values()))  # any: nothing is dropped here
    model = ready_classifier(saved.model, backend, plan.runtime.device)
    objective = objective_for(model, plan.settings, candidate.tokenizer, data.task)
    files = []
    for split, examples in tests.items():
        sequences = plan.split(candidate, examples).sequences
        outputs = predict_split(model, objective, sequences, AT_ONCE, plan.runtime)
        outputs = outputs[:, 0] if data.task.regression else outputs
        if plan.is_glue:
            target = plan.apart(plan.root / "submission", candidate.name)
            files.append(write_submission(target, data.task, split, examples, outputs))
        else:
            target = plan.apart(plan.root / "predictions", candidate.name)
            keep_predictions(target / f"{split}.jsonl", data, examples, outputs)
    return files


# ---------------------------------------------------------------- what is told


def _tell(found: Findings, picture: Path, emit: Emit) -> None:
    """The scores, what lies where, and last of all what came of a comparison."""
    plan = found.plan
    seeds = counted(plan.settings.seeds, "seed")
    emit(Facts(f"scores over {seeds}, in %", dict(console_rows(found))))
    if found.compared:
        table = comparison_table(found.compared, found.scores[0].name)
        emit(Grid("compared, in points", table.header, table.rows))
    emit(Facts("done", _where(found, picture)))
    for sentence in found.sentences:
        emit(Note(sentence))
    emit(events.NextStep(**vars(next_of(found))))


def _where(found: Findings, picture: Path) -> dict[str, str]:
    """What lies where, and what to do with it."""
    plan = found.plan
    rows = {
        "tables": f"{plan.root / 'results.md'}, results.tex, results.json",
        "scores by seed": str(picture),
        "predictions": f"{plan.root / 'cells'}/{'CHECKPOINT/' * plan.compares}TASK/.../predictions",
    }
    if submitted := [own.submission for own in found.scores if own.submission]:
        rows["GLUE submission"] = ", ".join(submitted)
    with_model = [subject for subject in plan.subjects if (plan.model_folder(*subject) / FINETUNED).is_file()]
    if with_model:
        alone = len(with_model) == 1
        folder = plan.model_folder(*with_model[0]) if alone else plan.model_folder("CHECKPOINT", "TASK")
        rows["models"] = (
            f"{folder} (a Hugging Face folder: the best run of {'the' if alone else 'each'} task)"
        )
        rows["ask it"] = ask_model(plan, *with_model[-1])
    return rows

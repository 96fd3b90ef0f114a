"""`fmlm finetune`: one checkpoint or several on labelled sets, over seeds and a grid."""

from pathlib import Path

import torch

from fmlm_cli import storage
from fmlm_cli.config import FinetuneSettings, to_yaml
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Doing, Emit, Facts, counted, ignore, starting_anew
from fmlm_cli.model.build import save_model
from fmlm_cli.model.ending import let_go
from fmlm_cli.recipes.finetuning.cells import CellResult, CellRun
from fmlm_cli.recipes.finetuning.grid import GRIDS, Cell, too_few_steps
from fmlm_cli.recipes.finetuning.plan import FINETUNING, FinetunePlan, plan_finetuning, rank_of, repositories
from fmlm_cli.recipes.finetuning.report import Report, write_report
from fmlm_cli.recipes.jobs.board import Board
from fmlm_cli.recipes.jobs.work import Sharing, owned_by, report_once_done, work_through
from fmlm_cli.recipes.publishing import check_push, push_finished
from fmlm_cli.recipes.shared.checkpoints import FINETUNED, carry_over_others, keep_hashes
from fmlm_cli.recipes.shared.words import caution_of_others, where_line
from fmlm_cli.tasks import TaskData


def finetune(
    settings: FinetuneSettings,
    *,
    overwrite: bool = False,
    resume: bool = False,
    cell: str | None = None,
    jobs: int = 1,
    report: bool = True,
    report_only: bool = False,
    emit: Emit = ignore,
) -> Report | None:
    """Fine-tune checkpoints on every task, at every point of the grid, with every seed, and report on them.

    Several checkpoints are compared with the first one, paired by seed.

    `cell`: "i/n", only this share of the cells; there is a report once all are done, unless `report` is
    false. `jobs`: processes that share the cells. Raises `UserError` for anything wrong with settings, data
    or checkpoint before anything is written; `DivergedError` where nothing but the report on that is left;
    `Interrupted` on Ctrl-C or SIGTERM.
    """
    if settings.out is None:
        raise UserError("no output folder: give --out DIR")
    root, sharing = Path(settings.out), Sharing(cell, jobs, report_only, report)
    sharing.check_overwrite(overwrite)
    if report_only and not (root / "cells").is_dir():
        raise UserError(f"{root} has no finished cells to report on: leave out --report-only")
    with owned_by(sharing, root, FINETUNING, overwrite=overwrite, resume=resume, emit=emit) as folder:
        if resume and folder.is_empty:
            emit(starting_anew(root))
        plan = plan_finetuning(settings, emit)
        if report:
            check_push(settings.hub, *repositories(plan).values(), begun=not folder.is_empty, emit=emit)
        if overwrite:
            storage.check_outside(root, _made_from(plan))
        else:
            plan.check_layout()
            plan.ledger.check_all()
        describe(plan, emit)
        with storage.clear_disk_errors(root):
            if overwrite:
                folder.clear()
            storage.write_text(root / storage.RUN_CONFIG, to_yaml(plan.settings))
            return _tune(plan, sharing, folder, emit)


def _tune(plan: FinetunePlan, sharing: Sharing, folder: storage.OwnedFolder, emit: Emit) -> Report | None:
    """Do this call's share of the cells, and report once all are done."""
    board = Board("development scores", plan.ledger, plan.outcome, emit, sharing.processes)
    words = ["finetune", str(plan.root / storage.RUN_CONFIG), "--no-report"]
    work_through(plan.ledger, lambda job: _tuned(plan, job, board), board, sharing, words, folder)
    lock = plan.root / ".report.lock"
    return report_once_done(plan.ledger, lambda: _report_and_push(plan, emit), sharing, lock, emit)


def _made_from(plan: FinetunePlan) -> dict[Path, str]:
    """What the call is made from, and what each is."""
    tasks = plan.settings.tasks
    files = {tasks.folder: "data", tasks.train: "data", tasks.dev: "data", tasks.test: "data"}
    files[plan.settings.grid if plan.settings.grid not in GRIDS else None] = "grid"
    origins = {path: kind for own in plan.candidates.values() for path, kind in own.origin.made_from.items()}
    return {**origins, **{Path(file): kind for file, kind in files.items() if file}}


def _tuned(plan: FinetunePlan, cell: Cell, board: Board[Cell, CellResult]) -> CellResult:
    """Work at a cell; keep its model if that is the task's best so far."""
    backend = plan.candidates[cell.checkpoint].backends[cell.point.training.dropout]
    board.emit(Doing(f"tokenizing {cell.task}"))
    prepared, folder = plan.prepared(cell), plan.folder(cell)
    run = CellRun(cell, prepared, plan.settings, plan.runtime, backend, folder, board.hear)
    identity = storage.sha256_of_json(plan.ledger.decides(cell))
    try:
        return run.run(identity, lambda result: _keep_if_best(plan, run, result))
    finally:
        let_go(run.model)


def _keep_if_best(plan: FinetunePlan, run: CellRun, result: CellResult) -> None:
    """Save the model as the task's, unless one has a better score, or the same and an earlier name."""
    cell, target = run.cell, plan.model_folder(run.cell.checkpoint, run.cell.task)
    target.parent.mkdir(parents=True, exist_ok=True)
    with storage.one_at_a_time(target.parent / f".{cell.task}.lock"):
        rank, best = (-(result.score or 0.0), cell.name), plan.best_finished(cell.checkpoint, cell.task)
        # The best cell's model may be lost: then a worse one does not take its place.
        if rank_of(target) <= rank or (best is not None and (-best[1], best[0].name) <= rank):
            return
        with storage.complete_folder(target) as folder:
            save_model(run.model.pretrained, folder, {})
            tokenizers.save_tokenizer(run.prepared.tokenizer, folder)
            task = run.prepared.data.task
            facts = {
                "task": cell.task,
                "labels": task.labels,
                "pair": task.pair,
                "max_length": plan.settings.max_length,
                "cell": cell.name,
                "identity": result.identity,
                "score": result.score,
                "dev": result.dev,
                "test": result.test,
                "training": result.training,
            }
            storage.write_sealed(folder / FINETUNED, facts)
            keep_hashes(folder)
            carry_over_others(target, folder)


# ---------------------------------------------------------------- what is told


def describe(plan: FinetunePlan, emit: Emit) -> None:
    """What is to be done, and what may not be wanted about it."""
    settings = plan.settings
    rows = {
        **_models(plan),
        "tasks": "; ".join(_sizes(name, data) for name, data in plan.data.items()),
        "cells": _counts(plan),
        "training": _training(plan),
        "counts": (
            f"the {settings.select} epoch by the development score; sequences of at most "
            f"{settings.max_length} tokens"
        ),
        "device": f"{where_line(plan.runtime)}, {counted(torch.get_num_threads(), 'thread')}",
        "attention": "; ".join(dict.fromkeys(own.attention for own in plan.candidates.values())),
    }
    if settings.from_mnli:
        begun = [name for name in plan.data if plan.begins_from_mnli(name)]
        rows["from MNLI"] = f"{', '.join(begun)} begin as the MNLI model"
    emit(Facts("fine-tuning", rows))
    caution_of_others(plan.runtime, emit)
    for name, data in plan.data.items():
        for note in data.notes:
            emit(Caution(note))
        points = [point for own in plan.candidates.values() for point in own.points]
        few = (too_few_steps(point.training, len(data.train)) for point in points)
        if text := next(filter(None, few), None):
            emit(Caution(f"{name}: {text}"))


def _models(plan: FinetunePlan) -> dict[str, str]:
    """What models begin from."""
    if not plan.compares:
        (own,) = plan.candidates.values()
        return {"model": f"{own.origin.name} ({own.model_type})"}
    first, *others = plan.candidates.values()
    return {
        "baseline": f"{first.name}: {first.origin.name} ({first.model_type})",
        "against it": "; ".join(f"{own.name}: {own.origin.name} ({own.model_type})" for own in others),
    }


def _sizes(name: str, data: TaskData) -> str:
    dev = " + ".join(f"{len(split):,}" for split in data.dev.values())
    test = f", {' + '.join(f'{len(split):,}' for split in data.test.values())} test" if data.test else ""
    return f"{name}: {len(data.train):,} train, {dev} dev{test}"


def _counts(plan: FinetunePlan) -> str:
    """Of what the cells are all combinations."""
    points = max(len(own.points) for own in plan.candidates.values())
    factors = [
        counted(len(plan.candidates), "checkpoint") if plan.compares else "",
        counted(len(plan.data), "task"),
        f"{counted(points, 'point')} of the grid" if points > 1 else "",
        counted(plan.settings.seeds, "seed"),
    ]
    return " x ".join(factor for factor in factors if factor)


def _training(plan: FinetunePlan) -> str:
    """How a model is trained; of a grid, its points."""
    own = list(plan.candidates.values())
    if any(len(candidate.points) > 1 for candidate in own):
        points = sorted({point.name for candidate in own for point in candidate.points})
        each = "; each checkpoint by its own best point" if plan.compares else ""
        return f"grid {plan.settings.grid}: {'; '.join(points)}{each}"
    training = own[0].points[0].training
    rates = dict.fromkeys(f"{candidate.points[0].training.learning_rate:g}" for candidate in own)
    assert training.epochs is not None
    return (
        f"learning rate {', '.join(rates)}, batches of {training.batch_size}, "
        f"{counted(training.epochs, 'epoch')}"
        + (f", at least {training.min_steps:,} steps" if training.min_steps else "")
        + f", warm-up {training.warmup_share:.0%}, AdamW (bias-corrected), dropout "
        + ("as in the checkpoint" if training.dropout is None else f"{training.dropout:g}")
    )


def _report_and_push(plan: FinetunePlan, emit: Emit) -> Report:
    """The report, and then every task's model in its repository, as far as that is asked for."""
    report, errors = _report(plan, emit), list[UserError]()
    for folder, name in repositories(plan).items():
        if not (folder / FINETUNED).is_file():  # no run of the task has a score, which has been said
            continue
        try:
            push_finished(folder, plan.settings.hub, emit, name=name)
        except UserError as error:  # others may go all the same
            errors.append(error)
    for failure in errors[:-1]:
        emit(Caution(str(failure)))
    if errors:
        raise errors[-1]
    return report


def _report(plan: FinetunePlan, emit: Emit) -> Report:
    """The report; `DivergedError`, once it is written, if no cell has a score."""
    emit(Doing("writing the report"))
    for subject in plan.subjects:
        if loss := plan.loss_of_model(*subject):
            emit(Caution(loss))
    report = write_report(plan, emit)
    results = [result for name in plan.candidates for result in plan.results_of(name)]
    if all(result.failed is not None for result in results):
        names = ", ".join(own.origin.name for own in plan.candidates.values())
        raise DivergedError(f"no run of {names} has a score: {results[0].failed}")
    return report

"""`fmlm finetune`: a checkpoint on labelled sets, over seeds and a grid."""

from pathlib import Path

import torch

from fmlm_cli import storage
from fmlm_cli.config import FinetuneSettings, to_yaml
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Facts, counted, ignore, starting_anew
from fmlm_cli.model.build import save_model
from fmlm_cli.recipes.finetuning.cells import CellResult, CellRun
from fmlm_cli.recipes.finetuning.grid import GRIDS, Cell
from fmlm_cli.recipes.finetuning.plan import FINETUNING, FinetunePlan, plan_finetuning, rank_of
from fmlm_cli.recipes.finetuning.report import Report, write_report
from fmlm_cli.recipes.jobs.board import Board
from fmlm_cli.recipes.jobs.work import Sharing, owned_by, report_once_done, work_through
from fmlm_cli.recipes.shared.checkpoints import FINETUNED, carry_over_others, keep_hashes
from fmlm_cli.recipes.shared.words import caution_of_others, where_line


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
    """Fine-tune a checkpoint on every task, at every point of the grid, with every seed, and report on them.

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
        if overwrite:
            storage.check_outside(root, _made_from(plan))
        else:
            plan.ledger.check_all()
        _describe(plan, emit)
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
    return report_once_done(plan.ledger, lambda: _report(plan, emit), sharing, lock, emit)


def _made_from(plan: FinetunePlan) -> dict[Path, str]:
    """What the call is made from, and what each is."""
    tasks = plan.settings.tasks
    files = {tasks.folder: "data", tasks.train: "data", tasks.dev: "data", tasks.test: "data"}
    files[plan.settings.grid if plan.settings.grid not in GRIDS else None] = "grid"
    return {**plan.origin.made_from, **{Path(file): kind for file, kind in files.items() if file}}


def _tuned(plan: FinetunePlan, cell: Cell, board: Board[Cell, CellResult]) -> CellResult:
    """Work at a cell; keep its model if that is the task's best so far."""
    backend = plan.backends[cell.point.training.dropout]
    prepared, folder = plan.prepared(cell.task), plan.folder(cell)
    run = CellRun(cell, prepared, plan.settings, plan.runtime, backend, folder, board.hear)
    identity = storage.sha256_of_json(plan.ledger.decides(cell))
    return run.run(identity, lambda result: _keep_if_best(plan, run, result))


def _keep_if_best(plan: FinetunePlan, run: CellRun, result: CellResult) -> None:
    """Save the model as the task's, unless one has a better score, or the same and an earlier name."""
    cell, target = run.cell, plan.model_folder(run.cell.task)
    target.parent.mkdir(parents=True, exist_ok=True)
    with storage.one_at_a_time(target.parent / f".{cell.task}.lock"):
        rank, best = (-(result.score or 0.0), cell.name), plan.best_finished(cell.task)
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


def _describe(plan: FinetunePlan, emit: Emit) -> None:
    settings, points = plan.settings, {cell.point.name for cell in plan.cells}
    training = plan.cells[0].point.training
    rows = {
        "model": f"{plan.origin.name} ({plan.encoder.config.model_type})",
        "tasks": "; ".join(
            f"{name}: {len(data.train):,} train, {' + '.join(f'{len(d):,}' for d in data.dev.values())} dev"
            + (f", {' + '.join(f'{len(t):,}' for t in data.test.values())} test" if data.test else "")
            for name, data in plan.data.items()
        ),
        "cells": " x ".join(
            [counted(len(plan.data), "task")]
            + ([counted(len(points), "point") + " of the grid"] if len(points) > 1 else [])
            + [counted(settings.seeds, "seed")]
        ),
        "training": (
            f"learning rate {training.learning_rate:g}, batches of {training.batch_size}, "
            f"{counted(training.epochs, 'epoch')}"
        )
        + (f", at least {training.min_steps:,} steps" if training.min_steps else "")
        + f", warm-up {training.warmup_share:.0%}, AdamW (bias-corrected), dropout "
        + ("as in the checkpoint" if training.dropout is None else f"{training.dropout:g}"),
        "counts": (
            f"the {settings.select} epoch by the development score; sequences of at most "
            f"{settings.max_length} tokens"
        ),
        "device": f"{where_line(plan.runtime)}, {counted(torch.get_num_threads(), 'thread')}",
        "attention": plan.attention,
    }
    if len(points) > 1:
        rows["training"] = f"grid {settings.grid}: " + "; ".join(sorted(points))
    if settings.from_mnli:
        begun = [name for name in plan.data if plan.begins_from_mnli(name)]
        rows["from MNLI"] = f"{', '.join(begun)} begin as the MNLI model"
    emit(Facts("fine-tuning", rows))
    caution_of_others(plan.runtime, emit)
    for data in plan.data.values():
        for note in data.notes:
            emit(Caution(note))


def _report(plan: FinetunePlan, emit: Emit) -> Report:
    """The report; `DivergedError`, once it is written, if no cell has a score."""
    for task in plan.data:
        if loss := plan.loss_of_model(task):
            emit(Caution(loss))
    results = [result for cell in plan.cells if (result := plan.ledger.result(cell)) is not None]
    report = write_report(plan, results, emit)
    if all(result.failed is not None for result in results):
        raise DivergedError(f"no run of {plan.origin.name} has a score: {results[0].failed}")
    return report

"""`fmlm finetune`: a checkpoint on labelled sets, over seeds and a grid."""

import math
from pathlib import Path

import torch

from fmlm_cli import storage
from fmlm_cli.config import FinetuneSettings, to_yaml
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Note, Table, ignore
from fmlm_cli.model.build import save_model
from fmlm_cli.recipes.finetuning.board import board_of
from fmlm_cli.recipes.finetuning.cells import CellResult, CellRun, read_result
from fmlm_cli.recipes.finetuning.grid import GRIDS, Cell, share_of
from fmlm_cli.recipes.finetuning.plan import Plan, resolve, saved_settings
from fmlm_cli.recipes.finetuning.report import Report, write_report
from fmlm_cli.recipes.jobs.board import WorkBoard
from fmlm_cli.recipes.jobs.processes import check_sharing, spread
from fmlm_cli.recipes.shared.checkpoints import FINETUNED
from fmlm_cli.recipes.shared.words import counted, where_line


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

    `cell`: "i/n", only this share of the cells; there is a report once all are done, unless `report` is false.
    `jobs`: processes that share the cells. Raises `UserError` for anything wrong with settings, data or checkpoint
    before anything is written; `Interrupted` on Ctrl-C or SIGTERM.
    """
    root = _claim(settings, overwrite=overwrite, resume=resume, cell=cell, jobs=jobs, report_only=report_only)
    plan = resolve(settings, emit)
    mine = [] if report_only else share_of(plan.cells, cell)
    if overwrite:
        storage.check_outside(root, _needed(plan))
    else:
        for each in plan.cells:
            plan.check(each)
    _describe(plan, emit)
    config = root / storage.RUN_CONFIG
    with storage.clear_disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        if overwrite:
            storage.clear_folder(root, last=config)
        storage.write_text(config, to_yaml(plan.settings))
        board = board_of(plan, emit, jobs)
        if jobs > 1 and board.unfinished:
            words = ["finetune", str(config), "--no-report"]
            spread(words, min(jobs, len(board.unfinished)), root / "logs", board.look)
        elif jobs == 1:
            for each in mine:
                _do(plan, each, board)
        return _report(plan, emit) if report else None


def _claim(
    settings: FinetuneSettings,
    *,
    overwrite: bool,
    resume: bool,
    cell: str | None,
    jobs: int,
    report_only: bool,
) -> Path:
    """The output folder, once it is known that it may be written to; nothing is touched."""
    if settings.out is None:
        raise UserError("no output folder: give --out DIR")
    check_sharing(jobs, alone=cell is None and not report_only)
    if overwrite and (cell is not None or report_only):
        raise UserError("--cell and --report-only go on with what is there: leave out --overwrite")
    root = Path(settings.out)
    if report_only and not (root / "cells").is_dir():
        raise UserError(f"{root} has no finished cells to report on: leave out --report-only")
    resume = resume or cell is not None or report_only  # the other processes write into the same folder
    storage.claim_output(root, marker=storage.RUN_CONFIG, overwrite=overwrite, resume=resume)
    if (root / storage.RUN_CONFIG).is_file():
        saved_settings(root)  # a config.yaml of something else is not ours to write over
    if overwrite:
        for lock in root.glob(f"cells/*/*/*/{storage.LOCK}"):
            with storage.sole_owner(lock.parent):
                pass  # no process is at work there
    return root


def _needed(plan: Plan) -> dict[Path, str]:
    """What the call is made from, and what each is."""
    chosen = plan.settings.tasks
    files = {chosen.folder: "data", chosen.train: "data", chosen.dev: "data", chosen.test: "data"}
    files[plan.settings.grid if plan.settings.grid not in GRIDS else None] = "grid"
    return {plan.origin.folder: "checkpoint", **{Path(file): kind for file, kind in files.items() if file}}


def _do(plan: Plan, cell: Cell, board: WorkBoard) -> None:
    """Work at a cell, unless it is finished already; keep its model if that is the task's best so far."""
    plan.check(cell)
    folder = plan.folder(cell)
    if read_result(folder) is not None:
        return
    board.begin(cell.folder)
    decided = plan.decided(cell)
    run = CellRun(cell, plan.prepared(cell.task), plan.settings, plan.runtime, folder, board.hear)
    run.run(decided, lambda found: _keep_if_best(plan, run, found))
    board.end(cell.folder)


def _keep_if_best(plan: Plan, run: CellRun, result: CellResult) -> None:
    """Save the model as the task's unless one that is there has a better score, or the same and an earlier name."""
    cell, target = run.cell, plan.model_folder(run.cell.task)
    target.parent.mkdir(parents=True, exist_ok=True)
    with storage.one_at_a_time(target.parent / f".{cell.task}.lock"):
        if _rank_of(target) <= (-(result.score or 0.0), cell.folder):
            return
        with storage.complete_folder(target) as folder:
            save_model(run.model, folder, {})
            tokenizers.save_tokenizer(run.prepared.tokenizer, folder)
            task = run.prepared.data.task
            facts = {
                "task": cell.task,
                "labels": task.labels,
                "pair": task.pair,
                "max_length": plan.settings.max_length,
                "cell": cell.folder,
                "identity": result.identity,
                "score": result.score,
                "dev": result.dev,
                "test": result.test,
                "training": result.training,
            }
            storage.write_json(folder / FINETUNED, facts)


def _rank_of(model: Path) -> tuple[float, str]:
    """What a task's best model is compared by, the least is the best; one that is not there or damaged is the worst."""
    try:
        there = storage.read_json(model / FINETUNED)
        return -float(there["score"]), str(there["cell"])
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf, ""


def _describe(plan: Plan, emit: Emit) -> None:
    chosen, points = plan.settings, {cell.point.name for cell in plan.cells}
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
            + [counted(chosen.seeds, "seed")]
        ),
        "training": f"learning rate {training.learning_rate:g}, batches of {training.batch_size}, {counted(training.epochs, 'epoch')}"
        + (f", at least {training.min_steps:,} steps" if training.min_steps else "")
        + f", warm-up {training.warmup_share:.0%}, AdamW (bias-corrected), dropout "
        + ("as in the checkpoint" if training.dropout is None else f"{training.dropout:g}"),
        "counts": f"the {chosen.select} epoch by the development score; sequences of at most {chosen.max_length} tokens",
        "device": f"{where_line(plan.runtime)}, {counted(torch.get_num_threads(), 'thread')}",
    }
    if len(points) > 1:
        rows["training"] = f"grid {chosen.grid}: " + "; ".join(sorted(points))
    if chosen.from_mnli:
        begun = [name for name in plan.data if plan.begins_from_mnli(name)]
        rows["from MNLI"] = f"{', '.join(begun)} begin as the MNLI model"
    emit(Table("fine-tuning", rows))
    for data in plan.data.values():
        for note in data.notes:
            emit(Caution(note))


def _report(plan: Plan, emit: Emit) -> Report | None:
    """The report, if all cells are done."""
    results = [read_result(plan.folder(cell)) for cell in plan.cells]
    done = [result for result in results if result is not None]
    if len(done) < len(results):
        emit(Note(f"{len(done)} of {len(results)} cells are done: there is a report once all are"))
        return None
    for cell in plan.cells:
        plan.check(cell)
    with storage.one_at_a_time(plan.root / storage.LOCK):  # two processes may have finished the last cells
        return write_report(plan, done, emit)

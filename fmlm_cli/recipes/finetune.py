"""`fmlm finetune`: a checkpoint on labelled sets, over seeds and a grid."""

from pathlib import Path

import torch

from fmlm_cli import storage
from fmlm_cli.config import FinetuneSettings, to_yaml
from fmlm_cli.corpus import tokenizers
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Note, Table, ignore
from fmlm_cli.model.build import save_model
from fmlm_cli.recipes.cells import CellResult, CellRun, check_same_cell, read_result
from fmlm_cli.recipes.describe import where_line
from fmlm_cli.recipes.finetune_plan import FINETUNED, Plan, resolve, saved_settings
from fmlm_cli.recipes.finetune_report import Report, write_report
from fmlm_cli.recipes.grid import Cell, share_of
from fmlm_cli.recipes.scoreboard import Board
from fmlm_cli.recipes.spread import spread


def finetune(
    settings: FinetuneSettings,
    *,
    overwrite: bool = False,
    resume: bool = False,
    cell: str | None = None,
    jobs: int = 1,
    report_only: bool = False,
    emit: Emit = ignore,
) -> Report | None:
    """Fine-tune a checkpoint on every task, at every point of the grid, with every seed, and report on them.

    `cell`: "i/n", only this share of the cells; there is a report once all are done. `jobs`: processes that share the
    cells. Raises `UserError` for anything
    wrong with settings, data or checkpoint before anything is written; `Interrupted` on Ctrl-C or SIGTERM.
    """
    if settings.out is None:
        raise UserError("no output folder: give --out DIR")
    root = Path(settings.out)
    resume = resume or cell is not None or report_only  # the other processes write into the same folder
    storage.claim_output(root, marker=storage.RUN_CONFIG, overwrite=overwrite, resume=resume)
    config = root / storage.RUN_CONFIG
    if config.is_file():
        saved_settings(root)  # a config.yaml of something else is not ours to write over
    plan = resolve(settings, emit)
    mine = [] if report_only else share_of(plan.cells, cell)
    if jobs > 1 and (cell is not None or report_only):
        raise UserError("--jobs makes processes of its own: leave out --cell and --report-only")
    _describe(plan, emit)
    with storage.clear_disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        if overwrite:
            storage.clear_folder(root, last=config)
        storage.write_text(config, to_yaml(plan.settings))
        board = Board(plan, emit)
        if jobs > 1:
            _check_cells(plan)
            spread(["finetune", str(config)], min(jobs, len(plan.cells)), root / "logs", board.look)
        else:
            for each in mine:
                _do(plan, each, board)
        return _report(plan, emit)


def _check_cells(plan: Plan) -> None:
    """Refuse cells that were made otherwise: by other processes, or an earlier call."""
    for cell in plan.cells:
        check_same_cell(plan.folder(cell), plan.decided(cell))


def _do(plan: Plan, cell: Cell, board: Board) -> None:
    """Work at a cell, unless it is finished already; keep its model if that is the task's best so far."""
    folder, decided = plan.folder(cell), plan.decided(cell)
    check_same_cell(folder, decided)
    if read_result(folder) is not None:
        return
    board.begin(cell)
    run = CellRun(cell, plan.prepared(cell.task), plan.settings, plan.where, folder, board.step)
    result = run.run(decided, lambda found: _keep_if_best(plan, run, found))
    board.end(cell, result)


def _keep_if_best(plan: Plan, run: CellRun, result: CellResult) -> None:
    """Save the model as the task's unless one that is there has a better score, or the same and an earlier name."""
    cell, target = run.cell, plan.model_folder(run.cell.task)
    target.parent.mkdir(parents=True, exist_ok=True)
    with storage.one_at_a_time(target.parent / f".{cell.task}.lock"):
        if (target / FINETUNED).is_file():
            there = storage.read_json(target / FINETUNED)
            if (-there["score"], there["cell"]) <= (-(result.score or 0.0), cell.folder):
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
        "cells": f"{len(plan.cells)}: {len(plan.data)} tasks x {len(points)} points of the grid x {chosen.seeds} seeds",
        "training": f"learning rate {training.learning_rate:g}, batches of {training.batch_size}, {training.epochs} epochs"
        + (f", at least {training.min_steps:,} steps" if training.min_steps else "")
        + f", warm-up {training.warmup_share:.0%}, AdamW (bias-corrected), dropout "
        + ("as in the checkpoint" if training.dropout is None else f"{training.dropout:g}"),
        "counts": f"the {chosen.select} epoch by the development score; sequences of at most {chosen.max_length} tokens",
        "device": f"{where_line(plan.where.device, plan.where.precision)}, {torch.get_num_threads()} threads",
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
    _check_cells(plan)
    return write_report(plan, done, emit)

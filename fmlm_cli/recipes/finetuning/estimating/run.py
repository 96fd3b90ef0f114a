"""`fmlm finetune --dry-run`: time, memory, disk and cost of a call's cells."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from fmlm_cli.config import FinetuneSettings, build
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Note, counted, duration, ignore
from fmlm_cli.model.classifier import EncoderCheckpoint
from fmlm_cli.recipes.finetuning.candidates import ReadCheckpoint, make_candidate
from fmlm_cli.recipes.finetuning.data import load_tasks
from fmlm_cli.recipes.finetuning.estimating.costs import CellCost, CheckpointCosts
from fmlm_cli.recipes.finetuning.grid import Cell, find_cells
from fmlm_cli.recipes.finetuning.plan import FINETUNING, FinetunePlan, plan_finetuning
from fmlm_cli.recipes.finetuning.run import describe
from fmlm_cli.recipes.shared.checkpoints import Origin
from fmlm_cli.recipes.shared.estimates.estimate import (
    BYTES_OF_MOMENTS,
    BYTES_OF_WEIGHT,
    DISK_RATE,
    Estimate,
    tell_estimate,
)
from fmlm_cli.storage import kind_of

_SECONDS = 40.0  # for all checkpoints together, beside what loading them takes
_BYTES_OF_PREDICTION = 120  # a line of predictions


def estimate_finetuning(
    settings: FinetuneSettings,
    *,
    price_per_hour: float | None = None,
    resume: bool = False,
    emit: Emit = ignore,
) -> Estimate:
    """Plan a call as `finetune` does, and time a few steps of each checkpoint. Nothing is written.

    `resume`: the cells that are done are not counted. Raises `UserError` for whatever `finetune` would
    refuse of the settings, the data and the checkpoints.
    """
    if settings.out is None:
        raise UserError("no output folder: give --out DIR, which a dry run leaves alone")
    begun = time.monotonic()
    plan = plan_finetuning(settings, emit)
    planning = time.monotonic() - begun
    cells = list(plan.cells)
    if resume and kind_of(plan.root) == FINETUNING.name:
        plan.ledger.check_all()
        cells = plan.ledger.unfinished
        emit(Note(f"{len(plan.cells) - len(cells)} of {len(plan.cells)} cells are done"))
    describe(plan, emit)
    each = _SECONDS / len(plan.candidates)
    costs = {
        name: CheckpointCosts(plan, candidate, emit, seconds=each)
        for name, candidate in plan.candidates.items()
    }
    found = {cell: costs[cell.checkpoint].cost(cell) for cell in cells}
    estimate = replace(summed(plan, costs, found, planning), price_per_hour=price_per_hour)
    tell_estimate(
        estimate,
        emit,
        out=settings.out,
        more=_rows(found),
        ending="this fine-tunes into",
        remedy="give a folder on a larger one",
    )
    return estimate


def plan_for_model(
    settings: FinetuneSettings, encoder: EncoderCheckpoint, tokenizer: PreTrainedTokenizerFast
) -> FinetunePlan:
    """The plan for a checkpoint that does not lie anywhere yet, as one of the runs of a comparison."""
    assert settings.out is not None
    root = Path(settings.out)
    runtime = Runtime.resolve(settings.device, settings.precision, threads=settings.speed.threads)
    data = load_tasks(settings, ignore)
    probe = encoder.classifier(["0", "1"], seed=0, dropout=settings.training.dropout).model
    read = ReadCheckpoint("", Origin(encoder.name, root), encoder, tokenizer, probe)
    settings = build(
        FinetuneSettings, settings.model_dump(), {"max_length": read.length(settings.max_length)}
    )
    candidate = make_candidate(read, settings, runtime)
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    cells = find_cells(data, {"": candidate.points}, seeds)
    return FinetunePlan(settings, root, {"": candidate}, data, cells, runtime)


def summed(
    plan: FinetunePlan,
    costs: Mapping[str, CheckpointCosts],
    cells: Mapping[Cell, CellCost],
    planning: float,
) -> Estimate:
    """What some cells of a plan take together. `planning`: seconds that it took."""
    parts = {"start": planning, "training": 0.0, "evaluation": 0.0}
    for cost in cells.values():
        parts = {name: took + cost.parts[name] for name, took in parts.items()}
    subjects = {(cell.checkpoint, cell.task) for cell in cells}
    parts["evaluation"] += sum(costs[name].seconds_to_predict(task) for name, task in subjects)
    models = sum(costs[name].bytes_of_model for name, _ in subjects)
    parts["saving"] = models / DISK_RATE
    tokens = sum(cost.tokens for cost in cells.values())
    watts = [one.costs.watts for one in costs.values() if one.costs.watts is not None]
    return Estimate(
        parts=parts,
        steps=sum(cost.steps for cost in cells.values()),
        tokens=round(tokens),
        tokens_per_second=tokens / max(parts["training"], 1e-9),
        memory=max(one.memory for one in costs.values()),
        disk=_disk(plan, costs, cells, models),
        watts=max(watts, default=None),
    )


def _disk(
    plan: FinetunePlan, costs: Mapping[str, CheckpointCosts], cells: Mapping[Cell, CellCost], models: int
) -> int:
    """Bytes of the models, the tokens, the predictions, and the checkpoint of the cell that is at work."""
    evaluated = {
        task: sum(len(split) for splits in (data.dev, data.test) for split in splits.values())
        for task, data in plan.data.items()
    }
    predictions = sum(_BYTES_OF_PREDICTION * evaluated[cell.task] for cell in cells)
    share = (BYTES_OF_WEIGHT + BYTES_OF_WEIGHT + BYTES_OF_MOMENTS) / BYTES_OF_WEIGHT  # the best weights too
    saved = any(cost.steps > plan.settings.checkpoint_every_steps for cost in cells.values())
    largest = max(one.bytes_of_model for one in costs.values())
    scratch = 2 * share * largest if saved else largest  # one more while it is written
    return round(models + predictions + scratch + sum(one.bytes_of_tokens for one in costs.values()))


def _rows(cells: Mapping[Cell, CellCost]) -> dict[str, str]:
    """What the cells take one by one, and task by task."""
    if not cells:
        return {"cells": "none is left"}
    longest = max(cost.seconds for cost in cells.values())
    rows = {
        "cells": f"{counted(len(cells), 'cell')}, {duration(longest)} each at most; "
        "--jobs N deals them out, to a GPU each"
    }
    by_task: dict[str, float] = defaultdict(float)
    for cell, cost in cells.items():
        by_task[cell.task] += cost.seconds
    if len(by_task) > 1:
        rows["by task"] = ", ".join(f"{task} {duration(took)}" for task, took in by_task.items())
    return rows

"""What a call of `finetune` is made of: checkpoints, tasks, and the cells of its grid."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fmlm_cli import storage
from fmlm_cli.config import FinetuneSettings, build, deciding, nested
from fmlm_cli.corpus.rows.sequences import encode_once
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit
from fmlm_cli.model.build import weights_hash
from fmlm_cli.model.classifier import EncoderCheckpoint
from fmlm_cli.recipes.finetuning.candidates import (
    Candidate,
    Given,
    make_candidate,
    name_checkpoints,
    read_checkpoint,
)
from fmlm_cli.recipes.finetuning.cells import CellResult, EncodedSplit, Prepared, outcome
from fmlm_cli.recipes.finetuning.data import FROM_MNLI, check_room, load_tasks
from fmlm_cli.recipes.finetuning.grid import Cell, find_cells
from fmlm_cli.recipes.jobs.board import Outcome
from fmlm_cli.recipes.jobs.ledger import Ledger
from fmlm_cli.recipes.jobs.records import CELL, FolderRecord
from fmlm_cli.recipes.shared.checkpoints import FINETUNED, FINETUNING_KIND, check_model_files, damage_of_model
from fmlm_cli.tasks import Examples, TaskData

FINETUNING = storage.Kind(
    FINETUNING_KIND,
    "finetune",
    (
        *(storage.RUN_CONFIG, "results.*", "plots", "predictions", "submission*", ".report.lock"),
        *("cells", "logs", "models", "tokenized"),
    ),
)
# Of what decides a cell, that which is known by its hash.
_BY_HASH = {
    "train": "with other training data",
    "dev": "with other development data",
    "weights": "from another checkpoint",
    "tokenizer": "with another tokenizer",
}


@dataclass
class FinetunePlan:
    """A call of `finetune` with every choice made.

    `candidates`: the checkpoints by name, the first of several being what the others are compared with.
    """

    settings: FinetuneSettings
    root: Path
    candidates: Mapping[str, Candidate]
    data: Mapping[str, TaskData]
    cells: Sequence[Cell]
    runtime: Runtime
    _prepared: dict[tuple[str, str], Prepared] = field(default_factory=dict)
    _of_mnli: dict[str, EncoderCheckpoint] = field(default_factory=dict)

    @property
    def compares(self) -> bool:
        """Whether there are several checkpoints."""
        return len(self.candidates) > 1

    @property
    def subjects(self) -> list[tuple[str, str]]:
        """Every task with every checkpoint, (checkpoint, task): of each there is a model."""
        return [(name, task) for task in self.data for name in self.candidates]

    def prepared(self, cell: Cell) -> Prepared:
        """A cell's task, ready for training. Only the latest one is kept: a large one takes some memory."""
        subject = cell.checkpoint, cell.task
        if subject not in self._prepared:
            self._prepared.clear()
            self._prepared[subject] = self._prepare(*subject)
        return self._prepared[subject]

    def _prepare(self, name: str, task: str) -> Prepared:
        data, candidate = self.data[task], self.candidates[name]
        return Prepared(
            data,
            self._mnli_encoder(name) if self.begins_from_mnli(task) else candidate.encoder,
            candidate.tokenizer,
            self.split(candidate, data.train),
            {split: self.split(candidate, examples) for split, examples in data.dev.items()},
            {
                split: self.split(candidate, examples)
                for split, examples in data.test.items()
                if examples.labels is not None
            },
        )

    def split(self, candidate: Candidate, examples: Examples) -> EncodedSplit:
        """A split as a checkpoint's tokens, which are kept in the output folder."""
        assert self.settings.max_length is not None
        cache, tokenizer, length = self.root / "tokenized", candidate.tokenizer, self.settings.max_length
        first, second, content = examples.first, examples.second, examples.fingerprint
        return EncodedSplit(examples, encode_once(cache, tokenizer, first, second, length, content))

    @cached_property
    def ledger(self) -> Ledger[Cell, CellResult]:
        """What of the cells is done."""
        groups = [[cell] for cell in self.cells]
        return Ledger(groups, self._decide, self._record, noun="cells", by_hash=_BY_HASH)

    def _record(self, cell: Cell) -> FolderRecord[CellResult]:
        return FolderRecord(self.folder(cell), CellResult, scratch="checkpoints")

    def _decide(self, cell: Cell) -> dict[str, Any]:
        """All that decides what a cell finds, flat, by name."""
        data, candidate = self.data[cell.task], self.candidates[cell.checkpoint]
        from_mnli = self.begins_from_mnli(cell.task)
        content = {
            "train": data.train.fingerprint,
            **{f"dev.{name}": examples.fingerprint for name, examples in data.dev.items()},
            "weights": weights_hash(self._mnli_encoder(cell.checkpoint).tensors)
            if from_mnli
            else candidate.weights,
            "tokenizer": candidate.tokenizer_fingerprint,
        }
        settings = deciding(self.settings.model_copy(update={"training": cell.point.training}))
        return {**content, **settings, "seed": cell.seed, "precision": str(self.runtime.precision)}

    def outcome(self, cell: Cell, result: CellResult) -> Outcome:
        """What a cell has found, in words."""
        return outcome(result, self.data[cell.task].decides)

    def results_of(self, checkpoint: str, task: str | None = None) -> list[CellResult]:
        """What the finished cells of a checkpoint found, of one task or of all."""
        cells = [cell for cell in self.cells if cell.checkpoint == checkpoint and task in (None, cell.task)]
        return [result for cell in cells if (result := self.ledger.result(cell)) is not None]

    @property
    def is_glue(self) -> bool:
        """Whether the tasks are GLUE's; sets of one's own may have the same names."""
        return bool(self.settings.tasks.names)

    def _mnli_encoder(self, name: str) -> EncoderCheckpoint:
        """MNLI's best model, once it is final: until then there is none, and it is asked for again."""
        if name in self._of_mnli:
            return self._of_mnli[name]
        folder, of_mnli = self.model_folder(name, "mnli"), (name, "mnli")
        unfinished = any(
            (cell.checkpoint, cell.task) == of_mnli and self.ledger.result(cell) is None
            for cell in self.cells
        )
        if not unfinished and (loss := self.loss_of_model(*of_mnli)):
            raise UserError(f"from_mnli: {loss}")
        if unfinished or not folder.is_dir():
            raise UserError(
                "from_mnli: the cells of MNLI are not all done: fine-tune with --task mnli alone first, and "
                "go on with the other tasks and --resume"
            )
        check_model_files(folder)
        self._of_mnli[name] = EncoderCheckpoint.read(folder, name=str(folder))
        return self._of_mnli[name]

    def best_finished(self, name: str, task: str) -> tuple[Cell, float] | None:
        """A checkpoint's finished cell of a task whose score is the best, and the score.

        Of equal ones the first by name.
        """
        cells = [cell for cell in self.cells if (cell.checkpoint, cell.task) == (name, task)]
        results = {cell: self.ledger.result(cell) for cell in cells}
        scored = [(cell, found.score) for cell, found in results.items() if found and found.score is not None]
        return min(scored, key=lambda found: (-found[1], found[0].name), default=None)

    def loss_of_model(self, name: str, task: str) -> str | None:
        """What is wrong with a task's model though cells are done, and what to do; None if nothing is."""
        best, folder = self.best_finished(name, task), self.model_folder(name, task)
        if best is None:
            return None
        cell, score = best
        if not (folder / FINETUNED).is_file():
            why = f"{folder} is no longer there"
        elif damage := damage_of_model(folder):
            why = damage
        elif rank_of(folder) > (-score, cell.name):
            why = f"{folder} is not of the best cell, {cell.name}"
        else:
            return None
        return f"{why}: remove {self.folder(cell)}, and --resume makes the model again"

    def begins_from_mnli(self, task: str) -> bool:
        """Whether a task's models begin as the MNLI model."""
        return self.settings.from_mnli and task in FROM_MNLI

    def folder(self, cell: Cell) -> Path:
        """Where a cell lies."""
        return self.root / "cells" / cell.name

    def model_folder(self, name: str, task: str) -> Path:
        """Where a task's best model so far lies."""
        return self.apart(self.root / "models", name) / task

    def check_layout(self) -> None:
        """Refuse a folder where one checkpoint lies as if it were alone, for several, and the other way."""
        cells, layouts = self.root / "cells", {"one checkpoint": "*/*/*", "several checkpoints": "*/*/*/*"}
        other = "one checkpoint" if self.compares else "several checkpoints"
        if any(cells.glob(f"{layouts[other]}/{CELL}")):
            raise UserError(f"{self.root} has the cells of {other}: choose another --out for these")

    def apart(self, folder: Path, name: str) -> Path:
        """A folder, or its part for one of several checkpoints."""
        return folder / name if self.compares else folder


def repositories(plan: FinetunePlan) -> dict[Path, str]:
    """The models that are to be pushed, by their folders, and what their repositories are called.

    That of the only task as it is asked for, those of several with the task's name behind. Raises `UserError`
    for several checkpoints: which of them is worth it is known when they are compared.
    """
    name = plan.settings.hub.push_to
    if name is None:
        return {}
    if plan.compares:
        raise UserError(
            "hub.push_to is for one checkpoint, and here are several: compare them, and `fmlm push` one"
        )
    [checkpoint] = plan.candidates
    names = {task: f"{name}-{re.sub('[^A-Za-z0-9._-]+', '-', task)}" for task in plan.data}
    if len(names) == 1:
        names = dict.fromkeys(names, name)
    return {plan.model_folder(checkpoint, task): names[task] for task in plan.data}


def rank_of(model: Path) -> tuple[float, str]:
    """What a task's model is compared by: the least is the best, a damaged or missing one the worst."""
    try:
        check_model_files(model)
        facts = storage.read_sealed(model / FINETUNED)
        return -float(facts["score"]), str(facts["cell"])
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf, ""


def plan_finetuning(settings: FinetuneSettings, emit: Emit) -> FinetunePlan:
    """Make every choice that the settings leave open."""
    assert settings.out is not None
    root = Path(settings.out)
    runtime = Runtime.resolve(settings.device, settings.precision, threads=settings.speed.threads)
    data = load_tasks(settings, emit)
    given = _given(settings)
    if settings.from_mnli and "mnli" not in data and not _has_mnli(root, given):
        raise UserError("from_mnli needs the MNLI model: give --task mnli too")
    read = [read_checkpoint(name, checkpoint, settings, emit) for name, checkpoint in given.items()]
    length = min(checkpoint.length(settings.max_length) for checkpoint in read)
    for checkpoint in read:
        check_room(length, checkpoint.tokenizer, pairs=any(of_task.task.pair for of_task in data.values()))
    settings = build(FinetuneSettings, settings.model_dump(), nested({"max_length": length}))
    candidates = {one.name: make_candidate(one, settings, runtime) for one in read}
    trainings = [candidate.points[0].training for candidate in candidates.values()]
    if settings.grid == "none" and all(training == trainings[0] for training in trainings):
        settings = settings.model_copy(update={"training": trainings[0]})
    settings = settings.model_copy(update=_pinned(given, candidates))
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    points = {name: candidate.points for name, candidate in candidates.items()}
    return FinetunePlan(settings, root, candidates, data, find_cells(data, points, seeds), runtime)


def _given(settings: FinetuneSettings) -> dict[str, Given]:
    """The checkpoints by name; a revision that is said apart is the only one's."""
    given = [Given.parse(text) for text in settings.checkpoint]
    if settings.revision is not None:
        if len(given) > 1 or given[0].revision is not None:
            raise UserError(
                f"--revision {settings.revision} is for one checkpoint: write --from hub-name@revision"
            )
        given = [Given(given[0].path, given[0].name, settings.revision)]
    if len(given) == 1:  # which is in nobody's way, whatever it is called
        return {"": given[0]}
    return name_checkpoints(given)


def _pinned(given: Mapping[str, Given], candidates: Mapping[str, Candidate]) -> dict[str, Any]:
    """Checkpoints as settings that mean the same commits, by the same names, when they are read again."""
    commits = {name: candidate.origin.revision for name, candidate in candidates.items()}
    if len(given) == 1:
        return {"checkpoint": (given[""].path,), "revision": commits[""]}
    texts = [
        f"{name}={one.path}" + (f"@{commits[name]}" if commits[name] else "") for name, one in given.items()
    ]
    return {"checkpoint": tuple(texts), "revision": None}


def _has_mnli(root: Path, given: Mapping[str, Given]) -> bool:
    """Whether there are MNLI models of an earlier call."""
    return all((root / "models" / name / "mnli").is_dir() for name in given)

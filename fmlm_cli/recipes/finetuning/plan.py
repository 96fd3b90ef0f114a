"""What a call of `finetune` is made of: checkpoint, tasks, and the cells of its grid."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from fmlm_cli import storage
from fmlm_cli.config import ALL, FinetuneSettings, build, deciding, nested
from fmlm_cli.corpus.rows.sequences import encode_once
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.events import Caution, Emit, Note
from fmlm_cli.model.attention import AttentionBackend
from fmlm_cli.model.build import longest_sequence, preset_of, tokenizer_for, weights_hash
from fmlm_cli.model.classification.first_token import check_outputs
from fmlm_cli.model.classification.sequence_classifier import SequenceClassifier, classifies_alone
from fmlm_cli.model.classifier import EncoderCheckpoint
from fmlm_cli.recipes.finetuning.cells import CellResult, EncodedSplit, Prepared, outcome
from fmlm_cli.recipes.finetuning.grid import Cell, Point, find_cells, find_points
from fmlm_cli.recipes.jobs.board import Outcome
from fmlm_cli.recipes.jobs.ledger import Ledger
from fmlm_cli.recipes.jobs.records import FolderRecord
from fmlm_cli.recipes.shared.checkpoints import (
    FINETUNED,
    Origin,
    check_model_files,
    check_vocabulary,
    damage_of_model,
    find_checkpoint,
)
from fmlm_cli.recipes.shared.limits import resolve_length
from fmlm_cli.recipes.shared.speed import settle_attention
from fmlm_cli.tasks import GLUE, Examples, TaskData, available, load_files, load_glue

FINETUNING = storage.Kind(
    "fine-tuning",
    "finetune",
    (
        *(storage.RUN_CONFIG, "results.*", "plots", "predictions", "submission*", ".report.lock"),
        *("cells", "logs", "models", "tokenized"),
    ),
)
FROM_MNLI = ("rte", "mrpc", "stsb")
_LONGEST_NAME = 100  # bytes; a file's name may have 255, and some are made of this one
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

    `backends`: how models attend, by their dropout; `attention`: the same in words.
    """

    settings: FinetuneSettings
    root: Path
    origin: Origin
    encoder: EncoderCheckpoint
    tokenizer: PreTrainedTokenizerFast
    data: Mapping[str, TaskData]
    cells: Sequence[Cell]
    runtime: Runtime
    weights: str
    backends: Mapping[float | None, type[AttentionBackend]]
    attention: str
    _prepared: dict[str, Prepared] = field(default_factory=dict)

    def prepared(self, task: str) -> Prepared:
        """A task ready for training. Only the latest one is kept: a large one takes some memory."""
        if task not in self._prepared:
            self._prepared.clear()
            self._prepared[task] = self._prepare(task)
        return self._prepared[task]

    def _prepare(self, task: str) -> Prepared:
        data = self.data[task]
        encoder = self._mnli_encoder if self.begins_from_mnli(task) else self.encoder
        return Prepared(
            data,
            encoder,
            self.tokenizer,
            self.split(data.train),
            {name: self.split(examples) for name, examples in data.dev.items()},
            {
                name: self.split(examples)
                for name, examples in data.test.items()
                if examples.labels is not None
            },
        )

    def split(self, examples: Examples) -> EncodedSplit:
        """A split as tokens, which are kept in the output folder."""
        assert self.settings.max_length is not None
        cache, length = self.root / "tokenized", self.settings.max_length
        first, second, content = examples.first, examples.second, examples.fingerprint
        return EncodedSplit(examples, encode_once(cache, self.tokenizer, first, second, length, content))

    @cached_property
    def ledger(self) -> Ledger[Cell, CellResult]:
        """What of the cells is done."""
        groups = [[cell] for cell in self.cells]
        return Ledger(groups, self._decide, self._record, noun="cells", by_hash=_BY_HASH)

    def _record(self, cell: Cell) -> FolderRecord[CellResult]:
        return FolderRecord(self.folder(cell), CellResult, scratch="checkpoints")

    def _decide(self, cell: Cell) -> dict[str, Any]:
        """All that decides what a cell finds, flat, by name."""
        data = self.data[cell.task]
        content = {
            "train": data.train.fingerprint,
            **{f"dev.{name}": examples.fingerprint for name, examples in data.dev.items()},
            "weights": self._mnli_weights if self.begins_from_mnli(cell.task) else self.weights,
            "tokenizer": self._tokenizer_fingerprint,
        }
        settings = deciding(self.settings.model_copy(update={"training": cell.point.training}))
        return {**content, **settings, "seed": cell.seed, "precision": str(self.runtime.precision)}

    def outcome(self, cell: Cell, result: CellResult) -> Outcome:
        """What a cell has found, in words."""
        return outcome(result, self.data[cell.task].decides)

    @property
    def is_glue(self) -> bool:
        """Whether the tasks are GLUE's; sets of one's own may have the same names."""
        return bool(self.settings.tasks.names)

    @cached_property
    def _tokenizer_fingerprint(self) -> str:
        return tokenizers.fingerprint(self.tokenizer)

    @cached_property
    def _mnli_weights(self) -> str:
        return weights_hash(self._mnli_encoder.tensors)

    @cached_property
    def _mnli_encoder(self) -> EncoderCheckpoint:
        """MNLI's best model, once it is final: until then there is none, and it is asked for again."""
        folder = self.model_folder("mnli")
        unfinished = any(cell.task == "mnli" and self.ledger.result(cell) is None for cell in self.cells)
        if not unfinished and (loss := self.loss_of_model("mnli")):
            raise UserError(f"from_mnli: {loss}")
        if unfinished or not folder.is_dir():
            raise UserError(
                "from_mnli: the cells of MNLI are not all done: fine-tune with --task mnli alone first, and "
                "go on with the other tasks and --resume"
            )
        check_model_files(folder)
        return EncoderCheckpoint.read(folder, name=str(folder))

    def best_finished(self, task: str) -> tuple[Cell, float] | None:
        """The finished cell of a task whose score is the best, of equal ones the first by name; its score."""
        results = {cell: self.ledger.result(cell) for cell in self.cells if cell.task == task}
        scored = [(cell, found.score) for cell, found in results.items() if found and found.score is not None]
        return min(scored, key=lambda found: (-found[1], found[0].name), default=None)

    def loss_of_model(self, task: str) -> str | None:
        """What is wrong with a task's model though cells are done, and what to do; None if nothing is."""
        best, folder = self.best_finished(task), self.model_folder(task)
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

    def model_folder(self, task: str) -> Path:
        """Where a task's best model so far lies."""
        return self.root / "models" / task


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
    runtime = Runtime.resolve(settings.device, settings.precision, threads=settings.speed.threads)
    data = _load(settings, emit)
    if settings.from_mnli and "mnli" not in data and not (Path(settings.out) / "models" / "mnli").is_dir():
        raise UserError("from_mnli needs the MNLI model: give --task mnli too")
    origin = find_checkpoint(settings.checkpoint, revision=settings.revision, code=settings.trust_remote_code)
    tokenizer = tokenizers.load_tokenizer(str(origin.tokenizer_folder))
    encoder = EncoderCheckpoint.read(
        origin.folder,
        name=origin.name,
        adapter=origin.adapter,
        trust_remote_code=settings.trust_remote_code,
        announce=lambda text: emit(Caution(text)),
    )
    # Made once here, so that what is wrong with any of it is known before anything is written.
    model = encoder.classifier(
        ["0", "1"],
        seed=0,
        dropout=settings.training.dropout,
        reinit_layers=settings.training.reinit_layers,
    ).model
    check_vocabulary(model, tokenizer, origin.name)
    check_outputs(model)
    length = resolve_length(settings.max_length, longest_sequence(model), origin.name, "max_length")
    _check_room(length, tokenizer, pairs=any(of_task.task.pair for of_task in data.values()))
    settings = build(
        FinetuneSettings,
        settings.model_dump(),
        nested({"max_length": length, "revision": origin.revision}),
    )
    points = find_points(settings, model.config.model_type, preset_of(model.config).finetune_rate)
    if settings.grid == "none":
        settings = settings.model_copy(update={"training": points[0].training})
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    backends, attention = _settle_attention(encoder, settings, points, runtime)
    return FinetunePlan(
        settings,
        Path(settings.out or ""),
        origin,
        encoder,
        tokenizer_for(model, tokenizer, trained=max(length, tokenizer.model_max_length)),
        data,
        find_cells(data, points, seeds),
        runtime,
        weights_hash(encoder.tensors),
        backends,
        attention,
    )


def _settle_attention(
    encoder: EncoderCheckpoint, settings: FinetuneSettings, points: Sequence[Point], runtime: Runtime
) -> tuple[dict[float | None, type[AttentionBackend]], str]:
    """How the models of each dropout attend, for not every kernel has it; and in words."""
    assert settings.max_length is not None
    backends: dict[float | None, type[AttentionBackend]] = {}
    words: list[str] = []
    for dropout in dict.fromkeys(point.training.dropout for point in points):
        model = SequenceClassifier(encoder.classifier(["0", "1"], seed=0, dropout=dropout).model)
        asked, length = settings.speed.attention, settings.max_length
        words.append(settle_attention(model, runtime, length, asked, classifies_alone))
        backends[dropout] = type(model.attention)
    return backends, "; ".join(dict.fromkeys(words))


def _load(settings: FinetuneSettings, emit: Emit) -> dict[str, TaskData]:
    """The tasks' data, MNLI first where others begin from its model."""
    tasks = settings.tasks
    if not tasks.names:
        if not (tasks.train and tasks.dev):
            raise UserError("no task: give --task, or a set of your own with --train FILE and --dev FILE")
        if tasks.folder is not None:
            raise UserError("--data-dir is for GLUE tasks: give --task, or leave it out")
        if settings.from_mnli:
            raise UserError("from_mnli is for GLUE tasks: leave it out")
        data = load_files(
            Path(tasks.train),
            Path(tasks.dev),
            Path(tasks.test) if tasks.test else None,
            name=tasks.name,
            text_field=tasks.text_field,
            pair_field=tasks.text_pair_field,
            label_field=tasks.label_field,
            regression=tasks.regression,
            metric=tasks.metric,
        )
        _check_name(data.task.name)
        return {data.task.name: data}
    folder = Path(tasks.folder) if tasks.folder is not None else None
    names = _names(tasks.names, folder, emit)
    if settings.from_mnli:
        if not set(names) & set(FROM_MNLI):
            raise UserError(
                f"from_mnli: only {', '.join(FROM_MNLI)} can begin as the MNLI model: leave it out"
            )
        names.sort(key=lambda name: name != "mnli")
    return {name: load_glue(name, folder) for name in names}


def _names(wanted: Sequence[str], folder: Path | None, emit: Emit) -> list[str]:
    """The training tasks that the names stand for; the diagnostic set is predicted by the MNLI model."""
    names: list[str] = []
    for name in wanted:
        if name == ALL:
            in_folder = list(GLUE) if folder is None else available(folder)
            missing = [task for task in GLUE if task not in in_folder]
            if missing and in_folder:
                emit(
                    Note(f"{folder} has no {', '.join(missing)}: left out, so there will be no GLUE average")
                )
            if not in_folder:
                raise UserError(
                    f"{folder} holds none of GLUE's tasks: give the folder that CoLA, MRPC, ... lie in"
                )
            names += in_folder
        elif name == "ax":
            names.append("mnli")
        elif name in GLUE:
            names.append(name)
        else:
            raise unknown_name("task", name, [*GLUE, "ax", ALL])
    return list(dict.fromkeys(names))


def _check_name(name: str) -> None:
    """Refuse a name that no folder can have, or a hidden one, or one outside the output folder."""
    if (
        name.startswith(".")
        or "/" in name
        or not name.isprintable()
        or not 0 < len(name.encode()) <= _LONGEST_NAME
    ):
        raise UserError(
            f"the set cannot be called {name!r}, as its folders will be: set tasks.name to a plain name"
        )


def _check_room(length: int, tokenizer: PreTrainedTokenizerFast, *, pairs: bool) -> None:
    """Refuse a length that leaves no token to a text."""
    least = tokenizer.num_special_tokens_to_add(pair=pairs) + 1 + pairs
    if length < least:
        raise UserError(
            f"max_length {length} leaves no room for text beside the special tokens: set it to {least} or "
            "more"
        )

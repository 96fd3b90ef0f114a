"""One cell of a grid: a model fine-tuned for a task at a point of the grid with a seed."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from fmlm_cli import storage
from fmlm_cli.config import FinetuneSettings
from fmlm_cli.corpus.rows.buckets import LengthBuckets
from fmlm_cli.corpus.rows.sequences import Sequences
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.checkpoint import Checkpoints, TrainState
from fmlm_cli.engine.loop import Rhythm, TrainingRun
from fmlm_cli.engine.optimizer import Schedule, make_optimizer
from fmlm_cli.engine.records import MetricsLog, Teller
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, ignore
from fmlm_cli.model.classifier import Classifier, Encoder
from fmlm_cli.model.first_token import shorten_last_layer
from fmlm_cli.model.layers import rate_scales
from fmlm_cli.objectives.classification import SequenceClassification
from fmlm_cli.recipes.finetuning.grid import Cell
from fmlm_cli.recipes.shared.predictions import predict_split, split_name, write_predictions
from fmlm_cli.recipes.shared.training import train_to_the_end
from fmlm_cli.tasks import Examples, TaskData, compute_metrics

RESULT, CELL = "result.json", "cell.json"
# Of what decides a cell, that which is known by its hash.
_CONTENT = {
    "train": "with other training data",
    "dev": "with other development data",
    "weights": "from another checkpoint",
    "tokenizer": "with another tokenizer",
}
_MODEL, _BEST = "model.safetensors", "best.safetensors"


@dataclass(frozen=True)
class Split:
    """A split's examples, and the same as tokens."""

    examples: Examples
    sequences: Sequences


@dataclass(frozen=True)
class Prepared:
    """A task that is ready for training: what all of its cells share. `test`: labelled splits alone."""

    data: TaskData
    encoder: Encoder
    tokenizer: PreTrainedTokenizerFast
    train: Split
    dev: Mapping[str, Split]
    test: Mapping[str, Split]


@dataclass(frozen=True)
class CellResult:
    """What a finished cell found, as kept in its result.json.

    `score`: the task's score on the development split that decides, at the epoch that counts; None where training
    diverged, for the reason in `failed`. `dev`, `test`: measures by split; unlabelled splits are left out. `seconds`:
    what the call that finished it took, evaluation and all.
    """

    task: str
    point: str
    seed: int
    score: float | None
    epoch: int
    epochs: int
    steps: int
    dev: Mapping[str, Mapping[str, float]]
    test: Mapping[str, Mapping[str, float]]
    history: Sequence[Mapping[str, Any]]
    train_seconds: float
    examples_per_second: float
    padding: float
    training: Mapping[str, Any]
    identity: str
    failed: str | None = None
    seconds: float = 0.0


def read_result(folder: Path) -> CellResult | None:
    """The result of a cell that is finished."""
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        return CellResult(**storage.read_json(path))
    except (TypeError, UserError):
        raise _damaged(path) from None


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged: remove {path.parent}, and the cell is done again with --resume")


def deciding(cell: Cell, settings: FinetuneSettings, runtime: Runtime) -> dict[str, Any]:
    """The settings that decide what a cell finds, flat, by name."""
    training = {f"training.{k}": v for k, v in cell.point.training.model_dump(mode="json").items()}
    chosen = {name: getattr(settings, name) for name in ("select", "patience", "max_length")}
    return {**training, **chosen, "seed": cell.seed, "precision": str(runtime.precision)}


def check_same_cell(folder: Path, now: Mapping[str, Any]) -> None:
    """Refuse to go on with, or to report, a cell that was begun under other settings, data or weights than `now`."""
    path = folder / CELL
    try:
        before = storage.read_json(path)
    except UserError:
        before = None
    if not isinstance(before, dict):
        raise _damaged(path)
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            was = f"with {name} {before.get(name)}, not {now.get(name)}"
            raise UserError(
                f"{folder} was made {_CONTENT.get(name.partition('.')[0], was)}: go back to that, or choose another --out"
            )


@dataclass
class CellRun:
    """A cell at work. `emit` is told of every record."""

    cell: Cell
    prepared: Prepared
    settings: FinetuneSettings
    runtime: Runtime
    folder: Path
    emit: Emit = ignore
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.training = self.cell.point.training
        classifier: Classifier = self.prepared.encoder.classifier(
            self.prepared.data.task.labels,
            seed=self.cell.seed,
            dropout=self.training.dropout,
            reinit_layers=self.training.reinit_layers,
        )
        shorten_last_layer(classifier.model)
        self.model = classifier.model.to(self.runtime.device)
        self.objective = SequenceClassification(
            regression=self.prepared.data.task.regression,
            pad=int(self.prepared.tokenizer.pad_token_id or 0),
            multiple=8 if self.runtime.device.type == "cuda" else 1,
        )
        self.buckets = LengthBuckets(
            self.prepared.train.sequences.lengths, self.training.batch_size, self.cell.seed
        )

    @cached_property
    def epochs(self) -> int:
        """Passes over the training split."""
        return max(self.training.epochs, -(-self.training.min_steps // self.buckets.batches))

    @property
    def steps(self) -> int:
        """Optimizer steps of all passes."""
        return self.epochs * self.buckets.batches

    def prepare(self, step: int) -> list[Batch]:
        """The batches of a step (from 1)."""
        train = self.prepared.train
        batches: list[Batch] = []
        for part in self.buckets.parts(step - 1):
            micro = self.settings.micro_size or len(part)
            batches += self.objective.prepare(train.sequences, part, train.examples.labels, micro)
        return batches

    def outputs(self, split: Split) -> npt.NDArray[np.float32]:
        """The model's outputs for a split: float32[examples, labels], or float32[examples] for scores."""
        found = predict_split(
            self.model, self.objective, split.sequences, self.training.batch_size, self.runtime
        )
        if not np.isfinite(found).all():
            raise DivergedError("the model's outputs are not finite")
        return found[:, 0] if self.objective.regression else found

    def measure(self, split: Split, outputs: npt.NDArray[np.float32]) -> dict[str, float]:
        """The task's measures of outputs for a labelled split."""
        assert split.examples.labels is not None
        return compute_metrics(self.prepared.data.task, split.examples.labels, outputs)

    def _evaluate(self, step: int, log: MetricsLog) -> list[dict[str, Any]]:
        """Measure on the split that decides, after an epoch; keep the weights if they are the best so far."""
        if step == 0:
            return []
        split = self.prepared.dev[self.prepared.data.decides]
        measures = self.measure(split, self.outputs(split))
        before = max((record["score"] for record in _evaluations(log)), default=-np.inf)
        if self.settings.select == "last" or measures["score"] > before:
            self.best = {k: v.detach().to("cpu", copy=True) for k, v in self.model.state_dict().items()}
        return [{"evaluation": self.prepared.data.decides, "epoch": step // self.buckets.batches, **measures}]

    def _enough(self, log: MetricsLog) -> bool:
        """Whether the score has not become better for as long as the settings have patience."""
        scores = [record["score"] for record in _evaluations(log)]
        patience = self.settings.patience
        return patience is not None and len(scores) - 1 - int(np.argmax(scores)) >= patience

    def run(self, decided: Mapping[str, Any], keep: Callable[[CellResult], None]) -> CellResult:
        """Train from the newest checkpoint or the start; leave result.json and predictions, remove the checkpoints.

        `decided`: all that decides the result. `keep` is told of it while the model has the weights that count, before
        it is written.
        """
        identity, begun = storage.sha256_of_json(decided), time.monotonic()
        with storage.sole_owner(self.folder), storage.clear_disk_errors(self.folder):
            storage.write_json(self.folder / CELL, decided)
            log = MetricsLog(self.folder / storage.METRICS)
            try:
                state = train_to_the_end(self._training_run(identity, log), self.emit)
            except DivergedError as error:
                result = self._result(TrainState(0), [], identity, failed=str(error))
            else:
                result = self._finish(state, log, identity)
                keep(result)
            result = replace(result, seconds=round(time.monotonic() - begun, 2))
            storage.write_json(self.folder / RESULT, vars(result))
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        return result

    def _training_run(self, identity: str, log: MetricsLog) -> TrainingRun:
        chosen = self.training
        assert chosen.learning_rate is not None
        return TrainingRun(
            model=self.model,
            objective=self.objective,
            optimizer=make_optimizer(chosen, self.model, rate_scales(self.model, chosen.layer_decay)),
            schedule=Schedule.of_shares(
                self.steps,
                peak=chosen.learning_rate,
                warmup_share=chosen.warmup_share,
                shape=chosen.schedule,
            ),
            prepare=self.prepare,
            evaluate=lambda step: self._evaluate(step, log),
            checkpoints=Checkpoints(self.folder / "checkpoints", 1, identity, self._save, self._load),
            sinks=(log, Teller(self.emit)),
            rhythm=Rhythm(
                log=max(1, self.steps // 200),
                evaluate=self.buckets.batches,
                checkpoint=self.settings.checkpoint_every_steps,
            ),
            seed=self.cell.seed,
            runtime=self.runtime,
            clip=chosen.clip,
            enough=lambda: self._enough(log),
            keeps_checkpoints=False,
        )

    def _save(self, folder: Path) -> None:
        save_file(_apart(self.model.state_dict()), folder / _MODEL)
        if self.best:
            save_file(_apart(self.best), folder / _BEST)

    def _load(self, folder: Path) -> None:
        self.model.load_state_dict(load_file(folder / _MODEL))
        if (folder / _BEST).is_file():
            self.best = load_file(folder / _BEST)

    def _finish(self, state: TrainState, log: MetricsLog, identity: str) -> CellResult:
        """Measure the weights that count on all labelled splits, and keep their predictions."""
        self.model.load_state_dict(self.best)
        found: dict[str, dict[str, dict[str, float]]] = {"dev": {}, "test": {}}
        for kind, splits in (("dev", self.prepared.dev), ("test", self.prepared.test)):
            for name, split in splits.items():
                outputs = self.outputs(split)
                found[kind][name] = self.measure(split, outputs)
                path = self.folder / "predictions" / f"{split_name(kind, name)}.jsonl"
                write_predictions(path, self.prepared.data, split.examples, outputs)
        history = [{k: v for k, v in record.items() if k != "evaluation"} for record in _evaluations(log)]
        result = self._result(state, history, identity)
        return replace(result, dev=found["dev"], test=found["test"])

    def _result(
        self,
        state: TrainState,
        history: Sequence[Mapping[str, Any]],
        identity: str,
        failed: str | None = None,
    ) -> CellResult:
        scores = [record["score"] for record in history]
        at = (int(np.argmax(scores)) if self.settings.select == "best" else len(scores) - 1) if scores else 0
        examples = len(self.prepared.train.examples) * len(history)
        return CellResult(
            task=self.cell.task,
            point=self.cell.point.name,
            seed=self.cell.seed,
            score=scores[at] if scores else None,
            epoch=int(history[at]["epoch"]) if history else 0,
            epochs=self.epochs,
            steps=state.step,
            dev={},
            test={},
            history=history,
            train_seconds=round(state.seconds, 2),
            examples_per_second=round(examples / state.seconds, 1) if state.seconds else 0.0,
            padding=round(self.buckets.padding(), 4),
            training=self.training.model_dump(mode="json"),
            identity=identity,
            failed=failed,
        )


def _evaluations(log: MetricsLog) -> list[dict[str, Any]]:
    return [record for record in log.records if "score" in record]


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors in memory of their own: some share theirs, which safetensors refuses."""
    return {name: tensor.detach().to("cpu").clone() for name, tensor in tensors.items()}

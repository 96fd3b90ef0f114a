"""One cell of a grid: a model fine-tuned for a task at a point of the grid with a seed."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from fmlm_cli import storage
from fmlm_cli.analysis.results.finetuning import CellResult
from fmlm_cli.config import FinetuneSettings
from fmlm_cli.corpus.rows.buckets import LengthBuckets
from fmlm_cli.corpus.rows.sequences import Sequences
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.checkpoint import Checkpoints, TrainState
from fmlm_cli.engine.loop import Rhythm, TrainingRun
from fmlm_cli.engine.optimizer import Schedule
from fmlm_cli.engine.records import MetricsLog, Teller
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.signals import StoppedError, StopRequest, graceful_stop
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.events import Emit, ignore
from fmlm_cli.model.attention import AttentionBackend
from fmlm_cli.model.classification.sequence_classifier import SequenceClassifier, ready_classifier
from fmlm_cli.model.classifier import EncoderCheckpoint
from fmlm_cli.model.layers import rate_scales
from fmlm_cli.objectives.classification import SequenceClassification
from fmlm_cli.recipes.finetuning.grid import Cell, epochs_of
from fmlm_cli.recipes.jobs.board import Outcome
from fmlm_cli.recipes.shared.predictions import keep_predictions, predict_split, split_name
from fmlm_cli.recipes.shared.training import assemble, train_to_the_end
from fmlm_cli.tasks import Examples, Task, TaskData, compute_metrics
from fmlm_cli.tensors import read_own_tensors

_EVALUATIONS = 50  # of a cell at most: a small set has more passes, and short ones
_MODEL, _BEST = "model.safetensors", "best.safetensors"


@dataclass(frozen=True)
class EncodedSplit:
    """A split's examples, and the same as tokens."""

    examples: Examples
    sequences: Sequences


@dataclass(frozen=True)
class Prepared:
    """A task that is ready for training: what all of its cells share. `test`: labelled splits alone."""

    data: TaskData
    encoder: EncoderCheckpoint
    tokenizer: PreTrainedTokenizerFast
    train: EncodedSplit
    dev: Mapping[str, EncodedSplit]
    test: Mapping[str, EncodedSplit]


def outcome(result: CellResult, decides: str) -> Outcome:
    """What a cell has found, in words; `decides`: the development split by which it is judged."""
    text = "diverged" if result.score is None else f"{100 * result.score:.1f}"
    decided_by = result.dev.get(decides, {})
    measures = [
        f"{name.replace('_', '-')} {value:.1%}" for name, value in decided_by.items() if name != "score"
    ]
    at = f"epoch {result.epoch} of {result.epochs}"
    words = ", ".join([*measures, at]) if decided_by else f"diverged: {result.failed}"
    return Outcome(text, words, max(result.seconds, result.train_seconds))


def objective_for(
    model: SequenceClassifier, settings: FinetuneSettings, tokenizer: PreTrainedTokenizerFast, task: Task
) -> SequenceClassification:
    """What a task's model learns, in the form that it takes batches in."""
    assert settings.max_length is not None
    pad = int(tokenizer.pad_token_id or 0)
    return SequenceClassification.of_model(model, settings.max_length, pad=pad, regression=task.regression)


def batches_of_step(
    objective: SequenceClassification,
    buckets: LengthBuckets,
    number: int,
    sequences: Sequences,
    labels: npt.NDArray[np.generic] | None,
    micro_size: int | None,
) -> list[Batch]:
    """The batches of a step (from 0) of a cell; `micro_size` None: whole ones, if padding allows."""
    flat = objective.layout == "flat"  # where padding costs nothing
    parts = [buckets.at(number)] if flat else buckets.parts(number)
    micro = micro_size or buckets.batch_size
    return [batch for part in parts for batch in objective.prepare(sequences, part, labels, micro)]


def passes_between_evaluations(epochs: int) -> int:
    """Passes from one evaluation to the next, of so many in all."""
    return -(-epochs // _EVALUATIONS)


@dataclass
class CellRun:
    """A cell at work. `backend`: how its model attends. `emit` is told of every record."""

    cell: Cell
    prepared: Prepared
    settings: FinetuneSettings
    runtime: Runtime
    backend: type[AttentionBackend]
    folder: Path
    emit: Emit = ignore
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.training, self.seed = self.cell.point.training, self.cell.seed
        self.log = MetricsLog(self.folder / storage.METRICS)
        classifier = self.prepared.encoder.classifier(
            self.prepared.data.task.labels,
            seed=self.cell.seed,
            dropout=self.training.dropout,
            reinit_layers=self.training.reinit_layers,
        )
        self.model = ready_classifier(classifier.model, self.backend, self.runtime.device)
        task = self.prepared.data.task
        self.objective = objective_for(self.model, self.settings, self.prepared.tokenizer, task)
        self.buckets = LengthBuckets(
            self.prepared.train.sequences.lengths, self.training.batch_size, self.cell.seed
        )

    @cached_property
    def epochs(self) -> int:
        """Passes over the training split."""
        return epochs_of(self.training, len(self.prepared.train.examples))

    @property
    def passes_between(self) -> int:
        """Passes from one evaluation to the next."""
        return passes_between_evaluations(self.epochs)

    @property
    def steps(self) -> int:
        """Optimizer steps of all passes."""
        return self.epochs * self.buckets.batches

    def prepare(self, step: int) -> list[Batch]:
        """The batches of a step (from 1)."""
        train, micro = self.prepared.train, self.settings.micro_size
        labels = train.examples.labels
        return batches_of_step(self.objective, self.buckets, step - 1, train.sequences, labels, micro)

    def outputs(self, split: EncodedSplit, stop: StopRequest) -> npt.NDArray[np.float32]:
        """The model's outputs for a split: float32[examples, labels], or float32[examples] for scores."""
        outputs = predict_split(
            self.model, self.objective, split.sequences, self.training.batch_size, self.runtime, stop=stop
        )
        if not np.isfinite(outputs).all():
            raise DivergedError("the model's outputs are not finite")
        return outputs[:, 0] if self.objective.regression else outputs

    def measure(self, split: EncodedSplit, outputs: npt.NDArray[np.float32]) -> dict[str, float]:
        """The task's measures of outputs for a labelled split."""
        assert split.examples.labels is not None
        return compute_metrics(self.prepared.data.task, split.examples.labels, outputs)

    def evaluate(self, step: int, stop: StopRequest) -> list[dict[str, Any]]:
        """Measure on the split that decides, after whole epochs; keep the best weights so far."""
        if step == 0:
            return []
        split = self.prepared.dev[self.prepared.data.decides]
        measures = self.measure(split, self.outputs(split, stop))
        before = max((record["score"] for record in _evaluations(self.log)), default=-np.inf)
        if self.settings.select == "last" or measures["score"] > before:
            weights = self.model.pretrained.state_dict()
            self.best = {k: v.detach().to("cpu", copy=True) for k, v in weights.items()}
        return [{"evaluation": self.prepared.data.decides, "epoch": step // self.buckets.batches, **measures}]

    def before_step(self, step: int) -> None:
        """All of the model is trained in every step."""

    def enough(self) -> bool:
        """Whether the score has not become better for as long as the settings have patience."""
        scores = [record["score"] for record in _evaluations(self.log)]
        patience = self.settings.patience
        if patience is None or not scores:
            return False
        return len(scores) - 1 - int(np.argmax(scores)) >= patience

    def run(self, identity: str, keep: Callable[[CellResult], None]) -> CellResult:
        """Train from the newest checkpoint or the start; leave predictions.

        `identity`: stands for all that decides the result. `keep` is told of the result while the model has
        the weights that count. Raises `Interrupted`, with a checkpoint saved, if asked to stop.
        """
        begun, training = time.monotonic(), self.training_run(identity)
        try:
            state = train_to_the_end(training, self.emit)
        except DivergedError as error:
            result = self._result(TrainState(0), [], identity, failed=str(error))
        else:
            with graceful_stop() as stop:
                stop.keep_free(training.seconds_to_save)
                with contextlib.suppress(StoppedError):
                    result = self._finish(state, identity, stop)
                    keep(result)
                if stop.asked:
                    saved = training.save(state, last=True)
                    raise stop.interrupted(f" after training, before all was measured; saved in {saved}")
        return replace(result, seconds=round(time.monotonic() - begun, 2))

    def training_run(self, identity: str) -> TrainingRun:
        """What the loop is given."""
        training = self.training
        assert training.learning_rate is not None
        return assemble(
            self,
            training,
            scales=rate_scales(self.model, self.model.pretrained, training.layer_decay),
            schedule=Schedule.of_shares(
                self.steps,
                peak=training.learning_rate,
                warmup_share=training.warmup_share,
                shape=training.schedule,
            ),
            rhythm=Rhythm(
                log=max(1, self.steps // 200),
                evaluate=self.passes_between * self.buckets.batches,
                checkpoint=self.settings.checkpoint_every_steps,
            ),
            checkpoints=Checkpoints(self.folder / "checkpoints", 1, identity, self._save, self._load),
            sinks=(self.log, Teller(self.emit)),
            keeps_checkpoints=False,
        )

    def _save(self, model: SequenceClassifier, folder: Path) -> None:
        save_file(_apart(model.pretrained.state_dict()), folder / _MODEL)
        if self.best:
            save_file(_apart(self.best), folder / _BEST)

    def _load(self, folder: Path) -> None:
        anew = f"remove {self.folder}, and the cell is done again with --resume"
        self.model.pretrained.load_state_dict(read_own_tensors(folder / _MODEL, anew))
        if (folder / _BEST).is_file():
            self.best = read_own_tensors(folder / _BEST, anew)

    def _finish(self, state: TrainState, identity: str, stop: StopRequest) -> CellResult:
        """Measure the weights that count on all labelled splits, and keep their predictions."""
        self.model.pretrained.load_state_dict(self.best)
        measures: dict[str, dict[str, dict[str, float]]] = {"dev": {}, "test": {}}
        for kind, splits in (("dev", self.prepared.dev), ("test", self.prepared.test)):
            for name, split in splits.items():
                outputs = self.outputs(split, stop)
                measures[kind][name] = self.measure(split, outputs)
                path = self.folder / "predictions" / f"{split_name(kind, name)}.jsonl"
                keep_predictions(path, self.prepared.data, split.examples, outputs)
        history = [
            {k: v for k, v in record.items() if k != "evaluation"} for record in _evaluations(self.log)
        ]
        result = self._result(state, history, identity)
        return replace(result, dev=measures["dev"], test=measures["test"])

    def _result(
        self,
        state: TrainState,
        history: Sequence[Mapping[str, Any]],
        identity: str,
        failed: str | None = None,
    ) -> CellResult:
        scores = [record["score"] for record in history]
        at = (int(np.argmax(scores)) if self.settings.select == "best" else len(scores) - 1) if scores else 0
        passes = int(history[-1]["epoch"]) if history else 0
        examples = len(self.prepared.train.examples) * passes
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

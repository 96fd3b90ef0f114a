"""A model's outputs for a split, and the files that they go to."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fmlm_cli import storage
from fmlm_cli.corpus.rows.buckets import by_length
from fmlm_cli.corpus.rows.sequences import Sequences
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.evaluation import outputs_of
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.signals import NEVER, StopRequest
from fmlm_cli.objectives.classification import SequenceClassification
from fmlm_cli.tasks import Examples, TaskData, predictions_of

AT_ONCE = 32  # sequences or rows that are forwarded, where no setting says how many


def predict_split(
    model: torch.nn.Module,
    objective: SequenceClassification,
    sequences: Sequences,
    batch_size: int,
    runtime: Runtime,
    progress: Callable[[int], None] = lambda done: None,
    stop: StopRequest = NEVER,
) -> npt.NDArray[np.float32]:
    """Outputs float32[sequences, labels], in the order of the sequences; or `StoppedError`."""

    def batches() -> Iterator[Batch]:
        done = 0
        for index in by_length(sequences.lengths, batch_size):
            yield from objective.prepare(sequences, index, None, batch_size)
            done += len(index)
            progress(done)

    return outputs_of(model, objective, batches(), runtime, stop)


def keep_predictions(
    path: Path, data: TaskData, examples: Examples, outputs: npt.NDArray[np.float32]
) -> None:
    """One JSON object a line: id, label (where there is one), prediction, and the model's outputs."""
    task = data.task
    labels: list[Any] = [None] * len(examples)
    if examples.labels is not None:
        labels = list(map(float, examples.labels)) if task.regression else examples.label_names(task)
    lines = []
    for key, label, predicted, row in zip(
        examples.ids, labels, predictions_of(task, outputs), outputs, strict=True
    ):
        record = {"id": key, "label": label, "prediction": predicted}
        if not task.regression:
            record["logits"] = dict(zip(task.labels, map(float, row), strict=True))
        lines.append(json.dumps(record, ensure_ascii=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_text(path, "\n".join(lines) + "\n")


def split_name(kind: str, name: str) -> str:
    """What a split is called: dev, test, dev-matched, ..."""
    return kind if name == kind else f"{kind}-{name}"

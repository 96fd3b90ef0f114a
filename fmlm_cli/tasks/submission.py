"""Predictions in the form that GLUE's server takes: one file a task and test split, and a zip of them."""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fmlm_cli.storage import clear_disk_errors, complete_file, write_text
from fmlm_cli.tasks.glue import GLUE
from fmlm_cli.tasks.metrics import predictions_of
from fmlm_cli.tasks.task import Examples, Task

_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold


def write_submission(
    folder: Path, task: Task, split: str, examples: Examples, outputs: npt.NDArray[np.floating[Any]]
) -> Path:
    """Write a task's predictions for a test split (`TaskData.test`'s keys) to its official file.

    `outputs`: float[n, labels] logits or float[n] scores, in the order of `examples`. Labels are names for
    MNLI, QNLI, RTE and AX, and 0 or 1 for the others; scores have three decimals and lie in 0 to 5. For any
    other task there is `write_predictions`.
    """
    glue = GLUE[task.name]
    predictions: Sequence[str | float] = predictions_of(task, outputs)
    if glue.numbered:
        predictions = [str(task.labels.index(str(label))) for label in predictions]
    path = folder / f"{glue.submissions[split]}.tsv"
    write_predictions(path, examples.ids, predictions)
    return path


def write_predictions(path: Path, ids: Sequence[str], predictions: Sequence[str | float]) -> None:
    """Write a line for each example, "index TAB prediction", below a header; scores with three decimals."""
    texts = [text if isinstance(text, str) else f"{text:.3f}" for text in predictions]
    lines = [f"{index}\t{text}\n" for index, text in zip(ids, texts, strict=True)]
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(["index\tprediction\n", *lines]))


def zip_submissions(files: Iterable[Path], target: Path) -> None:
    """Put files side by side into a zip; the same files give the same bytes, whenever they were written."""
    with complete_file(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for file in sorted(files, key=lambda file: file.name):
            entry = zipfile.ZipInfo(file.name, _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)

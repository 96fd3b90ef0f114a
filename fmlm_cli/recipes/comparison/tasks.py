"""The labelled sets of a comparison: GLUE's by name, others by their folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmlm_cli.config import ALL, DownstreamSettings
from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.events import Emit
from fmlm_cli.tasks import GLUE, TaskData, available, load_files, load_glue

_KINDS = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


@dataclass(frozen=True)
class Labelled:
    """A labelled set.

    `tasks`: the settings of `fmlm finetune` that name it. `metric`: what decides, if it is given. `content`:
    hashes of its splits.
    """

    name: str
    tasks: dict[str, Any]
    metric: str | None
    content: dict[str, str]


def find_tasks(settings: DownstreamSettings, emit: Emit) -> tuple[Labelled, ...]:
    """What the names stand for; read once, so that what is wrong with any of it is known at once."""
    folder = Path(settings.folder) if settings.folder is not None else None
    labelled = [_find(name, folder, settings) for name in _names(settings.tasks, folder)]
    names = [task.name for task in labelled]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"task {name} is given twice")
    for name in settings.metrics:
        if name not in names:
            raise unknown_name("task in downstream.metrics:", name, names or ["none, as no tasks are given"])
    return tuple(labelled)


def _names(wanted: Sequence[str], folder: Path | None) -> list[str]:
    names: list[str] = []
    for name in wanted:
        names += (list(GLUE) if folder is None else available(folder)) if name == ALL else [name]
    return list(dict.fromkeys(names))


def _find(name: str, folder: Path | None, settings: DownstreamSettings) -> Labelled:
    for place in (folder / name if folder else Path(name), Path(name)):
        files = {split: _file(place, split) for split in ("train", "dev", "test")}
        if files["train"] is not None and files["dev"] is not None:
            return _of_files(place, files, settings)
        if place.is_dir() and name not in GLUE:
            lacking = "train" if files["train"] is None else "dev"
            raise UserError(
                f"{place} has no {lacking} file: it takes {lacking}.jsonl, .csv, .tsv or .parquet"
            )
    if name not in GLUE:
        kind = "task (neither GLUE's nor a folder with train and dev files)"
        raise unknown_name(kind, name, GLUE)
    if name in settings.metrics:
        raise UserError(f"downstream.metrics.{name}: GLUE's tasks have measures of their own, leave it out")
    task_settings = {"names": [name], "folder": str(folder) if folder else None}
    return Labelled(name, task_settings, None, _content(load_glue(name, folder)))


def _of_files(place: Path, files: dict[str, Path | None], settings: DownstreamSettings) -> Labelled:
    name = place.resolve().name
    metric = settings.metrics.get(name)
    train, dev, test = (files[split] for split in ("train", "dev", "test"))
    assert train is not None and dev is not None
    fields = settings.text_field, settings.text_pair_field, settings.label_field
    data = load_files(
        train,
        dev,
        test,
        name=name,
        metric=metric,
        text_field=fields[0],
        pair_field=fields[1],
        label_field=fields[2],
    )
    task_settings = {
        **{split: str(path) for split, path in files.items() if path is not None},
        "name": name,
        "metric": metric,
        **dict(zip(("text_field", "text_pair_field", "label_field"), fields, strict=True)),
    }
    return Labelled(name, task_settings, metric, _content(data))


def _content(data: TaskData) -> dict[str, str]:
    splits = {"train": data.train, **data.dev, **data.test}
    return {f"content.{split}": examples.fingerprint for split, examples in splits.items()}


def _file(folder: Path, split: str) -> Path | None:
    return next((folder / f"{split}{kind}" for kind in _KINDS if (folder / f"{split}{kind}").is_file()), None)

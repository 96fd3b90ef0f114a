"""The labelled sets of a call: GLUE's by name, or one of the user's own."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from fmlm_cli.config import ALL, FinetuneSettings
from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.events import Doing, Emit, Note
from fmlm_cli.tasks import GLUE, TaskData, available, load_files, load_glue

FROM_MNLI = ("rte", "mrpc", "stsb")
_LONGEST_NAME = 100  # bytes; a file's name may have 255, and some are made of this one


def load_tasks(settings: FinetuneSettings, emit: Emit) -> dict[str, TaskData]:
    """The tasks' data, MNLI first where others begin from its model."""
    emit(Doing("reading the labelled sets"))
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
        if not plain_name(data.task.name):
            raise UserError(
                f"the set cannot be called {data.task.name!r}, as its folders will be: give a plain name "
                "with --name"
            )
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


def plain_name(name: str) -> bool:
    """Whether folders can have a name, which is neither a hidden one nor leads out of the output folder."""
    of_folder = not name.startswith(".") and "/" not in name and name.isprintable()
    return of_folder and 0 < len(name.encode()) <= _LONGEST_NAME


def check_room(length: int, tokenizer: PreTrainedTokenizerFast, *, pairs: bool) -> None:
    """Refuse a length that leaves no token to a text."""
    least = tokenizer.num_special_tokens_to_add(pair=pairs) + 1 + pairs
    if length < least:
        raise UserError(
            f"max_length {length} leaves no room for text beside the special tokens: set it to {least} or "
            "more"
        )

"""GLUE (Wang et al. 2018, arXiv 1804.07461): its tasks, and how they lie in a folder or on the Hub."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.readers.bytes import readable
from fmlm_cli.readers.tables import ColumnTable, read_parquet, read_table, read_tsv
from fmlm_cli.tasks.columns import INDEX, empty_rows, ids_of, is_unlabelled, scores_of, texts_of
from fmlm_cli.tasks.glue_hub import REPOSITORY, load_tables
from fmlm_cli.tasks.task import Examples, Task, TaskData, assemble, check_train

_FILE = re.compile(
    r"(?P<split>.+?)(-\d+-of-(?P<parts>\d+))?\.(?P<form>tsv|jsonl|jsonl\.gz|parquet)", re.IGNORECASE
)
_FORMS = "tsv, jsonl, jsonl.gz or parquet"
_GOLD, _NO_CONSENSUS = "gold_label", "-"  # MNLI's official column, and its label where annotators disagree


@dataclass(frozen=True)
class GlueTask:
    """A task and its form on the disk.

    `folder`: its official name. `first`, `second`, `label`: the names that a column has in the official files
    and on the Hub. `numbered`: labels are numbers in the official files and in submissions. `dev`, `test`:
    for each split the names that its files have; `decides`: the name of the dev split that does.
    `submissions`: for each test split the official file, without extension. `header`: the columns of files
    without a header. `broken_rows`: the official files hold some, which everyone leaves out.
    """

    task: Task
    folder: str
    submissions: Mapping[str, str]
    first: tuple[str, ...]
    second: tuple[str, ...] = ()
    label: tuple[str, ...] = ("label",)
    numbered: bool = False
    header: tuple[str, ...] | None = None
    broken_rows: bool = False
    note: str = ""
    decides: str = "dev"
    dev: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"dev": ("dev", "validation")})
    test: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"test": ("test",)})


def _glue(name: str, labels: str, metrics: str, folder: str, **form: Any) -> GlueTask:
    """A task from its lists in words; the measures, save CoLA's second one, all count."""
    measures = tuple(metrics.split())
    score = measures[:1] if name == "cola" else measures
    bounds = (0.0, 5.0) if name == "stsb" else None
    task = Task(name, tuple(labels.split()), measures, score, pair="second" in form, bounds=bounds)
    return GlueTask(task, folder, **{"submissions": {"test": folder}, **form})


_SENTENCES = {"first": ("sentence1",), "second": ("sentence2",)}
_NLI = "entailment not_entailment"

# Labels are named and numbered as on the Hub.
GLUE: Mapping[str, GlueTask] = MappingProxyType(
    {
        "cola": _glue(
            "cola",
            "unacceptable acceptable",
            "matthews accuracy",
            "CoLA",
            first=("sentence",),
            numbered=True,
            header=("source", "label", "mark", "sentence"),
        ),
        "sst2": _glue("sst2", "negative positive", "accuracy", "SST-2", first=("sentence",), numbered=True),
        "mrpc": _glue(
            "mrpc",
            "not_equivalent equivalent",
            "accuracy f1",
            "MRPC",
            first=("#1 String", "sentence1"),
            second=("#2 String", "sentence2"),
            label=("Quality", "label"),
            numbered=True,
        ),
        "stsb": _glue("stsb", "", "pearson spearman", "STS-B", label=("score", "label"), **_SENTENCES),
        "qqp": _glue(
            "qqp",
            "not_duplicate duplicate",
            "accuracy f1",
            "QQP",
            first=("question1",),
            second=("question2",),
            label=("is_duplicate", "label"),
            numbered=True,
            broken_rows=True,
        ),
        "mnli": _glue(
            "mnli",
            "entailment neutral contradiction",
            "accuracy",
            "MNLI",
            first=("sentence1", "premise"),
            second=("sentence2", "hypothesis"),
            label=(_GOLD, "label"),
            decides="matched",
            dev={split: (f"dev_{split}", f"validation_{split}") for split in ("matched", "mismatched")},
            test={split: (f"test_{split}",) for split in ("matched", "mismatched")},
            submissions={"matched": "MNLI-m", "mismatched": "MNLI-mm", "ax": "AX"},
        ),
        "qnli": _glue("qnli", _NLI, "accuracy", "QNLI", first=("question",), second=("sentence",)),
        "rte": _glue("rte", _NLI, "accuracy", "RTE", **_SENTENCES),
        "wnli": _glue(
            "wnli",
            "not_entailment entailment",
            "accuracy",
            "WNLI",
            numbered=True,
            note="WNLI's dev set repeats training sentences with opposite labels: a model that learns them "
            "scores below 0.5, and averages over GLUE leave WNLI out",
            **_SENTENCES,
        ),
    }
)
_AX = ("diagnostic", "ax")  # its folder, and its file in it, which the Hub names "test"
_OF_AVERAGE = tuple(name for name in GLUE if name != "wnli")

_TRAIN = ("train", "train")
_Key = tuple[str, str]  # role ("train", "dev", "test") and split
_Read = Callable[[Sequence[str]], ColumnTable | None]  # the table of the split that has one of these names


def load_glue(name: str, folder: Path | None = None) -> TaskData:
    """Read a task of GLUE from a folder that holds GLUE's folders, or from the Hub or its local cache.

    The folders are named as in the official download (CoLA, SST-2, ...) or as on the Hub (cola, sst2, ...),
    whatever the case, and hold files as in the official download (.tsv) or as on the Hub (.parquet, or .jsonl
    with the same columns). The network is touched without a folder only. Empty texts are kept and counted in
    the notes, MNLI's rows without a gold label and QQP's broken rows left out and counted. Raises `UserError`
    (file, line, remedy).
    """
    if name not in GLUE:
        raise unknown_name("GLUE task", name, GLUE)
    glue = GLUE[name]
    notes = [glue.note] if glue.note else []
    tables = _tables(glue, folder, notes)
    examples = {key: _examples(glue, table, key[0], notes) for key, table in tables.items()}
    check_train(glue.task, examples[_TRAIN])
    dev, test = (
        {split: split_examples for (role, split), split_examples in examples.items() if role == kind}
        for kind in ("dev", "test")
    )
    return assemble(glue.task, examples[_TRAIN], dev, glue.decides, test, notes)


def available(folder: Path) -> list[str]:
    """The tasks that a folder has training and dev files of. Raises `UserError` if it is not there."""
    names = []
    for name, glue in GLUE.items():
        inner = _named_folder(folder, (glue.folder, name))
        deciding = glue.dev[glue.decides]
        if inner and _files(inner, ("train",)) and _files(inner, deciding):
            names.append(name)
    return names


def glue_average(scores: Mapping[str, float]) -> float | None:
    """The mean of the eight tasks' scores, without WNLI as in BERT (Devlin et al. 2019, section 4.1).

    `scores`: by task, in any unit. MNLI counts once: "mnli" (or "mnli_matched") is its score on the matched
    set, and where there is "mnli_mismatched" too, the mean of both. None unless all eight are there.
    """
    of_mnli = [scores.get("mnli_matched", scores.get("mnli")), scores.get("mnli_mismatched")]
    mnli = [score for score in of_mnli if score is not None]
    others = [scores[name] for name in _OF_AVERAGE if name != "mnli" and name in scores]
    if of_mnli[0] is None or len(others) + 1 < len(_OF_AVERAGE):
        return None
    return float(np.mean([*others, np.mean(mnli)]))


def _tables(glue: GlueTask, folder: Path | None, notes: list[str]) -> dict[_Key, ColumnTable]:
    """The splits that are there; training and deciding dev set must be."""
    name = glue.task.name
    inner = None if folder is None else _task_folder(folder, glue)
    place = f"{REPOSITORY} {name}" if inner is None else str(inner)
    read = _from_hub(name) if inner is None else _from_folder(inner, glue)
    names_of: dict[_Key, tuple[str, ...]] = {_TRAIN: ("train",)}
    names_of |= {("dev", split): names for split, names in glue.dev.items()}
    names_of |= {("test", split): names for split, names in glue.test.items()}
    tables = {key: table for key, names in names_of.items() if (table := read(names)) is not None}
    for key in (_TRAIN, ("dev", glue.decides)):
        if key not in tables:
            raise UserError(f"{place}: no {names_of[key][0]} file ({_FORMS}): put it there")
    if missing := [names[0] for key, names in names_of.items() if key not in tables]:
        notes.append(f"{place}: no file {', '.join(missing)}: nothing is measured or predicted there")
    if name == "mnli" and (diagnostic := _diagnostic(folder, notes)) is not None:
        tables["test", "ax"] = diagnostic
    return tables


def _named_folder(root: Path, names: Sequence[str]) -> Path | None:
    """The folder in `root` with one of these names, whatever the case."""
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder, seen from {Path.cwd()}; give the one that holds GLUE's folders"
        )
    lowered = {name.lower() for name in names}
    with readable(root):
        return next(
            (path for path in sorted(root.iterdir()) if path.name.lower() in lowered and path.is_dir()), None
        )


def _task_folder(root: Path, glue: GlueTask) -> Path:
    inner = _named_folder(root, (glue.folder, glue.task.name))
    if inner is None:
        present = ", ".join(available(root)) or "none of GLUE's tasks"
        raise UserError(
            f"{root}: no folder {glue.folder} or {glue.task.name} in it, but {present}; choose another folder"
        )
    return inner


def _files(folder: Path, names: Sequence[str]) -> list[Path]:
    """The file of a split, or all parts of it."""
    by_form: dict[tuple[str, str, int], list[Path]] = {}
    with readable(folder):
        for path in sorted(folder.iterdir()):
            match = _FILE.fullmatch(path.name)
            if match and match["split"].lower() in names:
                key = (match["split"].lower(), match["form"].lower(), int(match["parts"] or 1))
                by_form.setdefault(key, []).append(path)
    paths = [path for files in by_form.values() for path in files]
    parts = sum(key[2] for key in by_form)
    if len(paths) < parts and len(by_form) == 1:
        raise UserError(
            f"{folder}: {len(paths)} of {parts} parts as {paths[0].name} are there; fetch the others"
        )
    if len(by_form) > 1 or len(paths) > parts:
        listed = " and ".join(path.name for path in paths)
        raise UserError(f"{folder}: {listed} are the same split: keep one of them")
    return paths


def _from_folder(folder: Path, glue: GlueTask) -> _Read:
    def read(names: Sequence[str]) -> ColumnTable | None:
        files = _files(folder, names)
        if not files:
            return None
        if files[0].suffix.lower() == ".parquet":
            return read_parquet(files)
        if files[0].suffix.lower() != ".tsv":
            return read_table(files[0])
        only = {*INDEX, *glue.first, *glue.second, *glue.label}
        return read_tsv(files[0], header=glue.header, only=only, skip_broken=glue.broken_rows)

    return read


def _from_hub(config: str) -> _Read:
    tables = load_tables(config)
    return lambda names: next((tables[name] for name in names if name in tables), None)


def _diagnostic(root: Path | None, notes: list[str]) -> ColumnTable | None:
    """GLUE's diagnostic set AX, for which models of MNLI predict."""
    if root is not None:
        folder = _named_folder(root, _AX)
        return _from_folder(folder, GLUE["mnli"])((*_AX, "test")) if folder else None
    try:
        return _from_hub("ax")(("test",))
    except UserError as error:  # a local cache of MNLI alone will do
        notes.append(str(error))
        return None


def _examples(glue: GlueTask, table: ColumnTable, role: str, notes: list[str]) -> Examples:
    """The examples of a split; only a test may lack labels."""
    if table.broken:
        notes.append(f"{table.source}: {table.broken:,} rows with other columns than the header left out")
    label = next((name for name in glue.label if name in table.columns), None)
    if label == _GOLD and _NO_CONSENSUS in table.columns[label]:
        rows = [row for row, value in enumerate(table.columns[label]) if value != _NO_CONSENSUS]
        notes.append(f"{table.source}: {len(table) - len(rows):,} rows without a gold label ('-') left out")
        table = table.kept(rows)
    columns = [_texts(table, names, notes) for names in (glue.first, glue.second) if names]
    labels = None
    if role != "test" or (label and not is_unlabelled(table.columns[label])):
        label = label or _column(table, glue.label)
        labels = scores_of(table, label) if glue.task.regression else _indices(glue, table, label)
    second = columns[1] if glue.task.pair else None
    return Examples(columns[0], second, labels, ids_of(table, ()), table.source)


def _column(table: ColumnTable, names: Sequence[str]) -> str:
    """The one of these columns that is there."""
    for name in names:
        if name in table.columns:
            return name
    listed = " or ".join(f"'{name}'" for name in names)
    raise UserError(
        f"{table.source}: no column {listed}: give the file as GLUE or the Hub's nyu-mll/glue has it"
    )


def _texts(table: ColumnTable, names: Sequence[str], notes: list[str]) -> list[str]:
    column = _column(table, names)
    texts = texts_of(table, column)
    if empty := empty_rows(texts):
        notes.append(
            f"{table.source}: {len(empty):,} empty texts in '{column}' kept, "
            f"the first at {table.where(empty[0])}"
        )
    return texts


def _indices(glue: GlueTask, table: ColumnTable, column: str) -> npt.NDArray[np.int64]:
    """Label indices, int64[rows], from names (official files) or numbers (the Hub, some official files)."""
    names = glue.task.labels
    index_of: dict[Any, int] = {key: index for index, name in enumerate(names) for key in (name, index)}
    if glue.numbered:
        index_of |= {str(index): index for index in range(len(names))}
    values = table.columns[column]
    indices = [index_of.get(value) if isinstance(value, str | int | float) else None for value in values]
    if None in indices:
        row = indices.index(None)
        labels = ", ".join(map(str, range(len(names))) if glue.numbered else names)
        raise UserError(f"{table.where(row)}: label {values[row]!r} is not one of {labels}; mend the row")
    return np.asarray(indices, np.int64)

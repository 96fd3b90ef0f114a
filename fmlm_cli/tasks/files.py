"""Any labelled set of your own: train, dev and test files with fields that are found by name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fmlm_cli.errors import UserError, nearest, unknown_name
from fmlm_cli.readers.tables import ColumnTable, read_table
from fmlm_cli.tasks.columns import (
    are_scores,
    empty_rows,
    ids_of,
    in_order,
    is_unlabelled,
    label_names,
    scores_of,
    spelled_twice,
    texts_of,
    told_apart_by,
)
from fmlm_cli.tasks.metrics import METRICS, REGRESSION_METRICS
from fmlm_cli.tasks.task import Examples, Task, TaskData, assemble, check_train

TEXT, PAIR, LABEL = "--text-field", "--text-pair-field", "--label-field"
PAIRS = (
    ("text", "text_pair"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
)
SINGLES = ("text", "sentence", "sentence1", "content", "review", "question", "premise", "document")
LABELS = ("label", "labels", "gold_label", "score", "target", "class", "category")
_CLASS_METRICS = ("accuracy", "macro_f1", "micro_f1")


@dataclass(frozen=True)
class Fields:
    """The columns that hold the text, the other text of a pair, and the label."""

    first: str
    second: str | None
    label: str

    @property
    def texts(self) -> list[str]:
        """The columns of texts."""
        return [self.first] if self.second is None else [self.first, self.second]


def load_files(
    train: Path,
    dev: Path,
    test: Path | None = None,
    *,
    name: str | None = None,
    text_field: str | None = None,
    pair_field: str | None = None,
    label_field: str | None = None,
    regression: bool | None = None,
    metric: str | None = None,
) -> TaskData:
    """Read a set of .jsonl, .csv, .tsv (each also .gz) or .parquet files; the test file may lack labels.

    `name`: the task's, else that of the folder of `train`. Fields: as given, else found by the usual names
    (`PAIRS`, `SINGLES`, `LABELS`) in `train`; `text_field` alone means no pairs. Labels: the sorted union of
    those in `train`, by value if all are numbers; `label_names` says which are the same. `regression`: None
    decides by the labels of `train`: all numbers, and not all of them whole. `metric`: the one that counts,
    else macro-F1 or, for regression, the mean of Pearson and Spearman.

    Rows of `dev` and `test` whose label `train` lacks count as wrong, and make a note.

    Raises `UserError` (file, line, remedy), also for empty texts.
    """
    table = read_table(train)
    fields = find_fields(table, text_field, pair_field, label_field)
    task = _task(table, fields, name or train.resolve().parent.name or "task", regression, metric)
    examples = _examples(table, fields, task)
    check_train(task, examples)
    deciding = _examples(read_table(dev), fields, task)
    held_out = {} if test is None else {"test": _examples(read_table(test), fields, task, optional=True)}
    notes = [
        f"{table.source}: {' and '.join(map(repr, spellings))} are taken for one label"
        for spellings in ([] if task.regression else spelled_twice(table, fields.label))
    ]
    notes += [
        f"{split.source}: no labels in '{fields.label}', so it is predicted only and nothing is measured on "
        "it"
        for split in held_out.values()
        if split.labels is None
    ]
    notes += [note for split in (deciding, *held_out.values()) for note in _shared(examples, split)]
    return assemble(task, examples, {"dev": deciding}, "dev", held_out, notes)


def _shared(train: Examples, split: Examples) -> list[str]:
    """What there is to say of rows whose texts were trained on."""
    trained = set(train.pairs)
    number = sum(pair in trained for pair in split.pairs)
    return (
        [f"{split.source}: {number:,} of {len(split):,} rows have texts that {train.source} has too"]
        if number
        else []
    )


def _task(table: ColumnTable, fields: Fields, name: str, regression: bool | None, metric: str | None) -> Task:
    """What a training set's labels ask for."""
    scored = are_scores(table.columns[fields.label]) if regression is None else regression
    names = () if scored else label_names(table, fields.label)
    labels = in_order({told_apart_by(name): name for name in sorted(names)}.values())
    metrics, score = _metrics(labels, metric)
    return Task(name, labels, metrics, score, pair=fields.second is not None)


def _metrics(labels: Sequence[str], metric: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The measures to compute, and those that count."""
    if metric is not None and metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    usual = _CLASS_METRICS if labels else REGRESSION_METRICS
    if metric is None:
        return usual, ("macro_f1",) if labels else usual
    if (metric in REGRESSION_METRICS) == bool(labels):
        raise UserError(
            f"metric '{metric}' is not for {'classes' if labels else 'scores'}: use {', '.join(usual)}"
        )
    if metric == "f1" and len(labels) != 2:
        raise UserError(
            f"metric 'f1' is for two labels, and there are {len(labels)}: use macro_f1 or micro_f1"
        )
    return tuple(dict.fromkeys((*usual, metric))), (metric,)


def find_fields(table: ColumnTable, text: str | None, pair: str | None, label: str | None) -> Fields:
    """The fields that were named, and the others by their usual names, whatever the case.

    Raises `UserError`, with the fields there are and the option to use, where a named one is missing and
    where none or several would do.
    """
    for field, option in ((text, TEXT), (pair, PAIR), (label, LABEL)):
        if field is not None:
            require(table, field, option)
    columns = {name.lower(): name for name in table.columns if name not in (text, pair, label)}
    if text is None and pair is None:
        first, second = _find_texts(table, columns)
    elif text is None:
        first, second = _only(table, _present(columns, SINGLES), "text", TEXT), pair
    else:
        first, second = text, pair
    if label is None:
        candidates = [name for name in _present(columns, LABELS) if name not in (first, second)]
        label = _only(table, candidates, "label", LABEL)
    if len({first, second, label}) < 3:
        raise UserError(
            f"{table.source}: {TEXT}, {PAIR} and {LABEL} must name different fields of {table.fields}"
        )
    return Fields(first, second, label)


def require(table: ColumnTable, field: str, option: str) -> None:
    """Raise `UserError` if a table has no such column."""
    if field not in table.columns:
        close = nearest(field, table.columns)
        hint = f"did you mean '{close}'? " if close else ""
        raise UserError(
            f"{table.source}: no field '{field}': {hint}fields are {table.fields}; choose with {option}"
        )


def _present(columns: Mapping[str, str], names: Iterable[str]) -> list[str]:
    return [columns[name] for name in names if name in columns]


def _find_texts(table: ColumnTable, columns: Mapping[str, str]) -> tuple[str, str | None]:
    """A pair of the usual names, or a single one of them that belongs to no pair."""
    pairs = [(columns[first], columns[second]) for first, second in PAIRS if {first, second} <= set(columns)]
    in_pairs = {name for pair in pairs for name in pair}
    singles = [name for name in _present(columns, SINGLES) if name not in in_pairs]
    if len(pairs) == 1 and not singles:
        return pairs[0]
    candidates = [*dict.fromkeys(name for pair in pairs for name in pair), *singles]
    return _only(table, candidates, "text", f"{TEXT} (and {PAIR} for pairs)"), None


def _only(table: ColumnTable, candidates: Sequence[str], what: str, option: str) -> str:
    """The one candidate."""
    if len(candidates) == 1:
        return candidates[0]
    shown = ", ".join(f"'{name}'" for name in candidates)
    why = f"{shown} could each hold it" if candidates else "no field has a usual name"
    raise UserError(
        f"{table.source}: which field holds the {what}? {why}; fields are {table.fields}; "
        f"choose with {option}"
    )


def _examples(table: ColumnTable, fields: Fields, task: Task, *, optional: bool = False) -> Examples:
    """One split; only an `optional` one may lack labels."""
    columns = []
    for field, option in zip(fields.texts, (TEXT, PAIR), strict=False):
        require(table, field, option)
        texts = texts_of(table, field)
        if empty := empty_rows(texts):
            more = f" (and {len(empty) - 1} more)" if empty[1:] else ""
            raise UserError(
                f"{table.where(empty[0])}: field '{field}' is empty{more}; fill it, or leave the row out"
            )
        columns.append(texts)
    labels: npt.NDArray[np.int64] | npt.NDArray[np.float64] | None = None
    unknown: tuple[str, ...] = ()
    if not optional or fields.label in table.columns:
        require(table, fields.label, LABEL)
        if not (optional and is_unlabelled(table.columns[fields.label]) and "-1" not in task.labels):
            labels, unknown = _labels(table, fields.label, task)
    second = columns[1] if task.pair else None
    ids = ids_of(table, (*fields.texts, fields.label))
    return Examples(columns[0], second, labels, ids, table.source, unknown)


def _labels(
    table: ColumnTable, field: str, task: Task
) -> tuple[npt.NDArray[np.int64] | npt.NDArray[np.float64], tuple[str, ...]]:
    """Scores float64[rows]; or label indices int64[rows], and the labels that are none of the task's."""
    if task.regression:
        return scores_of(table, field), ()
    names = label_names(table, field)
    known = {told_apart_by(name): number for number, name in enumerate(task.labels)}
    strange = {told_apart_by(name): name for name in names if told_apart_by(name) not in known}
    index = known | {key: len(known) + place for place, key in enumerate(strange)}
    indices = np.fromiter((index[told_apart_by(name)] for name in names), np.int64, len(names))
    return indices, tuple(strange.values())

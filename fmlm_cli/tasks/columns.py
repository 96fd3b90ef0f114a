"""From a table's columns to texts, labels and ids."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fmlm_cli.errors import UserError
from fmlm_cli.readers.jsonl import HALF_CHARACTER, kind
from fmlm_cli.readers.tables import ColumnTable

INDEX = ("index", "idx", "id")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")  # as JSON writes one
_EXACT = 2.0**53  # from here on not every whole number is a float of its own


def texts_of(table: ColumnTable, field: str) -> list[str]:
    """A column of texts. Raises `UserError` (file, line) for what is no string or does not fit in UTF-8."""
    values = table.columns[field]
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise UserError(
                f"{table.where(row)}: field '{field}' is {kind(value)}, not a string; mend the row"
            )
        if not value.isascii() and HALF_CHARACTER.search(value):
            raise UserError(
                f"{table.where(row)}: field '{field}' has half a character (\\ud800 to \\udfff, alone); "
                "mend the row"
            )
    return values


def empty_rows(texts: Sequence[str]) -> list[int]:
    """The rows whose text is nothing but white space."""
    return [row for row, text in enumerate(texts) if not text or text.isspace()]


def ids_of(table: ColumnTable, taken: Iterable[str]) -> list[str]:
    """What the index column says, or running numbers from 0; `taken` columns are something else."""
    for name in INDEX:
        if name in table.columns and name not in taken and None not in table.columns[name]:
            return [str(value) for value in table.columns[name]]
    return [str(row) for row in range(len(table))]


def number_of(value: Any) -> float | None:
    """A number, or a string that reads as one, perhaps not finite; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def are_scores(values: Sequence[Any]) -> bool:
    """Whether values are scores, not classes: all are numbers, but not all whole, or most broken ones.

    The latter so that a slip of the pen among scores is found, and not taken for a class.
    """
    numbers = [number_of(value) for value in values]
    broken = sum(number is not None and not number.is_integer() for number in numbers)
    return broken > 0 and (None not in numbers or 2 * broken > len(numbers))


def scores_of(table: ColumnTable, field: str) -> npt.NDArray[np.float64]:
    """A column of scores, float64[rows]. Raises `UserError` (file, line) for what is no finite number."""
    scores = [number_of(value) for value in table.columns[field]]
    for row, score in enumerate(scores):
        if score is None or not math.isfinite(score):
            value = table.columns[field][row]
            what = "finite" if score is not None else "a number"
            raise UserError(f"{table.where(row)}: score {value!r} is not {what}; mend the row")
    return np.asarray(scores, np.float64)


def label_names(table: ColumnTable, field: str) -> list[str]:
    """A column of labels as names: the same for the same label, in whatever kind of file it stands.

    Whole numbers that are equal are the same label, be they 2, 2.0 or the text "2.0"; any other text, such as
    "02", is a label of its own, without blanks around it. Raises `UserError` (file, line) for a row without a
    label.
    """
    names = []
    for row, value in enumerate(table.columns[field]):
        name = _label_name(value)
        if name is None:
            what = f"is {kind(value)}" if isinstance(value, list | dict) else "is empty"
            what = f"is {value}" if isinstance(value, float) else what
            raise UserError(f"{table.where(row)}: label field '{field}' {what}; mend the row or leave it out")
        names.append(name)
    return names


def _label_name(value: Any) -> str | None:
    """What `label_names` calls a label; None for what is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number_name(value) if math.isfinite(value) else None
    if not isinstance(value, str):
        return None
    text = value.strip()
    if _NUMBER.fullmatch(text) and float(text).is_integer():
        return _number_name(float(text), text)
    return text or None


def _number_name(number: float, text: str | None = None) -> str:
    """A whole number without its point; any other as it is written."""
    if number.is_integer() and abs(number) < _EXACT:
        return str(int(number))
    return str(number) if text is None else text


def told_apart_by(name: str) -> str:
    """What makes a label's name another label: not the case of true and false, which programs write as they
    like.
    """
    return name.lower() if name.lower() in ("true", "false") else name


def spelled_twice(table: ColumnTable, field: str) -> list[list[str]]:
    """Of each label that a column of texts holds in several spellings, such as 2 and 2.0, all of them."""
    spellings: dict[str, set[str]] = {}
    for name, value in zip(label_names(table, field), table.columns[field], strict=True):
        if isinstance(value, str):
            spellings.setdefault(told_apart_by(name), set()).add(value.strip())
    return [sorted(texts) for texts in spellings.values() if len(texts) > 1]


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names, by value if all of them are numbers, else by alphabet."""
    distinct = sorted(set(names))
    numbers = [number_of(name) for name in distinct]
    if any(number is None or math.isnan(number) for number in numbers):
        return tuple(distinct)
    return tuple(name for _, name in sorted(zip(numbers, distinct, strict=True)))


def is_unlabelled(values: Sequence[Any]) -> bool:
    """Whether a column holds no labels: nothing at all, or -1 in every row, as the Hub writes it."""
    return all(value is None or value == "" for value in values) or all(
        number_of(value) == -1 for value in values
    )

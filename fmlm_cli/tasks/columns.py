"""From a table's columns to texts, labels and ids."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fmlm_cli.errors import UserError
from fmlm_cli.readers.jsonl import HALF_CHARACTER, kind
from fmlm_cli.readers.tables import ColumnTable

INDEX = ("index", "idx", "id")


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
    """A column of labels as names. Raises `UserError` (file, line) for a row without one."""
    names = []
    for row, value in enumerate(table.columns[field]):
        name = _label_name(value)
        if name is None:
            what = "is empty" if value is None or isinstance(value, str) else f"is {kind(value)}"
            raise UserError(f"{table.where(row)}: label field '{field}' {what}; mend the row or leave it out")
        names.append(name)
    return names


def _label_name(value: Any) -> str | None:
    """A label's name: strings without blanks around, whole numbers without a point, booleans as in JSON."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) else None


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names, by value if all of them are numbers, else by alphabet."""
    distinct = set(names)
    numbers = {name: number_of(name) for name in distinct}
    if None in numbers.values():
        return tuple(sorted(distinct))
    return tuple(sorted(distinct, key=lambda name: (numbers[name], name)))


def is_unlabelled(values: Sequence[Any]) -> bool:
    """Whether a column holds no labels: nothing at all, or -1 in every row, as the Hub writes it."""
    return all(value is None or value == "" for value in values) or all(
        number_of(value) == -1 for value in values
    )

"""Rows of cells: csv and tsv, row by row, each with the number of its first line.

csv is read with the quoting of Python's `csv` (fields may run over lines). tsv is read without any, as GLUE's
files and most on the Hub are written: a `"` is text, and a field can hold neither a tab nor a line end.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from fmlm_cli.errors import UserError
from fmlm_cli.readers.lines import Line

Record = tuple[int, list[str]]  # the number of its first line, and its cells

_REMEDY = {
    "csv": "quote fields that hold commas",
    "tsv": "fields of a .tsv hold no tabs or line ends; quoted ones go in a .csv",
}


class _TooLongError(Exception):
    """A row does not end where it should."""


class _Feed:
    """Lines for `csv.reader`, which takes as many as a row has; where the row began, and how long it is."""

    def __init__(self, lines: Iterable[Line], most: int) -> None:
        self._lines, self._most = iter(lines), most
        self.begin, self.size = 1, 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        number, text = next(self._lines)
        if not self.size:
            self.begin = number
        self.size += len(text) + 1
        if self.size > self._most + 1:
            raise _TooLongError
        return text + "\n"


def csv_records(lines: Iterable[Line], source: object, most: int) -> Iterator[Record]:
    """The rows of comma-separated fields with quoting, of `most` characters each at most.

    Raises `UserError` (place, remedy) for a longer one, as one is whose quote is not closed: so memory stays
    bounded.
    """
    csv.field_size_limit(max(csv.field_size_limit(), most))  # of the process; rows are bounded here
    feed = _Feed(lines, most)
    try:
        for cells in csv.reader(feed, strict=True):
            yield feed.begin, cells
            feed.size = 0
    except csv.Error as error:
        unclosed = "a quote is not closed" if "unexpected end" in str(error) else error
        raise UserError(
            f"{source}:{feed.begin}: not valid csv ({unclosed}); mend the row that begins here"
        ) from None
    except _TooLongError:
        raise too_long_row(f"{source}:{feed.begin}", most) from None


def too_long_row(where: str, most: int) -> UserError:
    """An error for a row of csv of which more would have to be in memory than there may be."""
    return UserError(
        f"{where}: the row that begins here is longer than {most:,} characters, or a quote in it is not "
        "closed; mend it"
    )


def tsv_records(lines: Iterable[Line]) -> Iterator[Record]:
    """The rows of tab-separated fields without quoting."""
    return ((number, text.rstrip("\r").split("\t")) for number, text in lines)


def unique_names(names: Sequence[str], where: str) -> None:
    """Raise `UserError` where two columns have one name."""
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where}: {names.count(name)} columns are named '{name}': rename all but one")


def no_such_number(
    cells: Sequence[str], names: Sequence[str], kind: Literal["csv", "tsv"], where: str
) -> UserError:
    """An error for a row that has not as many cells as there are columns."""
    return UserError(f"{where}: {len(cells)} columns, not {len(names)} as above; {_REMEDY[kind]}")

"""Files of rows as tables: csv, tsv, JSON lines and parquet, each row with the place where it stands."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from fmlm_cli.errors import UserError, one_line
from fmlm_cli.readers.bytes import readable
from fmlm_cli.readers.compression import ENDINGS, split_name
from fmlm_cli.readers.delimited import Record, csv_records, no_such_number, tsv_records, unique_names
from fmlm_cli.readers.jsonl import parsed_object
from fmlm_cli.readers.lines import LONGEST, lines_of

EXTENSIONS = f".jsonl, .csv, .tsv (each also compressed: {ENDINGS}) and .parquet"
_SHOWN_FIELDS = 20
_EXAMPLE = '{"text": "...", "label": "..."}'


@dataclass(frozen=True)
class ColumnTable:
    """Columns of equal length by name. `lines`: on which each row begins; None where rows have no lines.

    `broken`: how many rows were left out because they had not the header's number of columns.
    """

    source: str
    columns: Mapping[str, list[Any]]
    lines: Sequence[int] | None = None
    broken: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ())) if self.lines is None else len(self.lines)

    def where(self, row: int) -> str:
        """The place of a row, for messages."""
        return f"{self.source}, row {row + 1}" if self.lines is None else f"{self.source}:{self.lines[row]}"

    def kept(self, rows: Sequence[int]) -> "ColumnTable":
        """The same with these rows only."""
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        lines = None if self.lines is None else [self.lines[row] for row in rows]
        return ColumnTable(self.source, columns, lines, self.broken)

    @property
    def fields(self) -> str:
        """The columns' names, for messages."""
        names = list(self.columns)
        shown = ", ".join(f"'{name}'" for name in names[:_SHOWN_FIELDS])
        return (
            f"{shown} and {len(names) - _SHOWN_FIELDS} more"
            if len(names) > _SHOWN_FIELDS
            else shown or "none"
        )


def read_table(path: Path) -> ColumnTable:
    """Read a file by its extension. Raises `UserError` (file, line, remedy) for whatever is wrong with it."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: give a {EXTENSIONS} file in it")
    if not path.exists():
        raise UserError(f"{path}: no such file, seen from {Path.cwd()}; check the name")
    name, codec = split_name(path.name)
    ending = Path(name).suffix.lower()
    if ending == ".parquet" and codec is None:
        return read_parquet([path])
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": read_tsv}
    if ending not in readers:
        raise UserError(f"{path}: unknown extension; labelled sets are {EXTENSIONS} files")
    return readers[ending](path)


def read_parquet(paths: Sequence[Path]) -> ColumnTable:
    """Read the parts of one split, in order."""
    source = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and the parts after it"
    with readable(paths[0]):
        try:
            table = pa.concat_tables([pq.ParquetFile(path).read() for path in paths])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise UserError(
                f"{source}: not parquet, or damaged ({one_line(error)}); fetch it again"
            ) from error
    unique_names(table.column_names, source)
    if not table.num_rows:
        raise _no_rows(source)
    return ColumnTable(source, {name: table[name].to_pylist() for name in table.column_names})


def read_tsv(
    path: Path,
    *,
    header: Sequence[str] | None = None,
    only: Container[str] | None = None,
    skip_broken: bool = False,
) -> ColumnTable:
    """Read tab-separated lines without quoting.

    `header`: the columns' names, for a file whose first line has none of them. `only`: the columns to keep,
    as MNLI's parses fill most of it. `skip_broken`: leave rows with other than the header's number of columns
    out and count them.
    """
    return _table(path, tsv_records(lines_of(path)), "tsv", header=header, only=only, skip_broken=skip_broken)


def _read_csv(path: Path) -> ColumnTable:
    """Read comma-separated fields with quoting."""
    return _table(path, csv_records(lines_of(path), path, LONGEST), "csv")


def _table(
    path: Path,
    records: Iterable[Record],
    kind: Literal["csv", "tsv"],
    *,
    header: Sequence[str] | None = None,
    only: Container[str] | None = None,
    skip_broken: bool = False,
) -> ColumnTable:
    """Rows of cells as columns; blank lines are nothing."""
    rows = ((number, cells) for number, cells in records if cells not in ([], [""]))
    number, names = next(rows, (1, []))
    first = []
    if header is not None and not set(names) & set(header):
        names, first = list(header), [(number, names)]
    unique_names(names, f"{path}:{number}")
    places = [place for place, name in enumerate(names) if only is None or name in only]
    values: list[list[str]] = [[] for _ in places]
    lines, broken = [], 0
    for number, cells in chain(first, rows):
        if len(cells) != len(names):
            if skip_broken:
                broken += 1
                continue
            raise no_such_number(cells, names, kind, f"{path}:{number}")
        for column, place in zip(values, places, strict=True):
            column.append(cells[place])
        lines.append(number)
    if not lines:
        raise _no_rows(path)
    return ColumnTable(
        str(path), {names[place]: column for place, column in zip(places, values, strict=True)}, lines, broken
    )


def _read_jsonl(path: Path) -> ColumnTable:
    """Read one JSON object a line; a field that a row lacks is None in it. Blank lines are nothing."""
    rows, lines = [], []
    for number, text in lines_of(path):
        if text.strip():
            rows.append(parsed_object(text, f"{path}:{number}", _EXAMPLE))
            lines.append(number)
    if not rows:
        raise _no_rows(path)
    names = dict.fromkeys(name for row in rows for name in row)
    return ColumnTable(str(path), {name: [row.get(name) for row in rows] for name in names}, lines)


def _no_rows(source: object) -> UserError:
    return UserError(f"{source}: the file holds no rows; give another")

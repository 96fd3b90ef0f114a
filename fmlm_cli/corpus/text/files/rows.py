"""The documents of files of rows: JSON lines and arrays, csv and tsv, parquet and Arrow; each row is one."""

from collections.abc import Callable, Iterator
from typing import Literal

from fmlm_cli.corpus.text.documents import Found, Kind, ReadOptions, found_in_columns
from fmlm_cli.corpus.text.fields import joined
from fmlm_cli.corpus.text.files.paths import SourceFile
from fmlm_cli.corpus.text.files.plain import decoded, plain_documents, text_blocks
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.errors import UserError
from fmlm_cli.readers.columnar import arrow_batches, parquet_batches
from fmlm_cli.readers.delimited import csv_records, no_such_number, too_long_row, unique_names
from fmlm_cli.readers.json_array import array_elements
from fmlm_cli.readers.jsonl import kind, parsed_object
from fmlm_cli.readers.lines import Line, split_lines

_ESCAPED = 6  # bytes in which JSON may write a character (\u00e9)
_OTHER_FIELDS = 1 << 20  # bytes of a row beside its text, at least
_EXAMPLE = '{"text": "..."}'


def found_in(file: SourceFile, options: ReadOptions, stats: ReadStats) -> Iterator[Found]:
    """What a file holds, in order. Raises `UserError` (file, place, remedy)."""
    return _READERS[file.kind](file, options, stats)


def place_in(file: SourceFile, place: int) -> str:
    """A line of a file, or a row of one that has no lines."""
    return f"{file.path}, row {place}" if file.kind in ("parquet", "arrow") else f"{file.path}:{place}"


def _most(options: ReadOptions) -> int:
    """Bytes of a row as it may be written."""
    return _ESCAPED * options.most_characters + _OTHER_FIELDS


def _lines(file: SourceFile, options: ReadOptions, stats: ReadStats) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank."""
    lines = split_lines(text_blocks(file, stats), _most(options))
    return ((number, line) for number, line in enumerate(lines, start=1) if line and not line.isspace())


def _far_too_long(file: SourceFile, number: int, options: ReadOptions) -> Found:
    """A row of which only a beginning is there; its text is not."""
    if options.on_long == "cut" and options.max_characters is None:
        raise UserError(
            f"{file.path}:{number}: a row that is longer than {_most(options):,} bytes cannot be cut; pass "
            "--on-long-document skip, or a larger --max-document-chars"
        )
    return Found(number, "", None, True)


def _of_jsonl(file: SourceFile, options: ReadOptions, stats: ReadStats) -> Iterator[Found]:
    most, text_of = _most(options), options.fields.of_object
    for number, raw in _lines(file, options, stats):
        if len(raw) > most:
            yield _far_too_long(file, number, options)
            continue
        line, complaint = decoded(raw, file)
        if complaint and options.on_bad_text != "replace":
            yield Found(number, "", complaint)  # not parsed: it may not even be JSON any more
            continue
        where = f"{file.path}:{number}"
        yield Found(number, text_of(parsed_object(line, where, _EXAMPLE), where), complaint)


def _of_json(file: SourceFile, options: ReadOptions, stats: ReadStats) -> Iterator[Found]:
    for number, value in array_elements(text_blocks(file, stats), file.path, _most(options)):
        where = f"{file.path}:{number}"
        if not isinstance(value, dict):
            raise UserError(f"{where}: {kind(value)}, not an object; write each element as {_EXAMPLE}")
        yield Found(number, options.fields.of_object(value, where))


def _of_csv(file: SourceFile, options: ReadOptions, stats: ReadStats) -> Iterator[Found]:
    most = _most(options)

    def lines() -> Iterator[Line]:
        for number, raw in enumerate(split_lines(text_blocks(file, stats), most), start=1):
            if len(raw) > most:
                raise too_long_row(f"{file.path}:{number}", most)
            yield number, raw.decode(errors="surrogateescape")

    return _of_records(csv_records(lines(), file.path, most), file, options, "csv")


def _of_tsv(file: SourceFile, options: ReadOptions, stats: ReadStats) -> Iterator[Found]:
    most = _most(options)
    records = (
        (number, None if len(raw) > most else raw.decode(errors="surrogateescape").split("\t"))
        for number, raw in _lines(file, options, stats)
    )
    return _of_records(records, file, options, "tsv")


def _of_records(
    records: Iterator[tuple[int, list[str] | None]],
    file: SourceFile,
    options: ReadOptions,
    form: Literal["csv", "tsv"],
) -> Iterator[Found]:
    """The texts of rows of cells, after a header; no cells stand for a row that is far too long."""
    rows = (record for record in records if record[1] not in ([], [""]))
    number, header = next(rows, (1, []))
    if not header:
        return
    where = f"{file.path}:{number}"
    unique_names([name for name in header if name in options.fields.names], where)
    places = options.fields.of_header(header, where)
    only = places[0] if len(places) == 1 else None
    for number, cells in rows:
        if cells is None:
            yield _far_too_long(file, number, options)
        elif len(cells) != len(header):
            raise no_such_number(cells, header, form, f"{file.path}:{number}")
        else:
            yield Found(number, cells[only] if only is not None else joined(cells[place] for place in places))


def _of_columns(file: SourceFile, options: ReadOptions, stats: ReadStats) -> Iterator[Found]:
    batches = parquet_batches if file.kind == "parquet" else arrow_batches
    before, row = stats.disk_bytes, 1
    for columns, read in batches(file.path, lambda schema: options.fields.of_schema(schema, str(file.path))):
        yield from found_in_columns(columns, row, options)
        row += len(columns[0])
        stats.disk_bytes = before + int(read * file.size)
    stats.disk_bytes = before + file.size


_Reader = Callable[[SourceFile, ReadOptions, ReadStats], Iterator[Found]]
_READERS: dict[Kind, _Reader] = {
    "txt": plain_documents,
    "jsonl": _of_jsonl,
    "json": _of_json,
    "csv": _of_csv,
    "tsv": _of_tsv,
    "parquet": _of_columns,
    "arrow": _of_columns,
}

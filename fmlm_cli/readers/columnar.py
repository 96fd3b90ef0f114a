"""Files of columns: parquet and Arrow, batch by batch, of which only the wanted columns are read.

Whatever is wrong with one is a `UserError` that names it, and the row group or batch where there is one.
"""

import codecs
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fmlm_cli.errors import UserError, one_line
from fmlm_cli.readers.bytes import readable

Column = tuple[str, ...]  # the names that lead to it, through structs
Choose = Callable[[pa.Schema], Sequence[Column]]

_MOST_ROWS = 512  # in a batch
_BATCH = 8 << 20  # bytes that a batch should have at most
_LOOKED_AT = 8  # rows
_BUFFER = 1 << 20
_STRINGS = (pa.string(), pa.large_string())
_AS_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}
_ARROW_FILE = b"ARROW1"  # how the format begins that is no stream
_MESSAGE = b"\xff" * 4  # how a message of a stream begins; the last one has no length


class Batch(NamedTuple):
    """Some rows: the wanted columns, and which share of the file has been read with them."""

    columns: list[pa.Array]
    read: float


def parquet_batches(path: Path, choose: Choose) -> Iterator[Batch]:
    """The rows of a parquet file; `choose` says, by its schema, which columns are wanted."""
    with readable(path), path.open("rb") as disk:
        with _damaged(path, "at its end, where a parquet file says what it holds"):
            file = pq.ParquetFile(disk, pre_buffer=False, buffer_size=_BUFFER)
        columns = choose(file.schema_arrow)
        names = [".".join(column) for column in columns]
        done, groups = 0, file.num_row_groups
        for index in range(groups):
            with _damaged(path, f"in row group {index + 1} of {groups}"):
                rows = _batch_rows(file, index, names)
                for batch in file.iter_batches(rows, [index], names, use_threads=False):
                    done += len(batch)
                    yield Batch([reached(batch, column) for column in columns], done / file.metadata.num_rows)


def _batch_rows(file: pq.ParquetFile, index: int, names: Sequence[str]) -> int:
    """As many rows as make a batch of moderate size, in a row group."""
    group = file.metadata.row_group(index)
    chunks = [group.column(number) for number in range(group.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema in names]
    size = max(sum(chunk.total_uncompressed_size for chunk in chunks) / max(group.num_rows, 1), 1)
    encodings = {encoding for chunk in chunks for encoding in chunk.encodings}
    if (
        group.num_rows
        and _MOST_ROWS * size < _BATCH
        and any("DICTIONARY" in encoding for encoding in encodings)
    ):
        # Values that occur often stand there once: what they come to is seen by reading a few.
        first = next(file.iter_batches(_LOOKED_AT, [index], names, use_threads=False))
        size = max(size, first.nbytes / len(first))
    return max(1, min(_MOST_ROWS, int(_BATCH / size)))


def arrow_batches(path: Path, choose: Choose) -> Iterator[Batch]:
    """The same of an Arrow file, in either of its two formats: for random access (as Feather is), or a stream
    (as `datasets` writes it).
    """
    with readable(path):
        with path.open("rb") as disk:
            begins = disk.read(len(_ARROW_FILE))
        batches = _of_arrow_file if begins == _ARROW_FILE else _of_arrow_stream
        for columns, read in batches(path, choose):
            for begin in range(0, len(columns[0]), _MOST_ROWS):
                yield Batch([column.slice(begin, _MOST_ROWS) for column in columns], read)


def _of_arrow_file(path: Path, choose: Choose) -> Iterator[Batch]:
    """Batch by batch, each mapped into memory only while it is read: it may be as large as the file."""
    with (
        _damaged(path, "at its end, where an Arrow file says what it holds"),
        pa.memory_map(str(path)) as disk,
    ):
        reader = pa.ipc.open_file(disk)
        schema, number = reader.schema, reader.num_record_batches
    columns = choose(schema)
    options = _only(columns, schema)
    for index in range(number):
        with _damaged(path, f"in batch {index + 1} of {number}"), pa.memory_map(str(path)) as disk:
            batch = pa.ipc.open_file(disk, options=options).get_batch(index)
            yield Batch(_sound(batch, columns), (index + 1) / number)


def _of_arrow_stream(path: Path, choose: Choose) -> Iterator[Batch]:
    size = max(path.stat().st_size, 1)
    with path.open("rb") as disk:
        with _damaged(path, "at its beginning"):
            schema = pa.ipc.open_stream(disk).schema
        columns = choose(schema)
        disk.seek(0)
        reader = pa.ipc.open_stream(disk, options=_only(columns, schema))
        number = 1
        while True:
            with _damaged(path, f"in batch {number}"):
                batch = next(reader, None)
                arrays = None if batch is None else _sound(batch, columns)
            if arrays is None:
                break
            yield Batch(arrays, disk.tell() / size)
            number += 1
        disk.seek(0)
        end = _MESSAGE + bytes(4) if disk.read(4) == _MESSAGE else bytes(4)  # the latter in old streams
        disk.seek(-len(end), 2)
        if disk.read() != end:  # pyarrow takes the loss of whole batches for the end
            raise UserError(
                f"{path}: the Arrow file is cut short after batch {number - 1}; make or fetch it again"
            )


def _only(columns: Sequence[Column], schema: pa.Schema) -> pa.ipc.IpcReadOptions:
    """To read the wanted columns alone."""
    places = sorted({schema.names.index(column[0]) for column in columns})
    # Choosing takes a copy of what is chosen: nothing is chosen where it would be all.
    return pa.ipc.IpcReadOptions(included_fields=[] if len(places) == len(schema) else places)


def _sound(batch: pa.RecordBatch, columns: Sequence[Column]) -> list[pa.Array]:
    """The columns, in which no number points out of what was read; pyarrow believes a file in that.

    It would be as strict with text that is no UTF-8, of which others decide: text is looked at as bytes.
    """
    batch.validate()
    arrays = [reached(batch, column) for column in columns]
    for array in arrays:
        as_bytes = _AS_BYTES.get(array.type)
        (array.view(as_bytes) if as_bytes else array).validate(full=True)
    return arrays


def reached(batch: pa.RecordBatch | pa.Table, column: Column) -> pa.Array:
    """A column of a batch; an inner one where it leads through structs, null where one of these is."""
    array = batch.column(column[0])
    return pc.struct_field(array, list(column[1:])) if column[1:] else array


def texts_in(column: pa.Array, most: int) -> tuple[list[str | None], list[int]]:
    """The texts of a column, and which of them are the beginnings only of those of more than `most` bytes.

    Bytes that are no UTF-8 come as half characters (`surrogateescape`).
    """
    if pa.types.is_null(column.type):
        return [None] * len(column), []
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type in (pa.string_view(), pa.binary_view()):  # pyarrow does not tell their lengths
        column = column.cast(pa.large_binary())
    if (pc.max(pc.binary_length(column)).as_py() or 0) <= most:
        with contextlib.suppress(UnicodeDecodeError, pa.ArrowInvalid):
            return (column if column.type in _STRINGS else column.cast(pa.large_string())).to_pylist(), []
    column = column.view(_AS_BYTES.get(column.type, column.type))
    cut = pc.indices_nonzero(pc.greater(pc.binary_length(column), most)).to_pylist()
    texts = pc.binary_slice(column, 0, most).to_pylist()
    return [None if text is None else _beginning(text) for text in texts], cut


def _beginning(text: bytes) -> str:
    """Bytes as text; the last character may have been cut in two."""
    return codecs.utf_8_decode(text, "surrogateescape", True)[0]


@contextlib.contextmanager
def _damaged(path: Path, where: str) -> Iterator[None]:
    """Turn what pyarrow says of a file's contents into a `UserError`."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:  # the last for a length beyond all
        if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise UserError(
            f"{path}: cut short or damaged {where} ({one_line(error)}); make or fetch it again"
        ) from error

"""Small files for tests of labelled sets, and the one line with which something is refused."""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmlm_cli.errors import UserError


def write(path: Path, content: bytes | str) -> Path:
    """Write a file, compressed where its name says so, and the folders above it."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_rows(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Write columns in the form that the file's name says: .tsv, .jsonl or .parquet."""
    rows = list(zip(*columns.values(), strict=True))
    if path.suffix == ".parquet":
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(dict(columns)), path)
        return path
    if path.suffix == ".tsv":
        return write(path, "".join("\t".join(map(str, row)) + "\n" for row in [tuple(columns), *rows]))
    return write(path, "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))


def refused(function: Callable[..., Any], *given: Any, **settings: Any) -> str:
    """What the user is told."""
    with pytest.raises(UserError) as caught:
        function(*given, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)

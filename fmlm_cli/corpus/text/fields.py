"""Which fields of a row hold its text: of a JSON object, of a row of cells, of columns."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from fmlm_cli.errors import UserError, nearest
from fmlm_cli.readers.columnar import Column
from fmlm_cli.readers.jsonl import kind

BETWEEN = "\n\n"  # a blank line
_SHOWN_FIELDS = 20
_DEPTH = 4  # to which names of inner fields are shown


@dataclass(frozen=True)
class TextFields:
    """The names of the fields, in order; one may lead to an inner field with dots ("meta.text")."""

    names: tuple[str, ...] = ("text",)

    @classmethod
    def parse(cls, text: str) -> "TextFields":
        """Names with commas between them. Raises `UserError` where one is empty."""
        names = tuple(name.strip() for name in text.split(","))
        if not all(names):
            raise UserError(f"--text-field '{text}': write names with commas between them, as in title,text")
        return cls(names)

    @property
    def joins(self) -> bool:
        """Whether there are several, so that a text is put together."""
        return len(self.names) > 1

    def of_object(self, value: Mapping[str, Any], where: str) -> str:
        """The text of a JSON object; null is none. Raises `UserError` (place, which fields there are)."""
        if not self.joins and type(text := value.get(self.names[0])) is str:
            return text
        return joined([_text_at(value, name, where) for name in self.names])

    def of_header(self, header: Sequence[str], where: str) -> list[int]:
        """At which places of a row of cells they stand. Raises `UserError`."""
        for name in self.names:
            if name not in header:
                raise no_field(where, name, header)
        return [header.index(name) for name in self.names]

    def of_schema(self, schema: pa.Schema, where: str) -> list[Column]:
        """The columns that hold them. Raises `UserError` for one that is not there or holds no text."""
        return [_column(schema, name, where) for name in self.names]


def joined(parts: Iterable[str | None]) -> str:
    """Several texts as one, with a blank line between them; what is null or empty is left out."""
    return BETWEEN.join(part for part in parts if part and not part.isspace())


def no_field(where: str, name: str, names: Iterable[str]) -> UserError:
    """An error for a missing field that tells which ones there are."""
    shown = list(islice(names, _SHOWN_FIELDS + 1))
    close = nearest(name, shown)
    hint = f"did you mean '{close}'? " if close else ""
    more = ", ..." if len(shown) > _SHOWN_FIELDS else ""
    listed = ", ".join(map(repr, shown[:_SHOWN_FIELDS])) or "none"
    return UserError(
        f"{where}: no field '{name}': {hint}fields are {listed}{more}; choose one with --text-field"
    )


def _text_at(value: Mapping[str, Any], field: str, where: str) -> str | None:
    inner: Any = value
    for name in [field] if field in value else field.split("."):
        if not isinstance(inner, dict) or name not in inner:
            raise no_field(where, field, _names_in(value))
        inner = inner[name]
    if inner is not None and not isinstance(inner, str):
        raise UserError(
            f"{where}: field '{field}' is {kind(inner)}, not a string; choose another --text-field"
        )
    return inner


def _names_in(value: Mapping[str, Any], prefix: str = "", depth: int = _DEPTH) -> Iterator[str]:
    """The names by which to reach what is in an object, inner ones with dots."""
    for name, inner in value.items():
        if isinstance(inner, dict) and inner and depth > 1:
            yield from _names_in(inner, f"{prefix}{name}.", depth - 1)
        else:
            yield prefix + name


def _column(schema: pa.Schema, field: str, where: str) -> Column:
    column = (field,) if field in schema.names else tuple(field.split("."))
    inner: Any = schema
    for name in column:
        fields = list(inner) if isinstance(inner, pa.Schema) or pa.types.is_struct(inner) else []
        inner = next((other.type for other in fields if other.name == name), None)
        if inner is None:
            raise no_field(where, field, _columns_in(schema))
    if not _holds_text(inner):
        raise UserError(f"{where}: column '{field}' holds {inner}, not text; choose another --text-field")
    return column


def _columns_in(fields: Iterable[pa.Field], prefix: str = "", depth: int = _DEPTH) -> Iterator[str]:
    for field in fields:
        if pa.types.is_struct(field.type) and depth > 1:
            yield from _columns_in(field.type, f"{prefix}{field.name}.", depth - 1)
        else:
            yield prefix + field.name


def _holds_text(type_: pa.DataType) -> bool:
    """Whether a column's type is one of strings, of bytes (as old writers mark text), or of nothing."""
    if pa.types.is_dictionary(type_):
        return _holds_text(type_.value_type)
    tests = (
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_null),
    )
    return any(test(type_) for test in tests)

"""Results as JSON has them, and back."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter

Result = TypeVar("Result")


def as_json(value: Any) -> Any:
    """Plain values: fields by name in their order, keys as text, lists, None for what is no finite number."""
    if is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def from_json(kind: type[Result], tree: Any) -> Result:
    """A result of this kind from what `as_json` made of one; names that it does not have are passed over.

    ValueError, with the place, for what is missing or of another kind.
    """
    return TypeAdapter(kind).validate_python(tree)

"""Which settings decide a result: said on each setting, asked here by whoever goes on with results."""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel

T = TypeVar("T")

_FREE = "decides no result as it is written"

# The type of a setting, or of a group, that may differ between two calls of which one goes on with what the
# other left: it has no part in the result, as `device`, or what it comes to is recorded in its place: the
# contents of data and weights, the precision that `auto` becomes. Every other setting decides.
Free = Annotated[T, _FREE]


def deciding(settings: BaseModel, prefix: str = "", only: Collection[str] | None = None) -> dict[str, Any]:
    """The settings that decide a result, flat, in plain values of JSON and in the order of their definition.

    Names are dotted, with `prefix` before them; options of the user's own count one by one, as
    `masking.options.p`. `only`: names of settings and of whole groups; the others are left out.
    """
    decided = _decided(type(settings), settings.model_dump(mode="json"))
    return {prefix + name: value for name, value in decided if only is None or _within(name, only)}


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of what is not the same in two answers of `deciding`; what one lacks counts as None there."""
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def _decided(
    section: type[BaseModel], tree: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    for name, field in section.model_fields.items():
        if _FREE in field.metadata:
            continue
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _decided(inner, tree[name], f"{prefix}{name}.")
        else:
            yield from _leaves(prefix + name, tree[name])


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, part in value.items():
        yield from _leaves(f"{name}.{key}", part)


def _within(name: str, groups: Collection[str]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)

"""Made-up results of any type, by its fields."""

import functools
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@functools.cache
def made(kind: Any, floats: SearchStrategy[float] = FINITE) -> SearchStrategy[Any]:
    """Values of a type that results are made of; `floats`: what its numbers are drawn from."""
    origin, arguments = get_origin(kind), get_args(kind)
    plain = {
        bool: st.booleans(),
        int: st.integers(),
        float: floats,
        str: st.text(max_size=4),
        type(None): st.none(),
        Any: st.none() | st.booleans() | st.integers() | floats | st.text(max_size=3),
    }
    if kind in plain:
        return plain[kind]
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.builds(kind, **{field.name: made(hints[field.name], floats) for field in fields(kind)})
    if origin in (Union, types.UnionType):
        return st.one_of(*(made(argument, floats) for argument in arguments))
    if origin is tuple:
        return st.lists(made(arguments[0], floats), max_size=2).map(tuple)
    if origin is Sequence:
        return st.lists(made(arguments[0], floats), max_size=2)
    assert origin is Mapping, kind
    keys, values = (made(argument, floats) for argument in arguments)
    return st.dictionaries(keys, values, max_size=2)

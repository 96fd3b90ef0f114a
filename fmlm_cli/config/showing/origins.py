"""Where the value of each setting comes from: a line of a file, a flag, --set, or its default."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from fmlm_cli.config.layers import line_in, nested, parse_assignments, read_yaml, sets
from fmlm_cli.config.section import Section

_COLUMN = 44  # where comments begin, if they can


@dataclass(frozen=True)
class Origins:
    """What a command's settings are made of.

    `by_flag`: which flag set which setting, by dotted names. `lacking`: settings without any value.
    """

    section: type[Section]
    config: Path | None = None
    by_flag: Mapping[str, str] = field(default_factory=dict)
    assignments: Sequence[str] = ()
    lacking: Collection[str] = ()

    def of(self, name: str) -> str | None:
        """Where a setting's value stands, the highest layer that decides it; None: it is the default."""
        if sets(self._assigned, name):
            return "--set"
        flags = [flag for setting, flag in self.by_flag.items() if sets(nested({setting: 0}), name)]
        if flags:
            return flags[-1]
        if self.config is not None and sets(self._from_file, name):
            return f"{self.config}:{line_in(self.config, name)}"
        return None

    @cached_property
    def _assigned(self) -> dict[str, Any]:
        return parse_assignments(self.assignments, self.section)

    @cached_property
    def _from_file(self) -> dict[str, Any]:
        return read_yaml(self.config, self.section) if self.config is not None else {}


def annotated_yaml(settings: Section, origins: Origins) -> str:
    """All settings as YAML, a line each, with the origin of each in a comment; itself a valid file."""
    tree = settings.model_dump(mode="json")
    return "".join(f"{line}\n" for line in _lines(type(settings), tree, origins, ""))


def _lines(section: type[BaseModel], tree: Mapping[str, Any], origins: Origins, prefix: str) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for name, described in section.model_fields.items():
        inner = described.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield f"{indent}{name}:"
            yield from _lines(inner, tree[name], origins, f"{prefix}{name}.")
        else:
            line = f"{indent}{name}: {_value(tree[name])}"
            yield f"{line:<{_COLUMN}}  # {_comment(_origin(prefix + name, origins))}"


def _origin(name: str, origins: Origins) -> str:
    return "to be given" if name in origins.lacking else origins.of(name) or "default"


def _value(value: Any) -> str:
    """A value of JSON as YAML, in one line."""
    listed = [value]  # for a plain value by itself would end in a line of three dots
    text = _flow(listed, allow_unicode=True)
    if len(text.splitlines()) > 1:  # some letters are line ends to YAML
        text = _flow(listed, default_style='"')
    return text[1:-1]


def _flow(value: Any, **style: Any) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=2**31, **style)).rstrip(
        "\n"
    )


def _comment(text: str) -> str:
    """A text, such as a path, without what would end a comment."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

"""YAML as settings need it: no dates, no objects, nothing given twice, and of bounded size and depth."""

from pathlib import Path
from typing import Any

import yaml

from fmlm_cli.errors import UserError, one_line, shortened

_LONGEST = 10_000_000  # characters
_LARGEST = 100_000  # values; aliases, each of which stands for what it repeats, could make any number of them
_DEEPEST = 40  # values within each other; PyYAML calls itself for each


class BadYaml(ValueError):
    """Text that cannot be settings; `line` counts from 1, and is None where it is not known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


class Loader(yaml.SafeLoader):
    """YAML without dates, for a run's folder may be called 2024-05-01, and without names that come twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class declares it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; YAML itself would take the last of equal names."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"'{key.value}' is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return dict(super().construct_mapping(node, deep))


class _QuickLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # libyaml's, if there
    """The same by libyaml."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


def parsed_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """The root of the nodes, which know their lines, and the value of a text of YAML. Raises `BadYaml`."""
    if len(text) > _LONGEST:
        raise BadYaml(f"settings have at most {_LONGEST:,} characters")
    try:
        _check_extent(text)
        loader = Loader(text)
        root = loader.get_single_node()
        return root, None if root is None else loader.construct_document(root)
    except BadYaml:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or one_line(error)
        raise BadYaml(reason, mark.line + 1 if mark else None) from None
    except Exception as error:  # PyYAML lets through whatever a tag such as !!int meets in a value
        raise BadYaml(one_line(error)) from None


def yaml_value(text: str, where: str) -> Any:
    """A value as it is written on a command line. `where`: what it was given to, for the `UserError`."""
    try:
        return parsed_yaml(text)[1]
    except BadYaml as error:
        raise UserError(f"{where}: '{shortened(text)}' is not a YAML value ({error})") from None


def yaml_file(path: Path) -> tuple[yaml.Node | None, Any]:
    """The same of a file. Raises `UserError`, with the line, and FileNotFoundError."""
    try:
        with path.open(encoding="utf-8") as file:
            return parsed_yaml(file.read(_LONGEST + 1))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a UTF-8 text file") from None
    except FileNotFoundError:
        raise
    except OSError as error:  # a folder, too, or a name that is too long
        raise UserError(f"{path}: cannot read it ({error.strerror}): give another file") from None
    except BadYaml as error:
        line = f":{error.line}" if error.line else ""
        raise UserError(f"{path}{line}: not valid YAML ({error})") from None


def own_yaml(path: Path) -> Any:
    """The value of a file that fmlm has written, ten times as fast, without lines. Raises as `yaml_file`."""
    try:
        return yaml.load(path.read_bytes(), _QuickLoader)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror})") from None
    except Exception as error:  # see `parsed_yaml`
        raise UserError(f"{path}: not valid YAML ({one_line(error)})") from None


def _check_extent(text: str) -> None:
    """Raise `BadYaml` for what is too deep or too large, before anything is built of it."""
    sizes: dict[str | None, int] = {}  # by anchor
    open_at: list[tuple[str | None, int]] = [(None, 0)]  # anchor and size so far of what is not yet closed
    for event in yaml.parse(text, Loader):
        line = event.start_mark.line + 1 if event.start_mark else None
        if isinstance(event, yaml.CollectionStartEvent):
            open_at.append((event.anchor, 1))
            if len(open_at) > _DEEPEST:
                raise BadYaml(f"more than {_DEEPEST} values within each other", line)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_at.pop()
            sizes[anchor] = size
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in open_at):
                raise BadYaml("an alias that holds itself", line)
            size = sizes.get(event.anchor, 1)
        else:
            size = isinstance(event, yaml.ScalarEvent)
        anchor, before = open_at[-1]
        open_at[-1] = anchor, before + size
        if before + size > _LARGEST:
            raise BadYaml(f"more than {_LARGEST:,} values, with what aliases repeat", line)

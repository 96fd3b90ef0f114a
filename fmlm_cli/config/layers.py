"""From defaults, files, flags and --set to validated settings, and back to YAML.

Settings flow one way: defaults < YAML file < command-line flags < `--set a.b=c`. Unknown names are refused
with the nearest known one, and with the line where they stand.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from fmlm_cli import __version__
from fmlm_cli.config.reading import Loader, yaml_file, yaml_value
from fmlm_cli.config.section import Section
from fmlm_cli.errors import UserError, nearest, shortened

S = TypeVar("S", bound=Section)


class UnknownSettingError(UserError):
    """A name that is no setting of a command; another command's, perhaps."""

    def __init__(self, where: str, name: str, hint: str) -> None:
        self.place = where, name
        super().__init__(f"{where}: unknown setting '{shortened(name)}'; {hint}")

    def hinting(self, hint: str) -> "UnknownSettingError":
        """The same, with what somebody else knows of it."""
        return UnknownSettingError(*self.place, hint)


_TOGETHER = ("budget",)  # groups of alternatives: a later layer replaces the whole group


def setting_names(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings under a section."""
    return (name for name, _, _ in describe_settings(section, prefix))


def describe_settings(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Dotted name, default and description of every setting under a section."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from describe_settings(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, _default(field), field.description or ""


def _default(field: FieldInfo) -> str:
    """A setting's default as it would be written in a file; "" where there is none, or nothing in it."""
    if field.is_required() or field.default in (None, (), {}):
        return ""
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return str(yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=1000)).strip()[1:-1]


def setting_field(section: type[BaseModel], dotted: str) -> FieldInfo:
    """Type, default and description of the setting with this dotted name. KeyError where there is none."""
    *path, last = dotted.split(".")
    for part in path:
        section = section.model_fields[part].annotation  # type: ignore[assignment]
    return section.model_fields[last]


def as_typed(section: type[BaseModel], dotted: str, value: Any) -> Any:
    """A value as the setting with this name has it (1e-3, which YAML takes for a text, as a number).

    One that the setting cannot have, or of a name that is none, as it is: whoever builds the settings tells.
    """
    if dotted not in setting_names(section):
        return value
    kind: Any = setting_field(section, dotted).annotation
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return value


def _is_mapping(section: type[BaseModel], dotted: str) -> bool:
    """Whether a setting holds names of the user's own."""
    return get_origin(setting_field(section, dotted).annotation) is dict


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`; values that are None are left out."""
    tree: dict[str, Any] = {}
    for dotted, value in flat.items():
        if value is not None:
            *path, last = dotted.split(".")
            node = tree
            for part in path:
                node = node.setdefault(part, {})
            node[last] = value
    return tree


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        )
    return leaves


def parse_assignments(assignments: Sequence[str], section: type[Section]) -> dict[str, Any]:
    """`["a.b=c"]`, as given to --set, as a tree; values are read as YAML."""
    tree: dict[str, Any] = {}
    names = set(setting_names(section))
    free_names = {name for name in names if _is_mapping(section, name)}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"--set {assignment}: write it as --set name=value")
        # Such as masking.options.p, and sweep.run.optimizer.learning_rate.
        free = any(name.startswith(f"{known}.") for known in free_names)
        if not free and name not in names and not any(known.startswith(f"{name}.") for known in names):
            raise _unknown(name, f"--set {shortened(assignment)}", section)
        value = yaml_value(text, f"--set {shortened(assignment)}")
        path = name.split(".")
        for part in reversed(path):
            value = {part: value}
        tree = merge(tree, value, whole=())
    return tree


def merge(
    below: Mapping[str, Any], above: Mapping[str, Any], whole: Sequence[str] = _TOGETHER
) -> dict[str, Any]:
    """Two trees of settings as one; what stands in `above` wins."""
    merged = dict(below)
    for name, value in above.items():
        lower = merged.get(name)
        are_groups = isinstance(lower, Mapping) and isinstance(value, Mapping) and name not in whole
        merged[name] = merge(lower, value, whole) if are_groups else value  # type: ignore[arg-type]
    return merged


def read_yaml(path: str | Path, section: type[Section]) -> dict[str, Any]:
    """A tree of settings from a YAML file. Names and values are checked here, where the line is known."""
    path = Path(path)
    try:
        root, tree = yaml_file(path)
    except FileNotFoundError:
        raise UserError(f"no such configuration file: {path}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(
            f"{path}: settings are written as `name: value`, this file holds a {type(tree).__name__}"
        )
    assert root is not None
    lines = dict(_lines(root, path))
    _check_names(tree, section, lines, path)
    _check_values(tree, section, lines, path)
    return tree


def _lines(node: yaml.Node, path: Path, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Dotted names and the lines they stand on."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if "." in str(key.value):
                raise UserError(
                    f"{path}:{key.start_mark.line + 1}: '{key.value}': in a file, settings are nested, "
                    f"not dotted: write `{key.value.partition('.')[0]}:` and, indented below it, the rest"
                )
            yield name, key.start_mark.line + 1
            yield from _lines(value, path, f"{name}.")


def line_in(path: Path, name: str) -> int:
    """The line of a file of settings that sets this one, or the group that it is in."""
    root, _ = yaml_file(path)
    return _line_of(name, dict(_lines(root, path)) if root is not None else {})


def sets(tree: Mapping[str, Any], name: str) -> bool:
    """Whether a tree of settings decides one: by itself, or as what the whole of a group leaves out."""
    *path, last = name.split(".")
    node: Any = tree
    for part in path:
        node = node.get(part) if isinstance(node, Mapping) else None
    return isinstance(node, Mapping) and (last in node or ".".join(path) in _TOGETHER)


def _line_of(name: str, lines: Mapping[str, int]) -> int:
    """The line of a setting, or of the nearest group around it."""
    while name and name not in lines:
        name = name.rpartition(".")[0]
    return lines.get(name, 1)


def _check_names(
    tree: Mapping[str, Any], section: type[BaseModel], lines: Mapping[str, int], path: Path
) -> None:
    known = set(setting_names(section))
    groups = {name.rpartition(".")[0] for name in known}
    for name in lines:
        if name not in known and name not in groups and not any(name.startswith(f"{k}.") for k in known):
            raise _unknown(name, f"{path}:{lines[name]}", section)


def _check_values(
    tree: Mapping[str, Any], section: type[Section], lines: Mapping[str, int], path: Path
) -> None:
    """Refuse values that are not valid. Whole settings that are missing may come from flags."""

    def where(name: str) -> str:
        return f"{path}:{_line_of(name, lines)}{f' ({name})' if name else ''}"

    try:
        section.model_validate(tree)
    except ValidationError as error:
        names = set(setting_names(section))
        for problem in error.errors():
            if problem["type"] != "missing" or ".".join(map(str, problem["loc"])) not in names:
                raise _problem(section, problem, where) from None


def _unknown(name: str, where: str, section: type[BaseModel]) -> UserError:
    names = list(setting_names(section))
    same_last = [known for known in names if known.rpartition(".")[2] == name.rpartition(".")[2]]
    close = nearest(name, names) or (same_last[0] if same_last else None)
    hint = (
        f"did you mean '{close}'?" if close else f"a command's --settings lists those of fmlm {__version__}"
    )
    return UnknownSettingError(where, name, hint)


def build(
    section: type[S], *trees: Mapping[str, Any], origin: Callable[[str], str | None] = lambda name: None
) -> S:
    """Validated settings from trees, later ones winning. Errors name the setting, and its `origin`."""
    tree: dict[str, Any] = {}
    for above in trees:
        tree = merge(tree, above)

    def where(name: str) -> str:
        whole, _, last = name.rpartition(".")
        given = origin(whole if last.isdigit() else name)
        return f"setting '{name}'{f' (from {given})' if given else ''}" if name else ""

    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise _problem(section, error.errors()[0], where) from None


def _problem(section: type[Section], problem: ErrorDetails, where: Callable[[str], str]) -> UserError:
    """What pydantic found, as one line; `where` says where a setting was given."""
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return _unknown(name, where(name), section)
    if problem["type"] == "literal_error" and isinstance(problem["loc"][-1], int):
        name = name.rpartition(".")[0]  # which of several it is its value says
    place, message = where(name), _in_words(section, name, problem)
    return UserError(f"{place}: {message}" if place else message)


# What to give instead, by what pydantic calls the mistake; with what it knows of the bounds.
_REMEDIES = {
    "int_": "give a whole number",
    "float_": "give a number",
    "bool_": "give true or false",
    "string_": "give a text",
    "tuple_": "give a list, as [a, b]",
    "finite_": "give a finite number",
    "greater_than_equal": "give {ge:g} or more",
    "greater_than": "give more than {gt:g}",
    "less_than_equal": "give {le:g} or less",
    "less_than": "give less than {lt:g}",
}


def _in_words(section: type[Section], name: str, problem: ErrorDetails) -> str:
    kind, context, given = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "value_error":  # in our own words
        return problem["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return "it is missing: give it a value"
    if kind in ("model_type", "dict_type"):
        return f"{_as_a_group(section, name)}, not {_shown(given)}"
    if kind == "literal_error":
        known = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        close = nearest(given, known) if isinstance(given, str) else None
        hint = f": did you mean '{close}'?" if close else ""
        return f"it can be {context['expected']}, not {_shown(given)}{hint}"
    remedies = (text.format(**context) for start, text in _REMEDIES.items() if kind.startswith(start))
    message = next(remedies, f"{problem['msg'][:1].lower()}{problem['msg'][1:]}")
    return f"{message}, not {_shown(given)}"


def _as_a_group(section: type[Section], name: str) -> str:
    """What to give where a setting holds others."""
    inner = setting_field(section, name).annotation
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        names = [*inner.model_fields]
        return f"it is a group of settings: give {f'{name}.{names[0]}'} and the like"
    return "give names with values, as {name: value}"


def _shown(value: Any) -> str:
    try:
        return shortened(repr(value))
    except ValueError:  # a whole number of thousands of digits
        return "a number of thousands of digits"


def saved_settings(section: type[S], path: Path) -> S:
    """The settings that a command has left in its config.yaml; `UserError` for another kind of file."""
    tree = read_yaml(path, section)
    try:
        return build(section, tree)
    except UserError as error:  # of what a file lacks there is no line to name
        raise UserError(f"{path}: {error}") from None


def choices(section: type[Section], dotted: str) -> tuple[str, ...]:
    """The values that a setting with a fixed choice accepts; none where the choice is free."""
    annotation = setting_field(section, dotted).annotation
    return tuple(
        value
        for part in (annotation, *get_args(annotation))
        for value in get_args(part)
        if isinstance(value, str)
    )


def examples(section: type[Section], dotted: str) -> tuple[str, ...]:
    """Values that a setting is known to accept, where others are possible too; often none."""
    return tuple(map(str, setting_field(section, dotted).examples or ()))


def to_yaml(settings: Section) -> str:
    """Settings as YAML, in the order they are defined."""
    tree = settings.model_dump(mode="json")
    text: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    if yaml.load(text, Loader) == tree:
        return text
    # A few characters, such as U+0085, are line ends to YAML: they survive only when escaped.
    return str(yaml.safe_dump(tree, sort_keys=False))

"""Flags made from settings: a command says which settings its flags set, the schema says the rest.

A flag's type, help and default are its setting's; a setting is described, and its default written, in
`fmlm_cli.config` alone.
"""

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from fmlm_cli.cli.pages import OTHER, panel_of
from fmlm_cli.cli.suggestions import Complete, of_values
from fmlm_cli.config import SPELLINGS, Budget, ReadingSettings, Section, choices, setting_field
from fmlm_cli.errors import UserError

# What stands for a value whose flag says nothing more particular, by its type.
_METAVARS: Mapping[Any, str] = {int: "N", float: "X", str: "NAME"}


@dataclass(frozen=True)
class Flag:
    """What sets one setting: a flag, or an argument where the name has no dashes.

    A setting of several values takes its flag once for each value, or once for all with `commas` between
    them; one that maps names to paths takes NAME=PATH. Where the choice is fixed, it is the metavar.
    """

    name: str
    setting: str
    metavar: str | None = None
    commas: bool = False

    @property
    def parameter(self) -> str:
        """What it is called as a parameter of a function."""
        return self.setting.replace(".", "_")

    def is_required(self, section: type[Section]) -> bool:
        """Whether its setting has no default."""
        return setting_field(section, self.setting).is_required()

    def as_parameter(
        self, section: type[Section], *, may_be_missing: bool, more_help: str = ""
    ) -> inspect.Parameter:
        """What Typer makes an option of; without a default it is required, unless it `may_be_missing`."""
        field = setting_field(section, self.setting)
        kind = str if self.commas else _kind(field)
        help_text = _help(field, repeatable=kind == list[str] and self.name.startswith("-")) + more_help
        metavar = self.metavar or "|".join(choices(section, self.setting)) or _METAVARS.get(kind)
        complete = of_values(section, self.setting, commas=self.commas)
        panel = panel_of(self.setting, of_text=issubclass(section, ReadingSettings))
        shown = typer_option(self.name, metavar, help_text, panel, complete)
        required = self.is_required(section) and not may_be_missing
        return keyword(self.parameter, kind, shown, required=required)

    def settings(self, value: Any, section: type[Section]) -> Mapping[str, Any]:
        """The setting's value, by its dotted name, from what was given on the command line."""
        if self.commas:
            parts = [part.strip() for part in value.split(",") if part.strip()]
            if not parts:
                raise UserError(f"{self.name} {value}: it names nothing; give {self.metavar}")
            return {self.setting: parts}
        if get_origin(setting_field(section, self.setting).annotation) is dict:
            return {self.setting: self._named(value)}
        return {self.setting: value}

    def _named(self, texts: Iterable[str]) -> dict[str, str]:
        """`["general=wiki"]` as `{"general": "wiki"}`; a path without a name goes by its folder's."""
        named: dict[str, str] = {}
        for text in texts:
            name, equals, path = text.partition("=")
            name, path = (name, path) if equals else (Path(text).name, text)
            if not name or not path:
                raise UserError(f"{self.name} {text}: write it as {self.name} {str(self.metavar).lower()}")
            if name in named:
                raise UserError(f"{self.name} {text}: the name '{name}' is given twice")
            named[name] = path
        return named


@dataclass(frozen=True)
class Shortcut:
    """A flag that stands for several settings, or for one or another: `sets` says for what was given.

    `alone`: no other flag may set the same.
    """

    name: str
    kind: Any  # bool, or list[str] for one that may be repeated
    help_text: str
    sets: Callable[[Any], Mapping[str, Any]]
    metavar: str | None = None
    panel: str = OTHER
    alone: bool = False

    @property
    def parameter(self) -> str:
        """What it is called as a parameter of a function."""
        return self.name.lstrip("-").replace("-", "_")

    def as_parameter(
        self, section: type[Section], *, may_be_missing: bool, more_help: str = ""
    ) -> inspect.Parameter:
        """What Typer makes an option of."""
        shown = typer_option(self.name, self.metavar, self.help_text + more_help, self.panel)
        return keyword(self.parameter, self.kind, shown)

    def settings(self, value: Any, section: type[Section]) -> Mapping[str, Any]:
        """Values by the settings' dotted names."""
        return self.sets(value)


def _budget(text: str) -> Mapping[str, Any]:
    try:
        budget = Budget.parse(text)
    except ValueError as error:
        raise UserError(f"--budget {text}: {error}") from None
    amount = int(budget.amount) if budget.unit == "steps" else budget.amount
    return {f"budget.{budget.unit}": amount}


BUDGET = Shortcut(
    "--budget",
    str,
    "How long to train: steps, tokens, passes over the rows (epochs), or time, which a few timed steps turn "
    "into tokens.",
    _budget,
    metavar=SPELLINGS,
    panel="Budget",
    alone=True,
)


def typer_option(
    name: str,
    metavar: str | None,
    help_text: str,
    panel: str = OTHER,
    complete: Complete | None = None,
) -> Any:
    """An option, or an argument where the name has no dashes. The default, if any, is in the help."""
    if name.startswith("-"):
        return typer.Option(
            name,
            metavar=metavar,
            help=help_text,
            show_default=False,
            rich_help_panel=panel,
            autocompletion=complete,
        )
    return typer.Argument(metavar=name, help=help_text, show_default=False)


def keyword(name: str, kind: Any, shown: Any, *, required: bool = False) -> inspect.Parameter:
    """A parameter of a function, shown as this option; None, or False for a bool, where it is not given."""
    default = inspect.Parameter.empty if required else False if kind is bool else None
    taken: Any = kind if required or kind is bool else kind | None
    annotation = Annotated[taken, shown]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _kind(field: FieldInfo) -> Any:
    """What a setting's flag takes: int, float, bool, str, or list[str] where it may be repeated."""
    annotation = field.annotation
    if get_origin(annotation) in (Union, types.UnionType):
        [annotation] = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (tuple, dict):
        return list[str]
    return str if get_origin(annotation) is Literal else annotation


def _help(field: FieldInfo, *, repeatable: bool) -> str:
    """A setting's description as sentences, with its default where it has a plain one."""
    description = field.description or ""
    help_text = f"{description[:1].upper()}{description[1:]}."
    if repeatable:
        help_text += " May be repeated."
    plain = isinstance(field.default, str | int | float) and not isinstance(field.default, bool)
    if plain and field.default != ".":  # which would be two full stops
        help_text += f" Default: {field.default}."
    return help_text

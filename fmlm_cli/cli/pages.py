"""Pages of help: options under headings, in two columns, whose lines break between words alone.

Neither click's tables nor rich's will do: those break at hyphens (`--valid-` `fraction`), these inside of
words (`f` `ile`).
"""

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from fmlm_cli.cli.mistakes.usage import Misused, told_in_a_line, unknown_command

SETTINGS = "--settings"  # may be followed by words to look for

Row = tuple[str, str]

_LEFT = 30  # widest first column; what is longer has a line of its own
_EXAMPLE, _NOTE = "Example: ", "- "
_WIDEST = 110


# Under which heading a setting stands: by its own name, or else by its group's.
OTHER = "Run"
_BY_NAME = {
    "Data": (
        *("sources", "store", "stores", "split", "texts", "pairs", "file", "documents", "format"),
        *("text_field", "text_pair_field", "label_field", "on_bad_text", "max_document_chars"),
        *("on_long_document", "min_chars", "max_chars", "valid", "valid_fraction", "dedup"),
    ),
    "Tokenizer": (
        *("tokenizer", "train_tokenizer", "vocab_size", "lowercase", "strip_accents", "normalize"),
        *("add_tokens", "extend_vocab", "pmi", "pmi_size"),
    ),
    "Model": ("checkpoint", "revision", "trust_remote_code"),
    "Masking": ("strategies",),
    "Budget": ("budget",),
    "Training": ("grid", "from_mnli"),
    OTHER: ("out", "seed", "workers", "shard", "threads", "verify", "shown"),
}
_BY_GROUP = {
    "data": "Data",
    "evaluation": "Data",
    "tasks": "Data",
    "downstream": "Data",
    "model": "Model",
    "masking": "Masking",
    "budget": "Budget",
    "batch": "Training",
    "optimizer": "Training",
    "training": "Training",
}
_PANEL_OF = {name: panel for panel, names in _BY_NAME.items() for name in names}

# Headings, in this order.
_PANELS = ("Arguments", *_BY_NAME)


class Command(TyperCommand):
    """A command with such a page; its --settings takes any number of words."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        formatter.write(_page(self, ctx, formatter.width, _panels(self.get_params(ctx))))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What stands after the command's name, here and above click's errors."""
        return _usage(self, ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click does, but for the words of --settings, which become one, and for what it refuses."""
        with told_in_a_line(ctx, args, _usage_line(self, ctx)):
            return super().parse_args(ctx, _words_joined(args))


class Group(TyperGroup):
    """Commands with such a page of their own, in the order of their definition."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(limit=1000)) for name, command in commands if command]
        panels = {"Commands:": rows, "Options:": _panels(self.get_params(ctx))[f"{OTHER}:"]}
        formatter.write(_page(self, ctx, formatter.width, panels))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What stands after the command's name, here and above click's errors."""
        return [*_usage(self, ctx), "COMMAND ..."]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click does, but for what it refuses."""
        with told_in_a_line(ctx, args, _usage_line(self, ctx)):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that is called; a name that is none is refused with the nearest one."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise Misused(unknown_command(args[0], self.list_commands(ctx), ctx.command_path), ctx)
        return super().resolve_command(ctx, args)


def context_settings() -> dict[str, Any]:
    """What click is to do on such pages."""
    return {"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST}


def panel_of(setting: str, *, of_text: bool = False) -> str:
    """The heading of the setting with this dotted name; `of_text`: of a command that reads text."""
    path = setting.removeprefix("run.").split(".")
    if of_text:
        path = ["text", *path]
    by_name = _PANEL_OF.get(path[-1])
    if path[0] == "text":  # its revision is the data's
        return by_name if by_name in ("Tokenizer", OTHER) else "Data"
    return by_name or (_BY_GROUP.get(path[0], OTHER) if len(path) > 1 else OTHER)


def laid_out(panels: Mapping[str, Sequence[Row]], width: int) -> str:
    """Rows of two columns under headings, with an empty line between two of these."""
    # One width for all, so that the second column is one line from top to bottom.
    fitting = [len(first) for rows in panels.values() for first, _ in rows if len(first) <= _LEFT]
    left = max(fitting, default=_LEFT)
    return "\n".join(
        "\n".join([typer.style(title, bold=True), *_lines(rows, left, width)]) + "\n"
        for title, rows in panels.items()
        if rows
    )


def _page(command: Any, ctx: Any, width: int, panels: Mapping[str, Sequence[Row]]) -> str:
    parts = [_filled(_usage_line(command, ctx), width, typer.style("Usage: ", bold=True), " " * 7)]
    examples, notes = [], []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        text = " ".join(paragraph.split())
        if text.startswith(_EXAMPLE):
            examples.append(text.removeprefix(_EXAMPLE))
        elif text.startswith(_NOTE):
            notes.append(_filled(text, width, "  ", "    "))
        else:
            parts.append(_filled(text, width))
    if examples:
        title = typer.style("Example:" if len(examples) == 1 else "Examples:", bold=True)
        parts.append("\n".join([title, *(_command_line(text, width) for text in examples)]))
    parts.append(laid_out(panels, width).rstrip())
    if notes:
        parts.append("\n".join([typer.style("Worth knowing:", bold=True), *notes]))
    return "\n\n".join(parts) + "\n"


def _usage_line(command: Any, ctx: Any) -> str:
    return " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])


def _usage(command: Any, ctx: Any) -> list[str]:
    """A command's arguments, and the options that have to be given."""
    pieces = []
    for parameter in command.get_params(ctx):
        if parameter.param_type_name == "argument":
            name = _first_column(parameter)
            pieces.append(name if parameter.required else f"[{name}]")
        elif parameter.required:
            pieces.append(_first_column(parameter))
    return [*pieces, "[OPTIONS]"]


def _panels(parameters: Iterable[Any]) -> dict[str, list[Row]]:
    """The rows of a page's parameters, by their headings; --help comes last."""
    panels: dict[str, list[Row]] = {f"{title}:": [] for title in _PANELS}
    for parameter in parameters:
        if getattr(parameter, "hidden", False):
            continue
        is_argument = parameter.param_type_name == "argument"
        title = "Arguments" if is_argument else getattr(parameter, "rich_help_panel", None) or OTHER
        panels[f"{title}:"].append((_first_column(parameter), parameter.help or ""))
    return panels


def _first_column(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
        return name if parameter.nargs == 1 or name.endswith("...") else f"{name}..."
    names = ", ".join(sorted(parameter.opts, key=len))
    is_bare = getattr(parameter, "is_flag", False) or parameter.name == "help"
    return names if is_bare else f"{names} {parameter.metavar or parameter.name.upper()}"


def _lines(rows: Iterable[Row], left: int, width: int) -> Iterator[str]:
    """The lines of a table's rows, indented by two, with two blanks between the columns."""
    indent = " " * (left + 4)
    for first, second in rows:
        described = wrapped(second, width - len(indent)) or [""]
        if len(first) > left:
            yield f"  {first}"
        else:
            yield f"  {first:<{left}}  {described.pop(0)}".rstrip()
        yield from (indent + line for line in described if line)


def _filled(text: str, width: int, first: str = "", later: str = "") -> str:
    return first + f"\n{later}".join(wrapped(text, width - len(later)))


def wrapped(text: str, width: int) -> list[str]:
    """The lines of a text, broken between words alone."""
    return textwrap.wrap(text, max(width, 24), break_long_words=False, break_on_hyphens=False)


def _command_line(text: str, width: int) -> str:
    r"""A command for a shell; what is too long for a line goes on after a \, before an option."""
    lines = [""]
    for part in re.split(r" (?=--)", text):
        if lines[-1] and len(lines[-1]) + len(part) > width - 8:
            lines.append(part)
        else:
            lines[-1] = f"{lines[-1]} {part}".strip()
    return "  " + " \\\n    ".join(lines)


def _words_joined(args: Sequence[str]) -> list[str]:
    """The words after --settings, up to the next option, as one value of it; "" where there is none."""
    options = args[: args.index("--")] if "--" in args else args
    if SETTINGS not in options:
        return list(args)
    place = options.index(SETTINGS)
    end = next((i for i in range(place + 1, len(args)) if args[i].startswith("-")), len(args))
    return [*args[:place], f"{SETTINGS}={' '.join(args[place + 1 : end])}", *args[end:]]

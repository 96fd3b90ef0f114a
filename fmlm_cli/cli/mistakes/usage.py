"""Mistakes in how a command is called: one line with a remedy, where click has several without one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from fmlm_cli.errors import nearest, shortened

# Typer has click inside from some version on; whichever it is, these are of it.
_UsageError: Any = typer.BadParameter.__base__


class Misused(_UsageError):
    """A command was called in a way that it cannot be; `show` prints the one line."""

    def show(self, file: Any = None) -> None:
        """Print it as what else ends a command is printed."""
        typer.secho(f"error: {self.message}", file=file, err=file is None, fg=typer.colors.RED)


@contextmanager
def told_in_a_line(context: Any, words: Sequence[str], usage: str) -> Iterator[None]:
    """Have what click refuses of a command's `words` told so. `usage`: the command's own line of usage."""
    try:
        yield
    except Misused:
        raise
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a page of help, not a mistake
            raise
        raise Misused(_line(error, context, words, usage), context) from None


def _line(error: Any, context: Any, words: Sequence[str], usage: str) -> str:
    kind, parameter = type(error).__name__, getattr(error, "param", None)
    option = getattr(error, "option_name", "")
    if kind == "NoSuchOption":
        known = [name for each in context.command.get_params(context) for name in each.opts]
        close = nearest(option, known)
        hint = f"did you mean {close}? " if close else ""
        return f"unknown option {option}: {hint}`{context.command_path} --help` lists them"
    if kind == "BadOptionUsage":
        options = [each for each in context.command.get_params(context) if option in each.opts]
        if options and not options[0].is_flag:
            return f"{option}: give its value, {option} {options[0].metavar}"
        return f"{option} takes no value: write {option} alone"
    if kind == "MissingParameter" and parameter is not None:
        return f"{_name(parameter)} is missing: write {usage}"
    if parameter is not None:
        given = shortened(" ".join([_name(parameter), *_given(words, parameter)]))
        wanted = "a whole number" if "integer" in error.message else "a number"
        numeric = wanted if any(word in error.message for word in ("integer", "number", "float")) else ""
        return f"{given}: {f'give {numeric}' if numeric else _sentence(error.message)}"
    return f"{_sentence(error.format_message())}; the usage is {usage}"


def unknown_command(name: str, known: Sequence[str], path: str) -> str:
    """What to say of a command that there is not. `path`: what is called before it."""
    close = nearest(name, known)
    hint = f"did you mean '{close}'? " if close else ""
    return f"unknown command '{shortened(name)}': {hint}`{path} --help` lists them"


def _name(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    return str(parameter.opts[0] if is_option else parameter.metavar or parameter.name)


def _given(words: Sequence[str], parameter: Any) -> list[str]:
    """The value that an option was given, as it was written; nothing where that is not seen."""
    for name in parameter.opts:
        for place, word in enumerate(words):
            if word == name:
                return list(words[place + 1 : place + 2])
            if word.startswith(f"{name}="):
                return [word.partition("=")[2]]
    return []


def _sentence(message: str) -> str:
    return f"{message[:1].lower()}{message[1:]}".rstrip(".")

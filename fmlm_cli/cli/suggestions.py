"""What a shell completes of a value: fixed choices, what a setting has examples of, and names of settings."""

from collections.abc import Callable, Iterable

from fmlm_cli.config import Section, choices, describe_settings, examples

Suggestion = tuple[str, str]  # a word, and what it means
# Named as Typer asks for it: what has been typed of the word.
Complete = Callable[[str], list[Suggestion]]


def of_values(section: type[Section], setting: str, *, commas: bool = False) -> Complete | None:
    """A setting's values that are known; with `commas` between several. None where none is."""
    known = known_values(section, setting)

    def complete(incomplete: str) -> list[Suggestion]:
        before, comma, last = incomplete.rpartition(",") if commas else ("", "", incomplete)
        return [(f"{before}{comma}{value}", "") for value in known if value.startswith(last)]

    return complete if known else None


def of_assignments(section: type[Section]) -> Complete:
    """NAME=VALUE for --set: names of settings, and once one is written what is known of its values."""
    described = {name: meaning for name, _, meaning in describe_settings(section)}

    def complete(incomplete: str) -> list[Suggestion]:
        name, equals, value = incomplete.partition("=")
        if not equals:
            return [(f"{known}=", described[known]) for known in _starting(described, name)]
        values = known_values(section, name) if name in described else ()
        return [(f"{name}={known}", "") for known in _starting(values, value)]

    return complete


def of_settings(section: type[Section]) -> Complete:
    """Names of settings and of groups of them, to look for."""
    names = [name for name, _, _ in describe_settings(section)]
    groups = dict.fromkeys(name.rpartition(".")[0] for name in names if "." in name)

    def complete(incomplete: str) -> list[Suggestion]:
        return [(name, "") for name in _starting((*groups, *names), incomplete)]

    return complete


def known_values(section: type[Section], setting: str) -> tuple[str, ...]:
    """Values that a setting with this dotted name may have, where there is a list of them."""
    return choices(section, setting) or examples(section, setting)


def _starting(words: Iterable[str], start: str) -> list[str]:
    return [word for word in words if word.startswith(start)]

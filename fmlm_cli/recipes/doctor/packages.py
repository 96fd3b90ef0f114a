"""Versions of what fmlm stands on, and which of its extras are there."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement

from fmlm_cli import __version__

_SHOWN = ("torch", "transformers", "tokenizers", "datasets", "pyarrow")
_OF_DEVELOPERS = ("dev",)


@dataclass(frozen=True)
class Extra:
    """An extra of fmlm's: what it lacks here, "" where it is whole, and the command that gets it."""

    name: str
    lacks: str
    command: str


def versions() -> dict[str, str]:
    """By name; fmlm's own and Python's first."""
    found = {"fmlm": __version__, "Python": platform.python_version()}
    return found | {name: _version(name) or "not installed" for name in _SHOWN}


def broken_requirements() -> list[str]:
    """What fmlm needs and is not there, or not in a version that it promises to run with."""
    return [text for requirement in _requirements() if (text := _fault(requirement, extra=""))]


def extras() -> list[Extra]:
    """What else can be had."""
    names = metadata.metadata("fmlm").get_all("Provides-Extra") or []
    return [_extra(name) for name in names if name not in _OF_DEVELOPERS]


def _extra(name: str) -> Extra:
    lacking = [text for requirement in _requirements() if (text := _fault(requirement, extra=name))]
    return Extra(name, ", ".join(lacking), f"pip install 'fmlm[{name}]'")


def _requirements() -> Iterator[Requirement]:
    yield from map(Requirement, metadata.requires("fmlm") or [])


def _fault(requirement: Requirement, *, extra: str) -> str | None:
    """What is wrong with a requirement of this extra ("": of fmlm itself); None if nothing, or another's."""
    marker = requirement.marker
    if marker is None:
        concerned = not extra
    else:
        concerned = marker.evaluate({"extra": extra}) and not (extra and marker.evaluate({"extra": ""}))
    if not concerned:
        return None
    found = _version(requirement.name)
    if found is None:
        return requirement.name
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name}{requirement.specifier}, and {found} is installed"
    return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

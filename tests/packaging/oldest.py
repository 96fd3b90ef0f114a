"""Print the lowest versions that pyproject.toml promises, as constraints for pip: `make test-oldest`.

Needs nothing but Python. What is not named there is as new as it can be beside them.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def requirements() -> list[str]:
    """Of fmlm, of every extra, and of its build."""
    tree = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    project = tree["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    return [*project["dependencies"], *extras, *tree["build-system"]["requires"]]


def floors(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Name and lowest version, in the order of names; of what is named twice, the higher."""
    found: dict[str, str] = {}
    for line in lines:
        match = re.fullmatch(r"([\w.-]+)(?:>=([\d.]+)(?:,<[\d.]+)?)?", line)
        if match is None:
            raise ValueError(f"{PYPROJECT}: {line!r} should be NAME or NAME>=VERSION, perhaps with ,<VERSION")
        name, floor = match.groups()
        if floor and found.setdefault(name, floor) != floor:
            raise ValueError(f"{PYPROJECT}: {name} is asked for from {found[name]} on, and from {floor} on")
    return iter(sorted(found.items()))


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in floors(requirements()))

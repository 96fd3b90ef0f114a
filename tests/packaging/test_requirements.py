"""What pyproject.toml asks for is what the code imports, and its lowest versions are those that are tried."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from tests.environment import ROOT
from tests.packaging.oldest import PYPROJECT, floors, requirements

PACKAGE = ROOT / "fmlm_cli"
IMPORTED_AS = {  # distributions whose modules have another name, and may not be installed here
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "pydantic_core": "pydantic",  # pydantic's other half: it asks for the one that it goes with
}


def imported_modules() -> Iterator[tuple[str, str]]:
    """Every top-level module that is imported anywhere in fmlm, and where."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                yield name.partition(".")[0], f"{path.relative_to(ROOT)}:{node.lineno}"


def test_every_package_that_is_imported_is_asked_for() -> None:
    """One that merely comes along with another is missing on the day that this one does without it."""
    asked = {IMPORTED_AS.get(name, name) for name in (Requirement(line).name for line in requirements())}
    own = {"fmlm_cli", *sys.stdlib_module_names}
    extra = {
        (module, place)
        for module, place in imported_modules()
        if module not in own and IMPORTED_AS.get(module, module) not in asked
    }
    assert extra == set()


def test_every_package_that_is_asked_for_is_imported() -> None:
    modules = {IMPORTED_AS.get(module, module) for module, _ in imported_modules()}
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    needed = [Requirement(line).name for line in project["dependencies"]]
    assert [name for name in needed if IMPORTED_AS.get(name, name) not in modules] == []


def test_the_installed_versions_are_in_the_ranges() -> None:
    for line in requirements():
        requirement = Requirement(line)
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            continue  # of an extra
        assert requirement.specifier.contains(found), f"{line}: {found} is installed"


def test_the_lowest_versions_are_read_off() -> None:
    assert list(floors(["b>=2.1,<3", "a", "a-c>=0.1", "b>=2.1"])) == [("a-c", "0.1"), ("b", "2.1")]
    for lines in (["a~=1.0"], ["a>=1.0; python_version < '3.12'"], ["a>=1", "a>=2"]):
        with pytest.raises(ValueError, match=r"pyproject\.toml: "):
            list(floors(lines))
    assert dict(floors(requirements())).keys() >= {"torch", "transformers", "numpy", "pyarrow", "peft"}

"""Names, one for one thing, and sizes that can be read."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "fmlm_cli"


def namesakes() -> Iterator[str]:
    """Paths of modules with a public function of the same name, so that importing one hides the other."""
    for path in PACKAGE.rglob("*.py"):
        module = path.parent.name if path.stem == "__init__" else path.stem
        defined = {
            node.name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
        if module.strip("_") in {name.rstrip("_") for name in defined} and module != "__main__":
            yield path.relative_to(PACKAGE).as_posix()


def test_no_public_function_has_the_name_of_its_module() -> None:
    assert not list(namesakes())


def lengths() -> Iterator[tuple[str, int, int]]:
    """Every module's files and functions by name: how long they are, and how long they may be.

    What documents a function is not counted: of a command it is the page that --help shows.
    """
    for path in PACKAGE.rglob("*.py"):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix()
        yield name, len(text.splitlines()), 400
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                documented = len((ast.get_docstring(node, clean=False) or "").splitlines())
                yield f"{name}: {node.name}", node.end_lineno - node.lineno + 1 - documented, 60


def test_files_and_functions_are_short() -> None:
    assert [(name, length) for name, length, most in lengths() if length > most] == []


def test_folders_hold_few_files() -> None:
    """But for the one that has a file for each command."""
    folders = {path.parent for path in PACKAGE.rglob("*.py") if path.parent.name != "commands"}
    sizes = {folder.name: len(list(folder.glob("[!_]*.py"))) for folder in folders}
    assert [name for name, size in sizes.items() if size > 10] == []

"""Names: one for one thing."""

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

"""YAML made to harm: nested deep, growing through aliases, huge, with objects: one line, soon, and no memory."""

import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli.config import PretrainSettings, build, parse_assignments, read_yaml, yaml_value
from fmlm_cli.errors import UserError


def doubling(levels: int, indent: str = "") -> str:
    """Each name stands for two of the one before it: 2 to the power of `levels` values."""
    lines = [f"{indent}a0: &a0 [x]"] + [
        f"{indent}a{level}: &a{level} [*a{level - 1}, *a{level - 1}]" for level in range(1, levels)
    ]
    return "\n".join(lines)


HOSTILE = {
    "lists": ("data: " + "[" * 3000 + "]" * 3000, "within each other"),
    "mappings": ("masking: " + "{a: " * 3000 + "1" + "}" * 3000, "within each other"),
    "never closed": ("data: " + "[" * 3000, "within each other"),
    "lines": ("\n".join(" " * depth + "a:" for depth in range(3000)), "within each other"),
    "billion laughs": (doubling(40), "with what aliases repeat"),
    "as an option": ("masking:\n  options:\n" + doubling(40, "    "), "with what aliases repeat"),
    "holds itself": ("masking: &a {options: *a}", "an alias that holds itself"),
    "long": ("#" * 11_000_000, "at most 10,000,000 characters"),
    "object": ("seed: !!python/object/apply:os.system ['id']", "could not determine a constructor"),
    "digits": ("seed: 1" + "0" * 5000, "Exceeds the limit"),
    "hexadecimal": ("seed: 0x" + "f" * 5000, "a number of thousands of digits"),
    "sexagesimal": ("optimizer: {learning_rate: " + ":".join(["59"] * 3000) + ".0}", "too large"),
    "infinite": ("optimizer: {learning_rate: 1.0e+400}", "finite"),
    "tag without a value": ("seed: !!int ''", "not valid YAML"),
    "date without a date": ("seed: !!timestamp x", "not valid YAML"),
    "NUL": ("seed: 1\0", "unacceptable character"),
    "NUL in a name": ('out: "a\\0b"', "not valid UTF-8, or holds a NUL"),
    "half a character": ('out: "\\ud800"', "not valid UTF-8, or holds a NUL"),
    "half a character in a list": ('data: {stores: ["\\udcff"]}', "not valid UTF-8, or holds a NUL"),
    "half a character in a name": ('evaluation: {stores: {"\\udcff": x}}', "not valid UTF-8, or holds a NUL"),
    "tab": ("budget:\n\tsteps: 1", "cannot start any token"),
    "a long value": (f"seed: {'x' * 5000}", "not 'xxx"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_it_is_refused_in_one_line_and_little_memory(kind: str, tmp_path: Path) -> None:
    text, said = HOSTILE[kind]
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    tracemalloc.start()
    begin = time.process_time()
    with pytest.raises(UserError) as caught:
        read_yaml(path, PretrainSettings)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))
    assert peak < 100e6
    assert time.process_time() - begin < 60


@pytest.mark.parametrize("kind", ["lists", "billion laughs", "object", "digits", "holds itself"])
def test_so_it_is_on_the_command_line(kind: str) -> None:
    text, said = HOSTILE[kind]
    with pytest.raises(UserError, match=said):
        parse_assignments([f"masking.options={text}"], PretrainSettings)
    with pytest.raises(UserError, match=r"^--strategies: .* is not a YAML value"):
        yaml_value(text, "--strategies")


def test_aliases_of_a_sensible_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("seed: &s 3\nbudget: {steps: *s}\n", encoding="utf-8")
    assert build(PretrainSettings, read_yaml(path, PretrainSettings)).budget.steps == 3


def test_equal_names_are_refused_on_the_command_line_too() -> None:
    given: Any = ["masking.options={p: 0.1, p: 0.2}"]
    with pytest.raises(UserError, match="'p' is given twice"):
        parse_assignments(given, PretrainSettings)

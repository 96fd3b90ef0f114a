"""The project's errors, and what is said of others."""

import pytest

from fmlm_cli.errors import PROGRAM_ERROR, USER_ERROR, ending_of, one_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one: \n two\nthree"), "one: two"),
        (ValueError("one."), "one"),
        (KeyError(), "KeyError"),
        (ValueError(" \n "), "ValueError"),
    ],
)
def test_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


def test_a_package_that_is_not_installed_is_named_as_it_is_installed() -> None:
    line, code = ending_of(ModuleNotFoundError("No module named 'yaml.cyaml'", name="yaml.cyaml"))
    assert code == USER_ERROR
    assert line.startswith("error: the package pyyaml is not installed") and line.endswith(
        "pip install pyyaml"
    )
    for error in (ModuleNotFoundError("odd"), ModuleNotFoundError("No module", name="fmlm_cli.nowhere")):
        assert ending_of(error)[1] == PROGRAM_ERROR

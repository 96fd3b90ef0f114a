"""The project's errors, and what is said of others."""

import pytest

from fmlm_cli.errors import one_line


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

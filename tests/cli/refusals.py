"""What it means for a command to refuse."""

from click.testing import Result


def assert_refused(result: Result, *parts: str) -> None:
    """Exit code 2 and one line that says all of these."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in result.output
    for part in parts:
        assert part in lines[0], part

"""Facts that several recipes tell, in words."""

from pathlib import Path

from fmlm_cli.engine.runtime import Runtime


def where_line(runtime: Runtime) -> str:
    """Device and precision."""
    return f"{runtime.device}, {str(runtime.precision).removeprefix('torch.')}"


def nothing_to_resume(root: Path) -> str:
    """For a call that was to go on where there is nothing: the folder's name may be mistyped."""
    return f"nothing in {root} to go on from: starting anew"

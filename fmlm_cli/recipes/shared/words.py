"""Facts that several recipes tell, in words."""

from fmlm_cli.engine.runtime import Runtime


def counted(number: int, thing: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def where_line(runtime: Runtime) -> str:
    """Device and precision."""
    return f"{runtime.device}, {str(runtime.precision).removeprefix('torch.')}"

"""Facts that several recipes tell, in words."""

from fmlm_cli.engine.runtime import Runtime


def where_line(runtime: Runtime) -> str:
    """Device and precision."""
    return f"{runtime.device}, {str(runtime.precision).removeprefix('torch.')}"

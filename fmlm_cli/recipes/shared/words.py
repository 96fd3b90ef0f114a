"""Facts that several recipes tell, in words."""

from fmlm_cli.engine.runtime import Runtime


def where_line(runtime: Runtime) -> str:
    """Device and precision."""
    precision = str(runtime.precision).removeprefix("torch.")
    weights = " weights, kept in float32 by the optimizer" if runtime.low_weights else ""
    return f"{runtime.device}, {precision}{weights}"

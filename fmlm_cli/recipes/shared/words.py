"""Facts that several recipes tell, in words."""

from fmlm_cli.engine.runtime import Runtime


def where_line(runtime: Runtime) -> str:
    """Processes, device and precision."""
    precision = str(runtime.precision).removeprefix("torch.")
    weights = " weights, kept in float32 by the optimizer" if runtime.low_weights else ""
    world = runtime.ranks.world
    parts = ", each with a part of the model" if runtime.shard else ""
    several = f"{world} processes{parts}, on " if world > 1 else ""
    return f"{several}{runtime.device}, {precision}{weights}"

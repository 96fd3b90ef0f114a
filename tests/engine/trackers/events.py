"""Event files read back."""

from pathlib import Path
from typing import Any


def read_events(root: Path) -> dict[str, list[tuple[int, Any]]]:
    """By tag the steps and values that TensorBoard shows of a run, after purging; a text as its bytes."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    every = {"scalars": 0, "tensors": 0}
    events = EventAccumulator(str(root / "tensorboard"), size_guidance=every, purge_orphaned_data=True)
    events.Reload()
    tags = events.Tags()
    shown: dict[str, list[tuple[int, Any]]] = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags["scalars"]
    }
    for tag in tags["tensors"]:
        of_plugin = events.SummaryMetadata(tag).plugin_data.content  # of hyper-parameters all there is
        shown[tag] = [(e.step, of_plugin or b"".join(e.tensor_proto.string_val)) for e in events.Tensors(tag)]
    return shown

"""Event files in RUN/tensorboard, which `tensorboard --logdir` shows."""

import math
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from fmlm_cli.engine.trackers.tracker import RunFacts, Values
from fmlm_cli.events import Emit

FOLDER = "tensorboard"


class TensorBoard:
    """Writes an event for each record; `torch.utils.tensorboard` would write one for each figure of it."""

    def __init__(self, facts: RunFacts) -> None:
        self._folder, self._config = facts.root / FOLDER, facts.config
        self._writer: EventFileWriter | None = None

    def begin(self, step: int, evaluated: int) -> tuple[int, int]:
        """Purge what a resumed run does again.

        That is from a step on whatever the record, so training records after the latest evaluation are void
        too, and have to be written again.
        """
        has_some = step > 0 and any(self._folder.glob("events.out.tfevents.*"))
        kept = evaluated if has_some else -1
        self._writer = EventFileWriter(str(self._folder))
        self._add(kept + 1, session_log=SessionLog(status=SessionLog.START))
        self._add(0, summary=hparams_pb({name: _plain(value) for name, value in self._config.items()}))
        return kept, kept

    def log(self, step: int, values: Values) -> None:
        """One event, which is in the file when this returns: nothing is lost where the process is killed."""
        self._add(step, summary=Summary(value=[_value(name, value) for name, value in values.items()]))

    def finish(self, *, complete: bool) -> str:
        """The files are whole after every record."""
        if self._writer is not None:
            self._writer.close()
        return f"tensorboard --logdir {self._folder}"

    def _add(self, step: int, **content: Any) -> None:
        assert self._writer is not None
        self._writer.add_event(Event(wall_time=time.time(), step=step, **content))
        self._writer.flush()


def _value(name: str, value: float | str) -> Summary.Value:
    if not isinstance(value, str):
        return Summary.Value(tag=name, simple_value=float(value))
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    text = TensorProto(dtype=DT_STRING, string_val=[value.encode()])
    return Summary.Value(tag=name, metadata=metadata, tensor=text)


def _plain(value: Any) -> bool | float | str:
    """As the table of hyper-parameters can hold it."""
    if isinstance(value, bool | str):
        return value
    return value if isinstance(value, int | float) and math.isfinite(value) else str(value)


def open_tracker(facts: RunFacts, emit: Emit) -> TensorBoard:
    """A tracker of one run."""
    return TensorBoard(facts)


def event_folder(root: Path) -> Path:
    """Where a run's event files lie."""
    return root / FOLDER

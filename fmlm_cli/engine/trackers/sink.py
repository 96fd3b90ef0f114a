"""The sink that hands records on to a tracker, and survives it."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fmlm_cli.engine.records import MetricsLog, Record
from fmlm_cli.engine.trackers.tracker import RunFacts, Tracker, is_evaluation, values_of
from fmlm_cli.errors import UserError, one_line
from fmlm_cli.events import Caution, Emit, Note

_TITLES = {"tensorboard": "TensorBoard", "wandb": "W&B", "trackio": "trackio"}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker whose package cannot be imported, before anything is done."""
    for name in names:
        _load(name)


def _load(name: str) -> Callable[[RunFacts, Emit], Tracker]:
    try:
        module = importlib.import_module(f"fmlm_cli.engine.trackers.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("fmlm_cli"):
            raise
        package = error.name.partition(".")[0]
        raise UserError(f"--log {name}: {package} is not installed: pip install 'fmlm[{name}]'") from None
    except Exception as error:  # whatever an installation that is broken comes to
        raise UserError(
            f"--log {name}: it cannot be imported ({one_line(error)}): pip install --upgrade 'fmlm[{name}]'"
        ) from None
    make: Callable[[RunFacts, Emit], Tracker] = module.open_tracker
    return make


@contextlib.contextmanager
def tracked(names: Sequence[str], facts: RunFacts, log: MetricsLog, emit: Emit) -> Iterator[list["Tracked"]]:
    """A sink for each tracker, to be given records after `log`; on the way out they are finished."""
    sinks = [Tracked(_TITLES[name], _load(name)(facts, emit), log, emit) for name in dict.fromkeys(names)]
    try:
        yield sinks
    finally:
        complete = sys.exception() is None
        for sink in sinks:
            sink.finish(complete=complete)


class Tracked:
    """The sink of a tracker, which takes up what it lacks of a run's `log` when the run begins or goes on.

    Whatever fails in a tracker is told once, and training goes on without it.
    """

    def __init__(self, title: str, tracker: Tracker, log: MetricsLog, emit: Emit) -> None:
        self._title, self._log, self._emit = title, log, emit
        self._tracker: Tracker | None = tracker
        self._trained, self._evaluated = -1, -1  # up to which step the tracker has them

    def rewind(self, step: int, evaluated: int) -> None:
        """Begin, and catch up with the records that the log has kept."""
        with self._or_without() as tracker:
            if tracker is not None:
                self._trained, self._evaluated = tracker.begin(step, evaluated)
        for record in self._log.records:
            self._send(record)

    def write(self, record: Record) -> None:
        """Hand on a record."""
        self._send(record.record)

    def finish(self, *, complete: bool) -> None:
        """Have the tracker store all of it, and tell where."""
        with self._or_without() as tracker:
            if tracker is not None and (where := tracker.finish(complete=complete)):
                self._emit(Note(f"{self._title}: {where}"))

    def _send(self, record: Mapping[str, Any]) -> None:
        known = self._evaluated if is_evaluation(record) else self._trained
        if record["step"] > known:
            with self._or_without() as tracker:
                if tracker is not None:
                    tracker.log(record["step"], values_of(record))

    @contextlib.contextmanager
    def _or_without(self) -> Iterator[Tracker | None]:
        try:
            yield self._tracker
        except Exception as error:
            self._tracker = None
            self._emit(
                Caution(
                    f"{self._title} takes no more records ({one_line(error)}); the run goes on without it"
                )
            )

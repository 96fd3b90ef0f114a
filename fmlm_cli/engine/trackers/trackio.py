"""trackio: in its own database (TRACKIO_DIR), or where the user's settings of it say."""

import contextlib
import io
from collections.abc import Iterator

import trackio

from fmlm_cli.engine.trackers.sent import Sent
from fmlm_cli.engine.trackers.tracker import RunFacts, Values
from fmlm_cli.events import Emit


class Trackio:
    """It cannot rewind: a resumed run goes on in the same run of trackio's, and sends what is new.

    A run is known by its name there, which therefore ends in a few letters of its own.
    """

    def __init__(self, facts: RunFacts) -> None:
        self._facts, self._sent = facts, Sent(facts, "trackio")
        self._run: trackio.Run | None = None

    def begin(self, step: int, evaluated: int) -> tuple[int, int]:
        """Go on in the same run, or begin one."""
        if not step:
            self._sent.begin_anew()
        facts, name = self._facts, f"{self._facts.name}-{self._sent.id}"
        with _silent():
            self._run = trackio.init(
                project=facts.project, name=name, config=dict(facts.config), resume="allow", embed=False
            )
        self._sent.keep()
        return self._sent.trained, self._sent.evaluated

    def log(self, step: int, values: Values) -> None:
        """Its own thread stores them, within half a second."""
        assert self._run is not None
        with _silent():
            self._run.log(dict(values), step=step)
        self._sent.note(step, values)

    def finish(self, *, complete: bool) -> str:
        """Waits for half a minute at most."""
        if self._run is None:
            return ""
        with _silent():
            self._run.finish()
        return f"run {self._run.name}: trackio show --project {self._facts.project}"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """It prints what it does, in the middle of the live line."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def open_tracker(facts: RunFacts, emit: Emit) -> Trackio:
    """A tracker of one run."""
    return Trackio(facts)

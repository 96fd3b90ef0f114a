"""What a tracker that cannot rewind has been sent, kept in the run's folder."""

import contextlib
import json
import os
import secrets

from fmlm_cli.engine.trackers.tracker import RunFacts, Values

FOLDER = "trackers"
_LENGTH = 128  # of the file, so that it can be written over in place, whole or not at all


class Sent:
    """Which run of a tracker's a run is, and up to which steps it has been sent.

    `id`: by which the tracker knows the run again; another one where the file is gone or damaged.
    """

    def __init__(self, facts: RunFacts, tracker: str) -> None:
        self._path = facts.root / FOLDER / f"{tracker}.json"
        self.id, self.trained, self.evaluated = secrets.token_hex(4), -1, -1
        self.is_known = False
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            self._read(json.loads(self._path.read_text(encoding="utf-8")))

    def _read(self, kept: dict[str, object]) -> None:
        found = str(kept["id"]), int(str(kept["trained"])), int(str(kept["evaluated"]))
        self.id, self.trained, self.evaluated = found
        self.is_known = True

    def begin_anew(self) -> None:
        """Nothing of what was sent is this run's."""
        self.id, self.trained, self.evaluated, self.is_known = secrets.token_hex(4), -1, -1, False

    def note(self, step: int, values: Values) -> None:
        """These figures are sent; a few microseconds, for it is written at every record."""
        if any(name.startswith("eval/") for name in values):
            self.evaluated = max(self.evaluated, step)
        elif "remark" not in values:
            self.trained = max(self.trained, step)
        self.keep()

    def keep(self) -> None:
        """Write it over what is there."""
        self._path.parent.mkdir(exist_ok=True)
        kept = {"id": self.id, "trained": self.trained, "evaluated": self.evaluated}
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(descriptor, f"{json.dumps(kept):<{_LENGTH - 1}}\n".encode(), 0)
        finally:
            os.close(descriptor)

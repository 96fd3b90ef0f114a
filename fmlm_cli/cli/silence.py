"""What to do once a command has said nothing for a while."""

import threading
import time
from collections.abc import Callable

_LONG = 2.0  # seconds


class SilenceWatch:
    """Calls `speak`, in a thread of its own, once nothing was told for two seconds; once for each silence."""

    def __init__(self, speak: Callable[[], None], after: float = _LONG) -> None:
        self._speak, self._after = speak, after
        self._since: float | None = time.monotonic()  # None: it has spoken
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="silence", daemon=True)

    def start(self) -> None:
        """From now on."""
        self._since = time.monotonic()
        self._thread.start()

    def told(self) -> None:
        """Something was told."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """Never again."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self._after / 8):
            since = self._since
            if since is not None and time.monotonic() - since > self._after:
                self._since = None
                self._speak()

"""One piece of work at a time, in a thread of its own."""

import threading
from collections.abc import Callable

_NAME = "saving"


def is_saving() -> bool:
    """Whether such a thread is at work in this process."""
    return any(thread.name == _NAME for thread in threading.enumerate())


class Background:
    """A thread for work that whoever gives it need not wait for; what it raises is kept for them.

    The thread is none that the interpreter leaves behind: a process ends when it has ended.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether there is something that has not ended."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, work: Callable[[], None]) -> None:
        """Have a thread do the work; the one before has ended, and its error was asked for."""
        assert not self.is_at_work and self._error is None

        def act() -> None:
            try:
                work()
            except BaseException as error:  # whatever it is, it is raised where it is asked for
                self._error = error

        self._thread = threading.Thread(target=act, name=_NAME)
        self._thread.start()

    def wait(self) -> None:
        """Until the work has ended."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def take_error(self) -> BaseException | None:
        """What the last work that ended raised, once."""
        if self.is_at_work:
            return None
        error, self._error = self._error, None
        return error

"""Requests to stop: Ctrl-C, and the signals by which schedulers, shells and closing terminals ask for it."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Final

from fmlm_cli.errors import Interrupted

# SIGHUP: a terminal was closed. SIGUSR1, SIGUSR2, SIGXCPU: schedulers' warnings (Slurm's --signal, Grid
# Engine's -notify and soft limits). Each would end a process unsaved.
STOPPING = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)

AtOnce = Callable[["StopRequest", FrameType | None], None]


class StoppedError(Exception):
    """A stop was asked for, and a piece of work that can be done again was left."""


def interrupt(request: "StopRequest", frame: FrameType | None) -> None:
    """Raise `Interrupted` wherever the process is at work."""
    raise request.interrupted("; nothing half-written was left")


@dataclass
class StopRequest:
    """Whether a stop was asked for, and by which signal first: many are one request.

    `patient`: whoever is at work looks here from time to time, and nothing is done `at_once`.
    `work_has_ended`: no more than what was found is to be told.
    """

    signal: int | None = None
    patient: bool = False
    at_once: AtOnce = interrupt
    times_ctrl_c: int = 0
    work_has_ended: bool = False

    @property
    def asked(self) -> bool:
        """Whether there is a request."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The shell's convention for a process that a signal ended."""
        return 128 + self._number

    @property
    def _number(self) -> int:
        """The signal; without one another process was asked, and stops this one."""
        return self.signal or signal.SIGTERM

    def interrupted(self, how_far: str) -> Interrupted:
        """What ends the process in order. `how_far`: what goes on the words "stopped by ..."."""
        cause = "Ctrl-C" if self._number == signal.SIGINT else signal.Signals(self._number).name
        return Interrupted(f"stopped by {cause}{how_far}", self.exit_code)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. Of all that follow the first only a second Ctrl-C does something."""
        self.times_ctrl_c += number == signal.SIGINT
        if number == signal.SIGINT and self.times_ctrl_c > 1:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a third one need not be waited for
            raise KeyboardInterrupt
        if self.asked:
            return
        self.signal = number
        if not self.patient:
            self.at_once(self, frame)


NEVER: Final = StopRequest()  # nobody asks: for work that signals interrupt at once
_of_process: StopRequest | None = None  # for handlers of signals are the process's


def listen(at_once: AtOnce = interrupt) -> StopRequest:
    """From now on the first signal that asks for a stop is acted on `at_once`.

    A signal that is ignored stays so: `nohup` has it ignored by inheritance.
    """
    global _of_process  # noqa: PLW0603 - so are the handlers
    _of_process = StopRequest(at_once=at_once)
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _of_process.hear)
    return _of_process


@contextlib.contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Listen while inside, unless the process does already.

    Outside the main thread signals cannot be handled, and nothing changes.
    """
    global _of_process  # noqa: PLW0603
    if threading.current_thread() is not threading.main_thread():
        yield StopRequest()
        return
    if _of_process is not None:
        yield _of_process
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield listen()
    finally:
        _of_process = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def graceful_stop() -> Iterator[StopRequest]:
    """While inside, a request is only noted, for whoever looks; one that nobody has heeded ends the block."""
    with stoppable() as request:
        request.patient = True
        try:
            yield request
        finally:
            request.patient = False
        if request.asked:
            interrupt(request, None)


def note_that_work_has_ended() -> None:
    """For whoever is asked to stop from now on."""
    if _of_process is not None:
        _of_process.work_has_ended = True


def ignore_from_now_on() -> None:
    """The process is about to end: a late signal changes nothing, least of all its exit code."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def stop_when_stdin_closes() -> None:
    """Take the end of the standard input, a pipe that another process holds open, as a request to stop.

    However that process ends, the operating system closes the pipe.
    """
    main = threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        while os.read(0, 1):
            pass
        signal.pthread_kill(main, signal.SIGTERM)  # ends what that thread waits for, too

    threading.Thread(target=watch, name="standard input", daemon=True).start()

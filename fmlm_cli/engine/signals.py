"""Requests to stop: Ctrl-C, and the signals by which schedulers, shells and closing terminals ask for it.

A limit of time is a signal too, SIGALRM, which the process has sent to itself early enough to save and end.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import Final

from fmlm_cli.errors import Interrupted, UserError

TEMPFAIL = 75  # EX_TEMPFAIL of sysexits.h: run it again
_ENDING_SECONDS = 5.0  # that a process takes to end once all is saved
_LOOK_EVERY = 1.0  # second
_PARENT = os.getppid()  # of a process that has only begun
_BEGAN = time.monotonic()  # the process, but for the moment that Python takes to get here

# SIGHUP: a terminal was closed. SIGUSR1, SIGUSR2, SIGXCPU: schedulers' warnings (Slurm's --signal, Grid
# Engine's -notify and soft limits). Each would end a process unsaved.
STOPPING = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
    signal.SIGALRM,
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
    `work_has_ended`: no more than what was found is to be told. `minutes`: how long the process may take in
    all. `requeue_code`: the exit code whatever asked for the stop. `keeps_time`: whether this process looks
    at the clock, or another one does for it. `ended_by`: what ends it that another thread has found.
    `tell_others`: where processes train together, whether this one is to say how it ends.
    """

    signal: int | None = None
    patient: bool = False
    at_once: AtOnce = interrupt
    times_ctrl_c: int = 0
    work_has_ended: bool = False
    minutes: float | None = None
    requeue_code: int | None = None
    keeps_time: bool = True
    ended_by: BaseException | None = None
    tell_others: Callable[[Interrupted], bool] = lambda error: True

    @property
    def asked(self) -> bool:
        """Whether there is a request."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """`TEMPFAIL` where time is up, else the shell's convention for a process that a signal ended."""
        if self.requeue_code is not None:
            return self.requeue_code
        return TEMPFAIL if self._is_by_time else 128 + self._number

    @property
    def _is_by_time(self) -> bool:
        return self._number == signal.SIGALRM and self.minutes is not None

    @property
    def seconds_left(self) -> float | None:
        """Until the process has to have ended; None where there is no limit."""
        return None if self.minutes is None else _BEGAN + 60 * self.minutes - time.monotonic()

    @property
    def _number(self) -> int:
        """The signal; without one another process was asked, and stops this one."""
        return self.signal or signal.SIGTERM

    def interrupted(self, how_far: str) -> Interrupted:
        """What ends the process in order. `how_far`: what goes on the words "stopped by ..."."""
        cause = "Ctrl-C" if self._number == signal.SIGINT else signal.Signals(self._number).name
        if self._is_by_time:
            cause = f"--max-minutes {self.minutes:g}"
        return Interrupted(f"stopped by {cause}{how_far}", self.exit_code)

    def keep_free(self, seconds: float) -> None:
        """From now on ask for a stop so early that this much is left before the process has to end."""
        left = self.seconds_left
        if left is not None and self.keeps_time and not self.asked:
            signal.setitimer(signal.ITIMER_REAL, max(left - _ENDING_SECONDS - seconds, 1e-3))

    def check_limit(self, seconds: float) -> None:
        """Refuse a limit of time that leaves nothing beside this much: the process would be begun in vain."""
        needed = seconds + _ENDING_SECONDS
        if self.minutes is not None and 60 * self.minutes <= needed:
            raise UserError(
                f"--max-minutes {self.minutes:g} is too short: {needed:.0f} s of it are kept for saving: "
                f"give {1 + 2 * needed / 60:.0f} or more"
            )

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. Of all that follow the first only a second Ctrl-C does something."""
        self.times_ctrl_c += number == signal.SIGINT
        if number == signal.SIGINT and self.times_ctrl_c > 1:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a third one need not be waited for
            raise KeyboardInterrupt
        if self.ended_by is not None and not self.patient:
            raise self.ended_by
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
        signal.setitimer(signal.ITIMER_REAL, 0)
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
    """For whoever is asked to stop from now on; time is up for nothing any more."""
    if _of_process is not None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _of_process.work_has_ended = True


def limit_process(minutes: float | None, requeue_code: int | None) -> None:
    """Stop by itself in time to end `minutes` after the process began; with this exit code for any stop."""
    if _of_process is not None:
        _of_process.minutes, _of_process.requeue_code = minutes, requeue_code
        _of_process.keep_free(0.0)


def of_process() -> StopRequest:
    """The one that the process listens for; where it does not listen, one that nobody makes."""
    return StopRequest() if _of_process is None else _of_process


def leave_the_clock_to_another() -> None:
    """Another process asks for a stop when time is up, and this one with it."""
    if _of_process is not None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _of_process.keeps_time = False


def end_by(error: BaseException) -> None:
    """From another thread: have the main thread raise this as if a signal had asked for it."""
    main = threading.main_thread().ident
    if _of_process is not None and main is not None:
        _of_process.ended_by = error
        signal.pthread_kill(main, signal.SIGTERM)  # ends what that thread waits for, too


def minutes_left() -> float | None:
    """What is left to this process, and to those that work for it; None where there is no limit."""
    left = None if _of_process is None else _of_process.seconds_left
    return None if left is None else max(left, 0.0) / 60


def out_of_time(how_far: str) -> Interrupted:
    """What ends a process whose time another one, which works for it, has found to be up."""
    return replace(of_process(), signal=signal.SIGALRM).interrupted(how_far)


def ignore_from_now_on() -> None:
    """The process is about to end: a late signal changes nothing, least of all its exit code."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def stop_when_stdin_closes() -> None:
    """Take the end of the standard input, a pipe that another process holds open, as a request to stop.

    However that process ends, the operating system closes the pipe.
    """

    def closed() -> None:
        while os.read(0, 1):
            pass

    _stop_after(closed)


def stop_when_parent_ends() -> None:
    """Take the end of the process that has started this one as a request to stop."""

    def ended() -> None:
        while not parent_has_ended():
            time.sleep(_LOOK_EVERY)

    _stop_after(ended)


def parent_has_ended() -> bool:
    """Whether the process that has started this one is no more."""
    return os.getppid() != _PARENT


def _stop_after(wait: Callable[[], None]) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        wait()
        signal.pthread_kill(main, signal.SIGTERM)  # ends what that thread waits for, too

    threading.Thread(target=watch, name="launcher", daemon=True).start()

"""Processes that make parts, so that encoding takes as many cores as there are.

One of them is the process that reads. The others import neither transformers nor torch, and end whatever ends
that one.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import chain, islice
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Generic, TypeVar

from fmlm_cli import storage
from fmlm_cli.cores import usable_cores
from fmlm_cli.corpus.store.making.parts import PartMaker
from fmlm_cli.errors import UserError

_MOST_FED = 16  # reading makes some 100 MB/s or more, a worker some 15
_WAITING = 4  # parts for each worker that may be finished before the one whose turn it is

T = TypeVar("T")


@dataclass(frozen=True)
class Job(Generic[T]):
    """A part to be made; `ticket`: what it is to whoever wants it."""

    name: str
    texts: Sequence[str]
    ticket: T


def most_workers() -> int:
    """The cores that this process may use, as far as workers can be fed: a single process reads for all."""
    return min(usable_cores(), _MOST_FED)


def made_parts(
    maker: PartMaker, jobs: Iterable[Job[T]], workers: int
) -> Generator[tuple[T, dict[str, Any]], None, None]:
    """Make parts, in so many processes, this one of them; their tickets and entries in the jobs' order.

    Few jobs are under way at a time, which bounds the memory. A single one is done here, as it would end
    before another process has begun. Where taking a job raises `UserError`, those before are finished first.
    """
    jobs = iter(jobs)
    first: list[Job[T]] = []
    failure = _take(jobs, first, 2)
    if workers == 1 or len(first) < 2:
        make = maker.start()
        with _one_thread() if workers == 1 else contextlib.nullcontext():
            for job in chain(_taken(first), jobs):
                yield job.ticket, make(job.name, job.texts)
                del job  # its texts are not wanted while the next ones are read
    else:
        with _one_thread(), _pool(maker, workers - 1) as submit:
            try:
                yield from _in_order(_Makers(maker, submit, workers), chain(_taken(first), jobs))
            except BrokenProcessPool as error:
                raise UserError(
                    "a worker process was killed, for want of memory perhaps, or could not begin (a script "
                    'has to do this under `if __name__ == "__main__":`): --resume goes on, with fewer '
                    "--workers"
                ) from error
    if failure is not None:
        raise failure


def _taken(jobs: list[Job[T]]) -> Iterator[Job[T]]:
    """The jobs in order, of which the list keeps none."""
    while jobs:
        yield jobs.pop(0)


def _take(jobs: Iterator[Job[T]], into: list[Job[T]], number: int) -> UserError | None:
    """Take jobs; what kept from taking more."""
    try:
        into.extend(job for job in islice(jobs, number))
    except UserError as error:
        return error
    return None


Submit = Callable[[Job[Any]], "Future[dict[str, Any]]"]


class _Makers:
    """All that make parts: other processes, and this one as soon as enough waits for them."""

    def __init__(self, maker: PartMaker, submit: Submit, workers: int) -> None:
        self.most_waiting = _WAITING * workers
        self._submit, self._others = submit, workers - 1
        self._maker = maker
        self._make: Callable[[str, Sequence[str]], dict[str, Any]] | None = None
        self._submitted: list[Future[dict[str, Any]]] = []

    def __call__(self, job: Job[Any]) -> "Future[dict[str, Any]]":
        self._submitted = [made for made in self._submitted if not made.done()]
        if len(self._submitted) < 2 * self._others:
            self._submitted.append(self._submit(job))
            return self._submitted[-1]
        made: Future[dict[str, Any]] = Future()
        try:
            if self._make is None:  # the others are on their way by now
                self._make = self._maker.start()
            made.set_result(self._make(job.name, job.texts))
        except Exception as error:  # it is raised in its turn
            made.set_exception(error)
        return made


def _in_order(make: _Makers, jobs: Iterator[Job[T]]) -> Iterator[tuple[T, dict[str, Any]]]:
    waiting: deque[tuple[T, Future[dict[str, Any]]]] = deque()
    while True:
        taken: list[Job[T]] = []
        failure = _take(jobs, taken, 1)
        ended = not taken
        waiting.extend((job.ticket, make(job)) for job in _taken(taken))
        while waiting and (ended or len(waiting) > make.most_waiting or waiting[0][1].done()):
            ticket, made = waiting.popleft()
            yield ticket, made.result()
        if failure is not None:
            raise failure
        if ended:
            return


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Have the tokenizers library use the thread that calls it, and no other."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


@contextlib.contextmanager
def _pool(maker: PartMaker, workers: int) -> Iterator[Submit]:
    """Processes that make parts. They end with the block, and at once where something ends it early."""
    context = multiprocessing.get_context("spawn")
    # Nothing is ever written. That this process holds the other end open is what a worker lives by.
    until_closed, held_open = context.Pipe(duplex=False)
    with _as_file(maker.pipeline, maker.folder) as pipeline:
        arguments = (until_closed, replace(maker, pipeline=""), pipeline)
        pool = ProcessPoolExecutor(workers, context, _begin, arguments)

        def submit(job: Job[Any]) -> "Future[dict[str, Any]]":
            with _no_signals():  # the first one starts the processes, and they inherit what is blocked
                return pool.submit(_make, job.name, job.texts)

        try:
            yield submit
            pool.shutdown()
        finally:
            held_open.close()
            pool.shutdown(cancel_futures=True)
            until_closed.close()


@contextlib.contextmanager
def _as_file(pipeline: str, folder: Path) -> Iterator[Path]:
    """A file of a pipeline, for as long as the block.

    A worker that ends as it begins, as those of a script without a guard do, leaves what it was given unread:
    what does not fit into a pipe would be written for ever.
    """
    with storage.clear_disk_errors(folder):
        file = NamedTemporaryFile(dir=folder)  # noqa: SIM115 - it is closed below
        try:
            file.write(pipeline.encode())
            file.flush()
        except BaseException:
            file.close()
            raise
    with file:
        yield Path(file.name)


@contextlib.contextmanager
def _no_signals() -> Iterator[None]:
    """Hear no signal that asks for a stop until the end of the block."""
    stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_make_part: Callable[[str, Sequence[str]], dict[str, Any]]  # of a worker, once it has begun


def _begin(until_closed: Connection, maker: PartMaker, pipeline: Path) -> None:
    """Begin a worker, with the maker's pipeline from a file.

    It heeds no signal: whoever has started it is asked to stop as well.
    """
    global _make_part  # noqa: PLW0603 - an initializer has no other way to leave something behind
    os.environ["TOKENIZERS_PARALLELISM"] = "false"

    def end() -> None:
        with contextlib.suppress(EOFError, OSError):
            until_closed.recv_bytes()
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
    _make_part = replace(maker, pipeline=pipeline.read_bytes().decode()).start()


def _make(name: str, texts: Sequence[str]) -> dict[str, Any]:
    return _make_part(name, texts)

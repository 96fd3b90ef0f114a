"""Jobs worked through, by this process or spread over several, and a report once all are done."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from fmlm_cli import storage
from fmlm_cli.errors import InUseError, UserError
from fmlm_cli.events import Emit, Note
from fmlm_cli.recipes.jobs.board import Board
from fmlm_cli.recipes.jobs.ledger import Job, Ledger, parse_share
from fmlm_cli.recipes.jobs.processes import spread

J = TypeVar("J", bound=Job)
R = TypeVar("R")
T = TypeVar("T")
Report = TypeVar("Report")

_NAMED = 3  # unfinished jobs that are named
_ENDING_SECONDS = 60  # that a process may take to save what it has


@dataclass(frozen=True)
class Sharing:
    """Who does the jobs of a call. `UserError` for what is no way of sharing.

    `cell`: "i/n", this process does one share, and others the rest. `processes`: they share all jobs.
    `report_only`: nobody does any. `report`: whether this call writes one once all are done.
    """

    cell: str | None = None
    processes: int = 1
    report_only: bool = False
    report: bool = True

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise UserError(f"--jobs {self.processes}: give 1 or more")
        if self.processes > 1 and self.goes_on:
            raise UserError("--jobs makes processes of its own: leave out --cell and --report-only")
        if self.cell is not None:
            parse_share(self.cell)

    @property
    def goes_on(self) -> bool:
        """Whether the call needs what others do in the same folder."""
        return self.cell is not None or self.report_only

    def check_overwrite(self, overwrite: bool) -> None:
        """Refuse to replace what others do, or have done."""
        if overwrite and self.goes_on:
            raise UserError("--cell and --report-only go on with what is there: leave out --overwrite")


@contextmanager
def owned_by(
    sharing: Sharing, root: Path, kind: storage.Kind, *, overwrite: bool, resume: bool, emit: Emit
) -> Iterator[storage.OwnedFolder]:
    """Own the folder in which jobs are done: alone, or together with others that do a share of them.

    Processes of a call that was killed save what they have, and end: a call that goes on waits for them.
    """
    together = sharing.goes_on

    def own() -> storage.OwnedFolder:
        going_on = resume or together
        folder = storage.owned_folder(
            root,
            kind,
            overwrite=overwrite,
            resume=going_on,
            shared=together,
            tell=lambda text: emit(Note(text)),
        )
        return stack.enter_context(folder)

    with ExitStack() as stack:
        folder = _patiently(own, emit, hopeful=lambda: resume and not storage.in_use(root))
        if not together:  # by which others know that whoever began the work is still there
            _patiently(lambda: stack.enter_context(storage.sole_owner(root)), emit)
        yield folder


def work_through(
    ledger: Ledger[J, R],
    do: Callable[[J], R],
    board: Board[J, R],
    sharing: Sharing,
    words: Sequence[str],
    folder: storage.OwnedFolder,
) -> None:
    """Do what of the jobs is left to this process, or have it done by processes that run `fmlm` with `words`.

    `do` works at a claimed job and gives back what it found. What processes say goes to logs in the `folder`.
    """
    if sharing.report_only:
        return
    if sharing.processes == 1:
        for job in ledger.share(sharing.cell):
            _patiently(partial(_do, job, ledger, do, board), board.emit)
        return
    unfinished = {job.name for job in ledger.unfinished}
    groups = [group for group in ledger.groups if any(job.name in unfinished for job in group)]
    if groups:
        folder.share()
        spread(words, min(sharing.processes, len(groups)), folder.root / "logs", board.look)
        board.look()


def _patiently(act: Callable[[], T], emit: Emit, hopeful: Callable[[], bool] = lambda: True) -> T:
    """Do what another process may still be at, and wait for a while if that is `hopeful`."""
    told, until = False, time.monotonic() + _ENDING_SECONDS
    while True:
        try:
            return act()
        except InUseError as error:
            if time.monotonic() > until or not hopeful():
                raise
            if not told:
                emit(Note(f"waiting up to {_ENDING_SECONDS} s: {error}"))
            told = True
            time.sleep(0.5)


def _do(job: J, ledger: Ledger[J, R], do: Callable[[J], R], board: Board[J, R]) -> None:
    """Do a job, unless it is finished already."""
    ledger.check(job)
    if ledger.result(job) is not None:
        return
    board.begin(job)
    with ledger.claim(job):
        ledger.enter(job, do(job))
    board.end(job)


def report_once_done(
    ledger: Ledger[J, R],
    write: Callable[[], Report],
    sharing: Sharing,
    lock: Path,
    emit: Emit,
    *,
    insist: bool = False,
) -> Report | None:
    """What `write` makes of the results, if a report is wanted and all jobs are done.

    Where some are left it is said how many are done, or a call that `insist`s on a report is refused.
    `lock`: a file by which one process at a time writes.
    """
    if not sharing.report:
        return None
    ledger.check_all()
    missing = [job.name for job in ledger.unfinished]
    if missing:
        total = len(ledger.jobs)
        done = f"{total - len(missing)} of {total} {ledger.noun} are done"
        if insist:
            named = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
            raise UserError(
                f"{done}, and {named} not: do them with --resume, or the other shares with --cell"
            )
        emit(Note(f"{done}: there is a report once all are"))
        return None
    with storage.one_at_a_time(lock):  # two processes may have finished the last jobs
        return write()

"""Processes of this machine that train one model together, started and ended by this one."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fmlm_cli.cores import usable_cores
from fmlm_cli.engine.ranks.launch import RENDEZVOUS, Launch
from fmlm_cli.engine.signals import StopRequest, graceful_stop, parent_has_ended
from fmlm_cli.errors import AnotherEndedError

_LOOK_EVERY = 0.1  # seconds
_TO_END = 12.0  # seconds that the others are given when one has failed: more than they take by themselves


def run_ranks(number: int, words: Sequence[str]) -> None:
    """Run `fmlm` with these words in `number` processes that train together, until all have ended.

    The first of them has this process's standard streams, but for the input. Signals that ask for a stop are
    passed on, once. Raises `AnotherEndedError` with the exit code of the first that failed, and with what it
    said where that was not seen. Whatever ends this process early, be it SIGKILL, has them all stop.
    """
    with (
        tempfile.TemporaryDirectory(prefix="fmlm-ranks-", ignore_cleanup_errors=True) as folder,
        graceful_stop() as stop,
    ):
        running = _Ranks(Path(folder), number)
        with _ended(running):
            running.start(words)
            failed = running.wait(stop)
        if failed is not None:
            raise AnotherEndedError(*running.ending_of(failed))
        stop.signal = None  # it was passed on, and what came of it is what all did


def tidy_up_after_launcher(launch: Launch) -> None:
    """Remove the folder in which processes have met, if the one that started them cannot: it was killed."""
    if launch.by == "fmlm" and launch.rank == 0 and parent_has_ended():
        shutil.rmtree(Path(urlsplit(launch.rendezvous).path).parent, ignore_errors=True)


class _Ranks:
    """The processes, by rank; what all but the first say is kept in the folder."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number
        self.processes: list[subprocess.Popen[bytes]] = []
        # Nothing is ever written: whatever ends this process closes the pipe, and by that the others end.
        self.until_closed, self.held_open = os.pipe()

    def start(self, words: Sequence[str]) -> None:
        for rank in range(self.number):
            with self._said(rank).open("wb") as said:
                self.processes.append(
                    subprocess.Popen(
                        [*fmlm_command(), "--until-stdin-closes", *words],
                        stdin=self.until_closed,
                        env={**os.environ, **self._environment(rank)},
                        start_new_session=True,  # Ctrl-C and a closing terminal reach this process alone
                        stdout=subprocess.DEVNULL if rank else None,
                        stderr=said if rank else None,
                    )
                )

    def wait(self, stop: StopRequest) -> int | None:
        """The rank that failed first, once all have ended; None if none did.

        The others of one that failed are given some time, and then killed.
        """
        failed, until, passed_on = None, float("inf"), False
        while any(process.poll() is None for process in self.processes):
            if stop.signal is not None and not passed_on:
                passed_on = True
                self._send(stop.signal)
            failed = self._failed() if failed is None else failed
            if failed is not None:
                until = min(until, time.monotonic() + _TO_END)
            if time.monotonic() > until:
                self._send(signal.SIGKILL)
            time.sleep(_LOOK_EVERY)
        return self._failed() if failed is None else failed

    def ending_of(self, rank: int) -> tuple[int, str]:
        """The exit code of a process, and in words what ended it, unless it was seen."""
        code = self.processes[rank].returncode
        if code < 0:
            name = signal.Signals(-code).name
            return 128 - code, f"rank {rank} of {self.number} was ended by {name}: --resume goes on"
        lines = self._said(rank).read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
        return code, lines[-1]

    def end(self) -> None:
        """Stop what is still running."""
        os.close(self.until_closed)
        os.close(self.held_open)
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def _send(self, number: int) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def _failed(self) -> int | None:
        """A rank that failed: one that was killed, one that told why, or any."""
        failed = [rank for rank, process in enumerate(self.processes) if process.poll()]
        told = [rank for rank in failed if self._said(rank).stat().st_size]
        killed = [rank for rank in failed if self.processes[rank].returncode < 0]
        return next(iter([*killed, *told, *failed]), None)

    def _said(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}"

    def _environment(self, rank: int) -> Mapping[str, str]:
        """A process's place among the others, and its part of the processor."""
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, usable_cores() // self.number))
        return {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self.number),
            "LOCAL_WORLD_SIZE": str(self.number),
            RENDEZVOUS: str(self.folder / "store"),
            "OMP_NUM_THREADS": threads,
        }


@contextlib.contextmanager
def _ended(ranks: _Ranks) -> Iterator[None]:
    try:
        yield
    finally:
        ranks.end()


def fmlm_command() -> list[str]:
    """How to run `fmlm` with the modules that this process runs: not those of the working folder (-P)."""
    from_working_folder = {"", str(Path.cwd())} & set(sys.path)
    return [sys.executable, *([] if from_working_folder else ["-P"]), "-m", "fmlm_cli"]

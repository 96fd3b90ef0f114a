"""Each contestant as a command in a process of its own, and what it left to read."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tests.benchmarks.contest import Contestant, Fmlm, Measured, NotRunError, Pace, Stock, Workload
from tests.environment import ROOT

_POLL = 0.05  # seconds
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


def leave_in_order() -> None:
    """From now on a signal ends this process by an exception, and with it the command that it runs."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)


@dataclass(frozen=True)
class Ended:
    """A process that is over: what it printed, how long it took, and its peak resident memory in GiB.

    `cpu`: seconds of processors, of it and of all that it has started and waited for.
    """

    said: str
    seconds: float
    memory: float
    cpu: float


def run_command(
    command: Sequence[str], folder: Path, limit: float, *, memory: Callable[[int], float] | None = None
) -> Ended:
    """Run a command in `folder`, with this checkout's code and no network, for at most `limit` seconds.

    Raises `NotRunError` if it fails or is not done by then. Memory includes what this process held when it
    started the other, so this one imports nothing large; or it is the most that `memory` tells of the process.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
    log, begin = folder / "said.txt", time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # with whatever it starts it can be ended as one
        )
        try:
            code, peak, cpu = _wait(process, begin + limit, memory)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    said = log.read_text(encoding="utf-8", errors="replace")
    if code != 0:
        raise NotRunError(f"failed: {_last_line(said)}")
    return Ended(said, time.monotonic() - begin, peak, cpu)


def _wait(
    process: subprocess.Popen[bytes], end: float, memory: Callable[[int], float] | None
) -> tuple[int, float, float]:
    """The exit code, the peak memory in GiB, and the seconds of processors."""
    peak = 0.0
    while time.monotonic() < end:
        peak = max(peak, memory(process.pid)) if memory else peak
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            peak = peak if memory else usage.ru_maxrss * _MAXRSS_UNIT / 2**30
            return process.returncode, peak, usage.ru_utime + usage.ru_stime
        time.sleep(_POLL)
    raise NotRunError("no time left")


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


@dataclass(frozen=True)
class Bench:
    """Where contestants run. `stores`: by text. `workers`: processes that make the stock Trainer's batches."""

    folder: Path
    device: str
    stores: Mapping[str, Path]
    models: Path
    workers: int = 0

    def measure(self, contestant: Contestant, limit: float) -> Measured:
        """Run one. Raises `NotRunError`."""
        place = self.folder / "running"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            if isinstance(contestant, Fmlm):
                return self._measure_fmlm(contestant, place, limit)
            return self._measure_stock(contestant, place, limit)
        finally:
            shutil.rmtree(place, ignore_errors=True)  # a checkpoint of bert-base takes more than a gigabyte

    def _measure_fmlm(self, fmlm: Fmlm, place: Path, limit: float) -> Measured:
        ended = run_command(self.fmlm_command(fmlm), place, limit)
        lines = (place / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        windows, warm_up = windows_of(records, fmlm.pace)
        allocated = max((record.get("memory_gib", 0.0) for record in records), default=0.0) or None
        memory = ended.memory if self.device == "cpu" else allocated
        return Measured(windows, warm_up, ended.seconds, memory, _waited(records))

    def _measure_stock(self, stock: Stock, place: Path, limit: float) -> Measured:
        ended = run_command(self.stock_command(stock), place, limit)
        report = json.loads((place / "report.json").read_text(encoding="utf-8"))
        windows = tuple((int(tokens), float(seconds)) for tokens, seconds in report["windows"])
        memory = ended.memory if self.device == "cpu" else report["memory"]
        return Measured(windows, report["warm_up"], ended.seconds, memory)

    def fmlm_command(self, fmlm: Fmlm) -> list[str]:
        """`fmlm pretrain` on a workload."""
        work = fmlm.workload
        preset = work.model if fmlm.bare else str(self.models / work.model / "config.json")
        command = [*(sys.executable, "-m", "fmlm_cli", "pretrain")]
        command += ["--data", str(self.stores[work.text]), "--model", preset]
        command += ["--steps", str(fmlm.pace.total), "--out", "run"]
        settings = () if fmlm.bare else (*self._settings(work, fmlm.pace), *fmlm.settings)
        return [*command, *itertools.chain.from_iterable(("--set", setting) for setting in settings)]

    def _settings(self, work: Workload, pace: Pace) -> list[str]:
        """What makes a run of this shape; evaluations and checkpoints, which are not timed, are few."""
        settings = [f"device={self.device}", f"sequence_length={work.length}", f"batch.size={work.rows}"]
        settings += ["evaluation.max_rows=16", f"evaluation.every_steps={pace.total}"]
        settings += [f"checkpoint.every_steps={pace.total}", "logging.every_steps=1"]
        return [*settings, "data.packing=none"] if work.text == "real" else settings

    def stock_command(self, stock: Stock) -> list[str]:
        """The stock Trainer on a workload."""
        work, pace = stock.workload, stock.pace
        command = [sys.executable, "-m", "tests.benchmarks.stock_trainer"]
        command += ["--store", str(self.stores[work.text]), "--config", str(self.models / work.model)]
        command += ["--report", "report.json", "--text", work.text, "--device", self.device]
        numbers = {"rows": work.rows, "length": work.length, "workers": self.workers}
        numbers |= {"warm-up": pace.warm_up, "windows": pace.windows, "steps": pace.steps}
        command += [f"--{name}={number}" for name, number in numbers.items()]
        return [*command, "--compiled"] if stock.compiled else command


def windows_of(
    records: Sequence[Mapping[str, Any]], pace: Pace
) -> tuple[tuple[tuple[int, float], ...], float | None]:
    """(tokens, seconds) of each window of a run by its metrics.jsonl; and the seconds of its warm-up.

    Where training records have no `seconds`, there is one window, of the latest speed that the run tells.
    Raises `NotRunError` where records of the windows are missing.
    """
    training = {record["step"]: record for record in records if "loss" in record}
    missing = [step for step in pace.marks if step and step not in training]
    if missing:
        raise NotRunError(f"failed: metrics.jsonl has no record of step {missing[0]}")
    last = training[pace.total]
    if "seconds" not in last:
        tokens = int(last["tokens"])
        return ((tokens, tokens / last["tokens_per_second"]),), None
    taken = [_taken(training, step) for step in pace.marks]
    windows = ((b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(taken))
    return tuple(windows), taken[0][1]


def _waited(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of its time in which a run waited for data, as its latest record tells."""
    told = [float(record["data_wait_share"]) for record in records if "data_wait_share" in record]
    return told[-1] if told else None


def _taken(training: Mapping[int, Mapping[str, Any]], step: int) -> tuple[int, float]:
    """Tokens and seconds of training up to a step."""
    record = training[step] if step else {"tokens": 0, "seconds": 0.0}
    return int(record["tokens"]), float(record["seconds"])

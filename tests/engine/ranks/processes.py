"""Processes that train together, forked from one server that has loaded the libraries: they begin in no time."""

import multiprocessing
import os
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from fmlm_cli.engine.ranks.launch import Launch
from fmlm_cli.engine.ranks.processes import joined
from fmlm_cli.engine.ranks.protocol import Ranks
from fmlm_cli.engine.saving.background import is_saving
from fmlm_cli.errors import process_of
from tests.environment import python_path


@dataclass(frozen=True)
class Ended:
    """A process that ended by an error: its kind, its words, its exit code where it has one.

    `named`: whether the process is named in what is told.
    """

    kind: type[BaseException]
    words: str
    code: int | None
    named: bool = False


@dataclass(frozen=True)
class Gone:
    """A process that ended without a word: its exit code, or the negative number of a signal."""

    code: int | None


Outcome = Any  # what a process's function returned, or how it ended

_PRELOADED = ["fmlm_cli.recipes.pretraining.run", "fmlm_cli.engine.ranks.processes", __name__]


def on_processes(world: int, act: Callable[..., Any], *arguments: Any, limit: float = 120) -> list[Outcome]:
    """What `act(ranks, *arguments)` comes to in each of `world` processes; `act` is of a module's top."""
    context = multiprocessing.get_context("forkserver")
    os.environ["PYTHONPATH"] = python_path()
    context.set_forkserver_preload(_PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for rank in range(world):
            ours, theirs = context.Pipe(duplex=False)
            launch = Launch(rank, world, rank, world, f"file://{Path(folder, 'store')}", "torchrun")
            process = context.Process(target=_one, args=(theirs, launch, act, arguments), daemon=True)
            process.start()
            theirs.close()
            started.append((process, ours))
        outcomes = []
        for process, ours in started:
            outcomes.append(_receive(ours, limit))
            process.join(limit)
            assert process.exitcode is not None, "a process hangs"
            if isinstance(outcomes[-1], Gone):
                outcomes[-1] = Gone(process.exitcode)
        return outcomes


def results(outcomes: list[Outcome]) -> list[Any]:
    """The same, where none may have ended by an error."""
    for outcome in outcomes:
        assert not isinstance(outcome, Ended | Gone), outcome
    return outcomes


def _receive(connection: Connection, limit: float) -> Outcome:
    """What a process sent; `Gone` if that is nothing."""
    try:
        return pickle.loads(connection.recv_bytes()) if connection.poll(limit) else Gone(None)
    except EOFError:
        return Gone(None)


def _one(connection: Connection, launch: Launch, act: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    try:
        with joined(launch, is_saving) as ranks:
            outcome = act(ranks, *arguments)
    except BaseException as error:
        outcome = Ended(
            type(error), str(error), getattr(error, "exit_code", None), process_of(error) is not None
        )
    connection.send_bytes(pickle.dumps(outcome))  # torch would have tensors share memory with who has ended


def rank_of(ranks: Ranks) -> int:
    """The number of one of such processes."""
    return ranks.place(0)

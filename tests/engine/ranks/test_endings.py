"""The end of one process is the end of all: soon, whatever they are at, told once and by its name."""

import os
import signal
import socket
import subprocess
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from fmlm_cli.engine import signals
from fmlm_cli.engine.ranks import processes, watch, wires
from fmlm_cli.engine.ranks.endings import LostRankError
from fmlm_cli.engine.ranks.launch import Launch
from fmlm_cli.engine.ranks.protocol import Ranks
from fmlm_cli.engine.saving.background import Background
from fmlm_cli.errors import AnotherEndedError, Interrupted, UserError
from tests.engine.ranks.processes import Ended, Gone, on_processes, rank_of


def _end(ranks: Ranks, how: str) -> None:
    ranks.any(False)
    if rank_of(ranks) == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "out of memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if how == "stopped":
            raise Interrupted("stopped by SIGUSR1", 138)
        raise UserError("the disk of this machine is full")
    ranks.gather("what the others wait for")


@pytest.mark.parametrize(
    ("how", "kind", "code"),
    [
        ("refused", UserError, 2),
        ("stopped", Interrupted, 138),
        ("out of memory", torch.OutOfMemoryError, 2),
    ],
)
def test_who_ends_first_tells_and_the_others_end_with_its_code(
    how: str, kind: type[BaseException], code: int
) -> None:
    begin = time.monotonic()
    first, second, third = on_processes(3, _end, how)
    assert time.monotonic() - begin < 30
    assert second.kind is kind and second.named
    assert first == third == Ended(AnotherEndedError, "", code)


def test_of_one_that_was_killed_the_first_tells() -> None:
    begin = time.monotonic()
    first, second, third = on_processes(3, _end, "killed")
    assert time.monotonic() - begin < 30
    assert second == Gone(-signal.SIGKILL)
    assert first.kind is LostRankError
    assert first.words.startswith("rank 1 of 3 (") and "has ended without a word" in first.words
    assert third == Ended(AnotherEndedError, "", 2)


def _same_mistake(ranks: Ranks) -> None:
    ranks.any(True)
    raise UserError("not finite at step 3")


def test_what_all_meet_is_told_once() -> None:
    first, *others = on_processes(3, _same_mistake)
    assert first == Ended(UserError, "not finite at step 3", None)
    assert others == [Ended(AnotherEndedError, "", 2)] * 2


def test_nobody_leaves_before_all_have_come_to_the_end() -> None:
    """So a run whose writer fails in the end has not succeeded anywhere."""
    outcomes = on_processes(2, _fail_in_the_end)
    assert [outcome.kind for outcome in outcomes] == [UserError, AnotherEndedError]


def _fail_in_the_end(ranks: Ranks) -> None:
    if ranks.is_writer:
        time.sleep(0.2)
        raise UserError("no space left for the model")


def _lose_the_first(ranks: Ranks) -> None:
    ranks.any(False)
    if ranks.is_writer:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.any(False)


def test_of_the_first_the_second_tells() -> None:
    first, second, third = on_processes(3, _lose_the_first)
    assert first == Gone(-signal.SIGKILL) and third == Ended(AnotherEndedError, "", 2)
    assert second.kind is LostRankError and second.words.startswith("rank 0 of 3 (")


# ---------------------------------------------------------------- who is not in a collective, or never leaves it


def _busy(ranks: Ranks, how: str) -> float:
    """The first process is at work alone, as at tokenizing, when the other one fails."""
    ranks.any(False)
    if not ranks.is_writer:
        raise UserError("the disk of this machine is full")
    if how == "deaf":  # to signals too, as in a library's call
        watch._TO_COME_OUT = 1.0
        time.sleep(60)
    with signals.stoppable():
        time.sleep(60)
    return 0.0


def test_a_process_that_is_at_work_alone_is_interrupted() -> None:
    begin = time.monotonic()
    first, second = on_processes(2, _busy, "listening")
    assert time.monotonic() - begin < 30
    assert first == Ended(AnotherEndedError, "", 2) and second.kind is UserError


def test_a_process_that_does_not_come_out_is_ended() -> None:
    begin = time.monotonic()
    first, second = on_processes(2, _busy, "deaf")
    assert time.monotonic() - begin < 30
    assert first == Gone(2) and second.kind is UserError


def _busy_and_saving(ranks: Ranks, folder: str) -> None:
    ranks.any(False)
    if not ranks.is_writer:
        raise UserError("the disk of this machine is full")
    watch._TO_COME_OUT = 0.1

    def save() -> None:
        time.sleep(1.5)
        Path(folder, "saved").touch()

    Background().begin(save)
    time.sleep(60)


def test_a_checkpoint_that_is_being_written_may_be_finished(tmp_path: Any) -> None:
    first, _ = on_processes(2, _busy_and_saving, str(tmp_path))
    assert first == Gone(2) and (tmp_path / "saved").exists()


def _fall_silent(ranks: Ranks) -> None:
    watch._SILENT, watch._TO_COME_OUT = 2.0, 0.5
    ranks.any(False)
    if rank_of(ranks) == 1:
        me = os.getpid()
        subprocess.Popen(["sh", "-c", f"sleep 4; kill -CONT {me}"])
        os.kill(me, signal.SIGSTOP)
    ranks.any(False)


def test_a_process_that_gives_no_sign_of_life_ends_all() -> None:
    """gloo waits for it for ever, so that the other does not come out by itself."""
    begin = time.monotonic()
    first, second = on_processes(2, _fall_silent)
    assert time.monotonic() - begin < 30
    assert first == Gone(2)
    assert second.kind in (LostRankError, AnotherEndedError)


# ---------------------------------------------------------------- how they find each other


@pytest.mark.parametrize("by", ["file", "tcp"])
def test_who_does_not_come_at_all_is_named_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by: str
) -> None:
    """As one that is killed while it begins, where nobody but the others would see it."""
    monkeypatch.setattr(processes, "_TO_MEET", timedelta(seconds=0.6))
    monkeypatch.setattr(processes, "_TO_BE_MISSED", 0.1)
    told: dict[int, list[str]] = {0: [], 2: []}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = f"tcp://127.0.0.1:{port}" if by == "tcp" else f"file://{tmp_path / 'store'}"
    ended: dict[int, BaseException] = {}

    def come(rank: int) -> None:
        launch = Launch(rank, 4, rank, 4, where, "srun")
        try:
            place = processes._meeting_place(launch)
            processes._await_all(place, launch, told[rank].append)
        except BaseException as error:
            ended[rank] = error

    coming = [threading.Thread(target=come, args=(rank,)) for rank in (0, 2)]
    for thread in coming:
        thread.start()
    for thread in coming:
        thread.join(20)
    assert isinstance(ended[0], UserError) and str(ended[0]).startswith("rank 1, 3 of 4 is not there 0.01")
    assert isinstance(ended[2], AnotherEndedError) and ended[2].exit_code == 2
    [said] = told[0]
    assert said.startswith("waiting up to 0.01 minutes for rank 1, 3 of 4, which") and not told[2]


def _launch(rank: int, world: int, here: int) -> Launch:
    return Launch(rank, world, rank % here, here, "tcp://localhost:1", "srun")


@pytest.mark.parametrize("here", [3, 1])
def test_connections_are_for_those_who_know_the_secret(here: int) -> None:
    """On one machine, and as on three; a stranger who comes first is sent away."""
    told: list[wires.Place] = []
    strangers: list[socket.socket] = []
    ready = threading.Event()
    found: dict[int, Any] = {}

    def tell(place: wires.Place | None) -> wires.Place:
        if place is not None:
            port, secret, addresses = place
            strangers.append(socket.create_connection(("localhost", port)))
            strangers[0].sendall(b"GET / HTTP/1.1\r\nHost: all\r\n")
            told.append((port, secret, ["no-such-host.invalid", *addresses]))
            ready.set()
        assert ready.wait(20)
        return told[0]

    def join(rank: int) -> None:
        found[rank] = wires.connect(_launch(rank, 3, here), tell)

    joining = [threading.Thread(target=join, args=(rank,)) for rank in range(3)]
    for thread in joining:
        thread.start()
    for thread in joining:
        thread.join(30)
    assert set(found[0]) == {1, 2} and set(found[1]) == set(found[2]) == {0}
    for rank in (1, 2):
        found[rank][0].send_bytes(str(rank).encode())
        assert found[0][rank].recv_bytes() == str(rank).encode()
    strangers[0].close()
    for connections in found.values():
        for connection in connections.values():
            connection.close()


def test_who_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wires, "_TO_CONNECT", 0.1)
    with pytest.raises(UserError, match="rank 1, 2 of 3 cannot reach the first process's machine"):
        wires.connect(_launch(0, 3, 3), lambda place: place or (0, b"", []))
    with pytest.raises(UserError, match="rank 1 of 3 cannot reach the first one at port 9 of localhost"):
        wires.connect(_launch(1, 3, 3), lambda _: (9, b"secret", ["localhost"]))

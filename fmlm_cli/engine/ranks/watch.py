"""A watch over processes that train together, which needs nothing of what they train by.

Each has a thread of its own, connected to the first process's. A process that raises says so there before it
goes; of one that is killed the connection closes; one that is stopped, or whose machine or network has gone,
gives no more signs of life. The first process takes the first ending that it hears of for all. A process
whose main thread waits for one that has gone, in a collective of a GPU or of a library, is ended by its
watch.
"""

import contextlib
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from threading import Event, Lock, Thread

from fmlm_cli.engine import signals
from fmlm_cli.engine.ranks.endings import Ending, LostRankError
from fmlm_cli.engine.ranks.launch import Launch
from fmlm_cli.errors import USER_ERROR, AnotherEndedError, ending_of

_EVERY = 1.0  # second between signs of life
_SILENT = 20.0  # seconds without one; those in which this process was stopped itself do not count
_TO_COME_OUT = 5.0  # seconds for a process to leave what it is at by itself
_TO_SAVE = 5.0  # and more of them while a checkpoint is being written
_TO_HEAR = 3.0  # for an ending that has happened to be known here
_THE_SAME = 0.5  # for the first process to meet what another one has met
_GOES_ON = "the same command with --resume goes on from the newest checkpoint"
_SIGN, _FAREWELL = b"alive", b"farewell"


class Watch:
    """One process's. `hosts`: each rank's machine. `peers`: connections, by rank, as `wires.connect` says.

    `is_saving`: whether the end of this process would cost what is being written.
    """

    def __init__(
        self,
        launch: Launch,
        hosts: list[str],
        peers: dict[int, Connection],
        is_saving: Callable[[], bool],
    ) -> None:
        self._launch, self._hosts, self._peers, self._is_saving = launch, hosts, peers, is_saving
        self._silent = dict.fromkeys(peers, 0.0)
        self._ending: Ending | None = None
        self._lock, self._known, self._closed = Lock(), Event(), Event()
        self._is_leaving = False
        self._thread = Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    @property
    def _is_first(self) -> bool:
        return self._launch.rank == 0

    def name_of(self, rank: int) -> str:
        """A process, in words."""
        return f"rank {rank} of {self._launch.world} ({self._hosts[rank]})"

    # ------------------------------------------------------------ for the main thread

    def end_by(self, error: BaseException) -> Ending:
        """Tell the others what ends this process; what ends all, which may be another's ending."""
        self._is_leaving = True
        if isinstance(error, LostRankError):
            self._known.wait(_TO_HEAR)  # the watch hears which one it is
        line, code = ending_of(error)
        own = Ending(self._launch.rank, code, line, teller=self._launch.rank)
        if not self._is_first:
            self._send(0, own.to_bytes())
            self._known.wait(_TO_HEAR)
        return self._settle(own)

    def close(self) -> None:
        """Leave, in order or after an ending: from now on this process goes its own way."""
        self._is_leaving = True
        if self._ending is None:
            for rank in list(self._peers):
                self._send(rank, _FAREWELL)
            if self._is_first:
                self._thread.join(_TO_HEAR)  # until all have said theirs
        elif self._is_first:
            self._linger()
        self._closed.set()

    # ------------------------------------------------------------ the watch's thread

    def _watch(self) -> None:
        looked = time.monotonic()
        signed = 0.0
        while self._peers and not (self._known.is_set() or self._closed.is_set()):
            by_connection = {connection: rank for rank, connection in self._peers.items()}
            for connection in wait(list(by_connection), _EVERY):
                self._hear(by_connection[connection])  # type: ignore[index]
            now = time.monotonic()
            if now - signed >= _EVERY:
                signed = now
                for rank in list(self._peers):
                    self._send(rank, _SIGN)
            self._count_silence(min(now - looked, 2 * _EVERY))
            looked = now
        if self._known.is_set():
            self._see_to_the_end()

    def _hear(self, rank: int) -> None:
        self._silent[rank] = 0.0
        try:
            said = self._peers[rank].recv_bytes()
        except (EOFError, OSError):
            # What has started them on one machine sees what ended it.
            teller = None if self._launch.by == "fmlm" else self._teller_of(rank)
            line = f"{self.name_of(rank)} has ended without a word, as if it was killed: {_GOES_ON}"
            self._settle(Ending(rank, USER_ERROR, line, teller))
            return
        if said == _FAREWELL:
            del self._peers[rank], self._silent[rank]
        elif said != _SIGN:
            if self._is_first:
                self._known.wait(_THE_SAME)
            self._settle(Ending.from_bytes(said))
            if not self._is_first:
                self._send(0, _FAREWELL)  # that it has been read

    def _count_silence(self, seconds: float) -> None:
        for rank in self._silent:
            self._silent[rank] += seconds
            if self._silent[rank] > _SILENT:
                line = f"{self.name_of(rank)} has given no sign of life for {_SILENT:.0f} s: {_GOES_ON}"
                self._settle(Ending(rank, USER_ERROR, line, self._teller_of(rank)))

    def _see_to_the_end(self) -> None:
        """Have the main thread come out of what it is at; where it does not, end the process."""
        assert self._ending is not None
        if not self._is_leaving:
            signals.end_by(AnotherEndedError(self._ending.code))
        until = time.monotonic() + _TO_COME_OUT
        latest = until + _TO_SAVE
        while not self._closed.wait(0.1):
            now = time.monotonic()
            if now > latest or (now > until and not self._is_saving()):
                self._exit(self._ending)

    def _exit(self, ending: Ending) -> None:
        if ending.teller == self._launch.rank:
            os.write(2, f"{ending.line}\n".encode(errors="replace"))
        os._exit(ending.code)

    # ------------------------------------------------------------ what both need

    def _settle(self, ending: Ending) -> Ending:
        """Take this for what ends all, unless there is something already; what it is."""
        with self._lock:
            if self._ending is not None:
                return self._ending
            self._ending = ending
        for rank in list(self._peers) if self._is_first else ():
            self._send(rank, ending.to_bytes())
        self._known.set()
        return ending

    def _send(self, rank: int, content: bytes) -> None:
        # That one has gone is seen where it is listened to.
        with self._lock, contextlib.suppress(OSError, KeyError):
            self._peers[rank].send_bytes(content)

    def _teller_of(self, lost: int) -> int:
        return 0 if lost else 1

    def _linger(self) -> None:
        """Until the others have read what ends all, which this process's end might take from them."""
        until = time.monotonic() + _TO_HEAR
        reading = set(self._peers.values())
        while reading and time.monotonic() < until:
            for connection in wait(reading, 0.1):
                assert isinstance(connection, Connection)
                with contextlib.suppress(EOFError, OSError):
                    if connection.recv_bytes() != _FAREWELL:
                        continue
                reading.discard(connection)

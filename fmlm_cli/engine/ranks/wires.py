"""Connections between the first of several processes and each other one, beside those that they train by."""

import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

from fmlm_cli.engine.ranks.launch import Launch
from fmlm_cli.errors import UserError, one_line

_TO_CONNECT = 60.0  # seconds for all
_TO_GREET = 5.0
_RANK_BYTES = 8
_HEARD = b"heard"

# From the first process to all: its port, what they are to say first, and where it may be found.
Place = tuple[int, bytes, list[str]]


def connect(launch: Launch, from_first: Callable[[Place | None], Place]) -> dict[int, Connection]:
    """The first process's connections, by rank; any other's one, to rank 0.

    `from_first`: gives all what the first process has. Raises `UserError` where they do not find each other.
    """
    if launch.rank:
        return {0: _connected(launch, *from_first(None))}
    with _listening(launch) as server:
        secret = secrets.token_bytes(16)
        from_first((server.getsockname()[1], secret, _addresses(launch)))
        return _accepted(server, secret, launch.world)


def _listening(launch: Launch) -> socket.socket:
    """A port of any number; no other machine can reach it where none has a part."""
    if launch.local_world == launch.world:
        return socket.create_server(("127.0.0.1", 0), backlog=launch.world)
    try:
        return socket.create_server(
            ("::", 0), family=socket.AF_INET6, backlog=launch.world, dualstack_ipv6=True
        )
    except (OSError, ValueError):  # a machine without IPv6
        return socket.create_server(("", 0), backlog=launch.world)


def _addresses(launch: Launch) -> list[str]:
    """Names by which other machines may know this one."""
    if launch.local_world == launch.world:
        return ["127.0.0.1"]
    met_at = urlsplit(launch.rendezvous).hostname or os.environ.get("MASTER_ADDR", "")
    return list(dict.fromkeys(filter(None, (met_at, socket.getfqdn(), socket.gethostname()))))


def _accepted(server: socket.socket, secret: bytes, world: int) -> dict[int, Connection]:
    """All the others' connections; whoever does not know the secret is sent away."""
    connections: dict[int, Connection] = {}
    server.settimeout(_TO_CONNECT)
    while len(connections) < world - 1:
        try:
            wire, _ = server.accept()
        except TimeoutError:
            missing = ", ".join(str(rank) for rank in range(1, world) if rank not in connections)
            raise UserError(
                f"rank {missing} of {world} cannot reach the first process's machine at port "
                f"{server.getsockname()[1]}: let machines of the job connect to each other at any port"
            ) from None
        try:
            wire.settimeout(_TO_GREET)
            greeting = wire.recv(len(secret) + _RANK_BYTES)
            if not secrets.compare_digest(greeting[: len(secret)], secret):
                raise ConnectionError
            wire.sendall(_HEARD)
        except OSError:
            wire.close()
            continue
        connections[int.from_bytes(greeting[len(secret) :])] = _lasting(wire)
    return connections


def _connected(launch: Launch, port: int, secret: bytes, addresses: list[str]) -> Connection:
    """The first process's, at the first address at which it answers."""
    faults = []
    for address in addresses:
        try:
            with contextlib.ExitStack() as failing:
                wire = failing.enter_context(socket.create_connection((address, port), timeout=_TO_GREET))
                wire.sendall(secret + launch.rank.to_bytes(_RANK_BYTES))
                if wire.recv(len(_HEARD)) == _HEARD:
                    failing.pop_all()
                    return _lasting(wire)
        except OSError as error:
            faults.append(one_line(error))
    raise UserError(
        f"{launch} cannot reach the first one at port {port} of {' or '.join(addresses)} "
        f"({'; '.join(faults) or 'another program answers'}): let machines of the job connect to each other "
        "at any port"
    )


def _lasting(wire: socket.socket) -> Connection:
    wire.setblocking(True)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(wire.detach())

"""How the end of one process becomes the end of all, told once."""

import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta

from torch.distributed import Store

from fmlm_cli.engine.ranks.launch import Launch
from fmlm_cli.errors import AnotherEndedError, Interrupted, UserError

# In the store: how many have ended by an error, and the exit code of the first.
_ENDED, _CODE = "fmlm/ended", "fmlm/exit-code"
_LINGER = 5.0  # seconds for which who keeps the store waits for the others to look into it


class LostRankError(UserError):
    """Another process can no longer be reached."""


@contextlib.contextmanager
def told_once(store: Store, launch: Launch) -> Iterator[None]:
    """What ends the block is raised in the process that it ends first, and in no other.

    The others, which have lost that one or met the same, raise `AnotherEndedError` with its exit code.
    """
    try:
        yield
    except BaseException as error:
        try:
            code = _code_of_first(store, error)
        except RuntimeError:  # the store is gone, and who kept it: that one has told
            code = _exit_code(error) if isinstance(error, LostRankError) else None
        if code is not None:
            raise AnotherEndedError(code) from error
        raise


def linger(store: Store, launch: Launch) -> None:
    """After an error: keep a store that lies in this process until the others have looked into it."""
    if launch.rank or not launch.rendezvous.startswith("tcp:"):
        return
    until = time.monotonic() + _LINGER
    with contextlib.suppress(RuntimeError):
        while store.add(_ENDED, 0) < launch.world and time.monotonic() < until:
            time.sleep(0.05)


def _code_of_first(store: Store, error: BaseException) -> int | None:
    """The exit code of the process that was the first to end; None if it is this one."""
    if store.add(_ENDED, 1) == 1:
        store.set(_CODE, str(_exit_code(error)))
        return None
    store.wait([_CODE], timedelta(seconds=_LINGER))
    return int(store.get(_CODE))


def _exit_code(error: BaseException) -> int:
    """The code with which a command ends by an error."""
    if isinstance(error, Interrupted | AnotherEndedError):
        return error.exit_code
    return 2 if isinstance(error, UserError) else 1

"""How a process ended, as the others are told."""

import json
from dataclasses import asdict, dataclass

from fmlm_cli.errors import UserError


class LostRankError(UserError):
    """Another process can no longer be reached."""


@dataclass(frozen=True)
class Ending:
    """What ended a process, and by that all of them, with this exit code.

    `line`: what is said of it. `teller`: the process that says it; None where what has started them does.
    """

    rank: int
    code: int
    line: str
    teller: int | None

    def to_bytes(self) -> bytes:
        """As it travels."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, sent: bytes) -> "Ending":
        """The one that was sent."""
        return cls(**json.loads(sent))

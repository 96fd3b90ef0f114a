"""The project's errors.

A `UserError` is something the user can put right: its message is one line that says what is wrong, where,
and what to do. Commands print it without a traceback and exit with code 2. What only a programmer can cause
is an `assert` or an ordinary exception.
"""

import difflib
import errno
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user can put right; `str(error)` is one complete line."""


class OtherSettingError(UserError):
    """What exists was made with another value of a setting, which the user need not have set himself.

    `where`: the origin of the value that is asked for now, in words, from whoever knows.
    """

    def __init__(
        self,
        what: str,
        setting: str,
        before: str,
        now: str,
        where: str = "",
        remedy: str = "go back to that, or choose another --out",
    ) -> None:
        self.facts, self.remedy = (what, setting, before, now), remedy
        given = f" ({where})" if where else ""
        super().__init__(f"{what} with {setting} {before}, not {now}{given}: {remedy}")

    @property
    def setting(self) -> str:
        """Its dotted name."""
        return self.facts[1]

    def named(self, where: str) -> "OtherSettingError":
        """The same, with the origin of the value that is asked for now."""
        return OtherSettingError(*self.facts, where, self.remedy)


class OutOfSpaceError(UserError):
    """A write failed because the disk (or the user's quota) is full."""


class InUseError(UserError):
    """Another process is at work in the same place."""


class Interrupted(BaseException):
    """A run was asked to stop (Ctrl-C, a signal, a reader that has gone) and has left everything in order.

    Like KeyboardInterrupt no Exception: nothing that handles a library's errors may swallow it.

    `exit_code` follows the shell's convention, 128 + signal number.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class AnotherEndedError(BaseException):
    """Another process of those that train together has ended, and so does this one, with its exit code.

    `message`: why, where that one has not said it itself.
    """

    def __init__(self, exit_code: int, message: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None if none is alike."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """An error for a name that is not in a table: gives the nearest one and lists them all."""
    names = list(known)
    close = nearest(name, names)
    hint = f"did you mean '{close}'? " if close else ""
    return UserError(f"unknown {kind} '{name}': {hint}known are {', '.join(names)}")


def one_line(error: BaseException) -> str:
    """The first line of an exception's text, with the second where it only announces that; or its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return text.rstrip(" :.")


def shortened(text: str, most: int = 80) -> str:
    """A text that someone else gave, in one line, and cut where it would swamp a message."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]}..."


def is_out_of_space(error: BaseException) -> bool:
    """Whether an exception says that the disk, a quota or a file (`ulimit -f`) can take no more.

    Also where a library hides the OSError in its text.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    said = ("No space left on device", "os error 28", "File too large", "os error 27")
    return any(text in str(error) for text in said)

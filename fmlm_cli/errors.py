"""The project's errors.

A `UserError` is something the user can put right: its message is one line that says what is wrong, where,
and what to do. Commands print it without a traceback and exit with code 2. What only a programmer can cause
is an `assert` or an ordinary exception.
"""

import difflib
import errno
import os
import signal
import sys
from collections.abc import Iterable

USER_ERROR, PROGRAM_ERROR = 2, 1  # exit codes

_NO_MEMORY = "out of memory: do less at once (batch.micro_size, --workers, --jobs), or free some"
# What the user can put right of what libraries raise; by name, for they may not be imported.
_OF_LIBRARIES = {
    "OutOfMemoryError": "out of GPU memory: forward fewer rows at once, with --set batch.micro_size=N (and "
    "--resume)",
    "MemoryError": _NO_MEMORY,
    "PanicException": "the tokenizer gave up on a text: choose another tokenizer",
}
# Packages that are not installed by the name that they are imported by.
_INSTALLED_AS = {"yaml": "pyyaml", "sklearn": "scikit-learn"}
_RAISED_IN = "raised in "


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
    """Another process is at work in the same place.

    `unseen`: a claim that it left there, and when it last gave a sign of life, where nobody here can see
    whether it is still alive.
    """

    def __init__(self, message: str, unseen: tuple[str, float] | None = None) -> None:
        super().__init__(message)
        self.unseen = unseen


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


def ending_of(error: BaseException) -> tuple[str, int]:
    """The line and the exit code for whatever ends a command."""
    error = _refused_by_the_system(error) or _not_installed(error) or error
    if isinstance(error, UserError):
        return f"error: {error}", USER_ERROR
    if isinstance(error, Interrupted | AnotherEndedError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "stopped at once by Ctrl-C", 128 + signal.SIGINT
    if is_out_of_space(error):
        return (
            f"error: {OutOfSpaceError('no space left on the disk: free some, or choose another --out')}",
            USER_ERROR,
        )
    kind = type(error).__name__
    if "DefaultCPUAllocator" in str(error):  # torch's, of a RuntimeError
        kind = "MemoryError"
    if kind in _OF_LIBRARIES:
        return f"error: {_OF_LIBRARIES[kind]}", USER_ERROR
    reason = (str(error).splitlines() or [""])[0]
    return f"unexpected {kind}: {reason} (this is a fault of fmlm's: --debug shows where)", PROGRAM_ERROR


def _refused_by_the_system(error: BaseException) -> UserError | None:
    """A name that is too long, a file of another user's, JSON nested too deep, wherever it is met."""
    if isinstance(error, RecursionError) and "JSON" in str(error):  # as libraries read it, without its name
        return UserError("a .json file of the checkpoint or tokenizer is nested too deep: fetch it again")
    if not isinstance(error, OSError) or is_out_of_space(error):
        return None
    if error.filename is None and not isinstance(error, PermissionError):  # pyarrow's have the name inside
        return None
    place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return UserError(f"{place}{error.strerror}; check the name and its permissions")


def _not_installed(error: BaseException) -> UserError | None:
    """A package that something needs and that is not there, or damaged; a module of fmlm's own is none."""
    if not isinstance(error, ImportError) or not error.name:
        return None
    package = error.name.partition(".")[0]
    if package == __name__.partition(".")[0]:
        return None
    name = _INSTALLED_AS.get(package, package)
    if not isinstance(error, ModuleNotFoundError):
        why = f"the package {name} does not load for {sys.executable} ({one_line(error)})"
        return UserError(f"{why}: pip install --force-reinstall {name}")
    return UserError(f"the package {name} is not installed for {sys.executable}: pip install {name}")


def name_process(error: BaseException, name: str) -> None:
    """Note in which of several processes an error was raised, for whoever tells it."""
    error.add_note(_RAISED_IN + name)


def process_of(error: BaseException) -> str | None:
    """The process that an error was raised in; None where that need not be said."""
    notes = getattr(error, "__notes__", [])
    return next((note.removeprefix(_RAISED_IN) for note in notes if note.startswith(_RAISED_IN)), None)


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

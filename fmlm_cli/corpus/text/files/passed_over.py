"""What lies among the text and is not read, and how a user is told."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from pathlib import Path

from fmlm_cli.events import counted, data_size

_ENDING = re.compile(r"(\.[^.]{1,10})?\.(7z|br|bz2|gz|lz4|lzma|rar|xz|zip|zst|zstd)$", re.IGNORECASE)
_SHOWN = 3  # names
_SHOWN_ENDINGS = 6


class Reason(Enum):
    """Why something is not read: what it is called in the singular and in the plural."""

    UNKNOWN = ("other file", "other files")
    HELD_OUT = ("file that --valid names", "files that --valid names")
    COMPRESSED = ("compressed twin of a file", "compressed twins of files")
    SAME_FILE = ("other name of a file", "other names of files")
    EMPTY = ("empty file", "empty files")
    BROKEN_LINK = ("broken link", "broken links")
    LINKED_FOLDER = ("link to a folder that is read anyway", "links to folders that are read anyway")
    OTHER_SPLIT = ("other split", "other splits")
    NO_ARRAY = (".json file that is no array", ".json files that are no arrays")
    MADE = ("folder that fmlm made", "folders that fmlm made")
    NO_FILE = ("pipe or device", "pipes or devices")
    HIDDEN = ("hidden", "hidden")


@dataclass(frozen=True)
class PassedOver:
    """Something that is not read; `size` is in bytes on the disk, 0 where that says nothing; of what is
    hidden, that of the text in it.
    """

    path: Path
    reason: Reason
    size: int = 0


def listed(others: Iterable[PassedOver]) -> str:
    """What is not read, in one line: other files by their ending, the largest first; the rest by name."""
    by_reason = {reason: [other for other in others if other.reason is reason] for reason in Reason}
    unknown = by_reason.pop(Reason.UNKNOWN)
    clauses = [
        *_by_ending(unknown),
        *(_by_name(reason, found) for reason, found in by_reason.items() if found),
    ]
    return ", ".join(clauses)


def _by_ending(files: Sequence[PassedOver]) -> list[str]:
    endings = groupby(sorted(files, key=lambda file: _ending(file.path)), key=lambda file: _ending(file.path))
    groups = sorted(((ending, list(group)) for ending, group in endings), key=lambda group: -_bytes(group[1]))
    kinds = [(f"{ending} file", f"{ending} files", group) for ending, group in groups[:_SHOWN_ENDINGS]]
    if rest := [file for _, group in groups[_SHOWN_ENDINGS:] for file in group]:
        kinds.append((*Reason.UNKNOWN.value, rest))
    return [
        f"{counted(len(group), one, several)} ({data_size(_bytes(group))})" for one, several, group in kinds
    ]


def _by_name(reason: Reason, found: Sequence[PassedOver]) -> str:
    names = [printable(other.path.name) for other in found[:_SHOWN]] + ["..."] * (len(found) > _SHOWN)
    return f"{counted(len(found), *reason.value)} ({', '.join(names)})"


def _bytes(files: Iterable[PassedOver]) -> int:
    return sum(file.size for file in files)


def _ending(path: Path) -> str:
    """A file's ending, also the one that it had before it was compressed: ".jsonl.zst"."""
    match = _ENDING.search(path.name)
    ending = match[0] if match else path.suffix
    return printable(ending.lower()) or "unnamed"


def printable(name: str) -> str:
    """A file's name as one line of text: line ends and bytes that are no UTF-8 are spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)

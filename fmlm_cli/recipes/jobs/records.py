"""How a job's record lies on the disk: in a folder of its own, or in one file."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from fmlm_cli import storage
from fmlm_cli.errors import UserError

R = TypeVar("R")

RESULT, CELL = "result.json", "cell.json"

_REMEDY = "remove it, and --resume does this piece of work again"


@dataclass(frozen=True)
class Kept(Generic[R]):
    """What a record says: with what its job was made and, once it is finished, what it found."""

    made_with: Mapping[str, Any]
    result: R | None


class Record(Protocol[R]):
    """Where on the disk a job's record is kept."""

    @property
    def place(self) -> Path:
        """The job's place, as refusals call it."""

    def read(self) -> Kept[R] | None:
        """What is there; None for a job that nobody has begun. `UserError` for what is damaged."""

    def owned(self) -> AbstractContextManager[None]:
        """Keep others from doing the job while inside."""

    def begin(self, made_with: Mapping[str, Any]) -> None:
        """Write down what the job is made with."""

    def finish(self, made_with: Mapping[str, Any], result: R) -> None:
        """Write down what it found."""


@dataclass(frozen=True)
class FolderRecord(Generic[R]):
    """cell.json, what a job is made with, and result.json, in the folder that the job works in.

    `parse`: a result from its fields. `scratch`: the folder's part that only an unfinished job has a use for.
    """

    place: Path
    parse: Callable[..., R]
    scratch: str

    def read(self) -> Kept[R] | None:
        """What is there."""
        cell, result = self.place / CELL, self.place / RESULT
        if not cell.is_file():
            return None
        made_with = self._fields(cell)
        if not result.is_file():
            return Kept(made_with, None)
        try:
            return Kept(made_with, self.parse(**self._fields(result)))
        except TypeError:
            raise self._damaged(result) from None

    def _fields(self, path: Path) -> dict[str, Any]:
        """What a file holds, by name."""
        try:
            return storage.read_sealed(path)
        except UserError:
            raise self._damaged(path) from None

    def _damaged(self, path: Path) -> UserError:
        return UserError(f"{path} is damaged: remove {self.place}, and the cell is done again with --resume")

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """The lock of the folder."""
        with storage.sole_owner(self.place), storage.clear_disk_errors(self.place):
            yield

    def begin(self, made_with: Mapping[str, Any]) -> None:
        """Write cell.json."""
        storage.write_sealed(self.place / CELL, made_with)

    def finish(self, made_with: Mapping[str, Any], result: R) -> None:
        """Write result.json; what served to go on from is removed only then."""
        storage.write_sealed(self.place / RESULT, vars(result))
        storage.remove(self.place / self.scratch)


@dataclass(frozen=True)
class FileRecord:
    """One file that holds `made_with` and `result`, which is plain.

    `beside`: another file that belongs to the result, without which there is none; its hash is kept too.
    """

    path: Path
    place: Path
    beside: Path | None = None

    def read(self) -> Kept[dict[str, Any]] | None:
        """What is there."""
        if not self.path.is_file():
            return None
        try:
            fields = storage.read_sealed(self.path)
        except UserError as error:
            raise UserError(f"{error}: {_REMEDY}") from None
        made_with, result = fields["made_with"], fields.get("result")
        if result is not None and self.beside is not None:
            if not self.beside.is_file():
                result = None
            elif storage.sha256_of_file(self.beside) != fields["beside"]:
                raise UserError(f"{self.beside} has changed since it was written: {_REMEDY}")
        return Kept(made_with, result)

    def owned(self) -> AbstractContextManager[None]:
        """No lock: such jobs are short, or the recipe that does them owns the folder that it works in."""
        return contextlib.nullcontext()

    def begin(self, made_with: Mapping[str, Any]) -> None:
        """Write the file without a result."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_sealed(self.path, {"made_with": made_with})

    def finish(self, made_with: Mapping[str, Any], result: dict[str, Any]) -> None:
        """Write it with the result."""
        beside = {} if self.beside is None else {"beside": storage.sha256_of_file(self.beside)}
        storage.write_sealed(self.path, {"made_with": made_with, "result": result, **beside})

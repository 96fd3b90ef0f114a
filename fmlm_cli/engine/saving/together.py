"""A checkpoint that several processes write, each its part: whole, or not at all."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from fmlm_cli import storage
from fmlm_cli.engine.ranks.parts import write_parts
from fmlm_cli.engine.ranks.protocol import Ranks
from fmlm_cli.engine.saving.moments import PARTS
from fmlm_cli.errors import UserError

T = TypeVar("T")
SAME_FOLDER = "all need the same folder"


def write_together(
    target: Path,
    moments: Mapping[str, Tensor],
    ranks: Ranks,
    *,
    begin: Callable[[Path], None],
    seal: Callable[[Path, Mapping[str, str]], None],
    then: Callable[[], None],
) -> None:
    """Write the folder `target`, with each process's part of `moments` in it.

    The writer alone does the rest: `begin(folder)`, before there are parts; `seal(folder, hashes)`, given the
    hashes of all parts, when they are on the disk; and `then()`, when the folder has its name.
    """
    with ExitStack() as unfinished:

        def make() -> Path | None:
            if not ranks.is_writer:
                return None
            folder = unfinished.enter_context(storage.complete_folder(target))
            begin(folder)
            (folder / PARTS).mkdir()
            return folder

        folder = agreed(ranks, make)[0]
        assert folder is not None
        hashes = agreed(ranks, lambda: _write_part(target, moments, folder, ranks.place(0)))

        def finish() -> None:
            if ranks.is_writer:
                seal(folder, {name: sha256 for part in hashes for name, sha256 in part.items()})
                unfinished.close()
                then()

        agreed(ranks, finish)


def agreed(ranks: Ranks, act: Callable[[], T]) -> list[T]:
    """What `act` returns in each process, when it has come to its end in all.

    The first `UserError` of any is raised in all of them.
    """
    outcome: T | UserError
    try:
        outcome = act()
    except UserError as error:
        outcome = error
    outcomes = ranks.gather(outcome)
    for one in outcomes:
        if isinstance(one, UserError):
            raise one
    return [one for one in outcomes if not isinstance(one, UserError)]


def _write_part(target: Path, moments: Mapping[str, Tensor], folder: Path, rank: int) -> Mapping[str, str]:
    """Write a process's part; its file's hash, by its path in the folder."""
    if not (folder / PARTS).is_dir():
        raise UserError(f"process {rank} does not see {folder}, where the first one writes: {SAME_FOLDER}")
    with storage.clear_disk_errors(folder):
        file = write_parts(moments, folder / PARTS, rank=rank)
    hashes = {file.relative_to(folder).as_posix(): storage.sha256_of_file(file)}
    verify(target, folder, hashes)
    return hashes


def verify(target: Path, folder: Path, hashes: Mapping[str, str]) -> None:
    """Refuse what the disk does not give back as it was written, of a folder that is to be `target`."""
    if damage := storage.damage_on_disk(folder, hashes):
        raise UserError(
            f"{target} could not be kept: {damage}, as the disk gives it back; the disk or its "
            "connection may be failing: check it, or choose another --out (older checkpoints stay)"
        )

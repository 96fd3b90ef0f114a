"""Which model a name stands for, and which of its files are uploaded."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmlm_cli import storage
from fmlm_cli.errors import UserError
from fmlm_cli.recipes.shared.checkpoints import files_of_model, finetuned_models


@dataclass(frozen=True)
class FinishedModel:
    """A model of fmlm's that is done. `files`: what is uploaded, by path in the repository.

    `left_out`: files in its folder that others have put there.
    """

    folder: Path
    files: Mapping[str, Path]
    left_out: Sequence[str]

    @property
    def size(self) -> int:
        """Of what is uploaded, in bytes."""
        return sum(path.stat().st_size for path in self.files.values())


def find_finished(name: str, *, logs: bool = False) -> FinishedModel:
    """The finished model of a run, or the one in a folder; `logs`: with the records of its training.

    Raises `UserError` for what is none: a run that is not finished, a checkpoint, another tool's model.
    """
    folder, run = _folder_of(name)
    files = files_of_model(folder)
    if files is None:
        raise UserError(
            f"{folder} is no finished model of fmlm's (it has no {storage.HASHES}): give a finished run, its "
            "final/, or a model that fmlm finetune left"
        )
    if logs:
        files |= _logs(name, run)
    known = {*files, storage.HASHES, storage.MARKER}
    inside = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return FinishedModel(folder, files, [file for file in inside if file not in known])


def _folder_of(name: str) -> tuple[Path, storage.RunDirectory | None]:
    """The folder that a model lies in, and the run that it is of, if that is there."""
    path = Path(name).expanduser()
    if not path.is_dir():
        step = re.fullmatch(r"(.+)@step-\d+", name)
        if step and Path(step[1]).is_dir():
            raise _in_the_middle(name, step[1])
        raise UserError(f"no such folder: {name}: give a finished run, or the folder of its model")
    models = finetuned_models(path)
    if models is not None:
        return _only(models, name), None
    run = storage.RunDirectory(path)
    if storage.kind_of(path) == storage.RUN.name and run.config.is_file():
        if not run.is_finished:
            raise UserError(f"{name} is not finished: train it to its end with --resume, and push it then")
        return run.final, run
    if (path / storage.STATE).is_file() and path.parent.name == "checkpoints":
        raise _in_the_middle(name, path.parent.parent)
    of = storage.RunDirectory(path.parent)
    return path, of if of.final == path and of.config.is_file() else None


def _in_the_middle(name: str, run: str | Path) -> UserError:
    return UserError(f"{name} is a checkpoint in the middle of a run: give {run}, once it is finished")


def _only(models: Mapping[str, Path], name: str) -> Path:
    """The model of what `finetune` left; one repository holds one."""
    if len(models) == 1:
        return next(iter(models.values()))
    if not models:
        raise UserError(f"{name} has no model yet: go on with `fmlm finetune` and --resume")
    raise UserError(
        f"{name} has {len(models)} models, and a repository holds one: give one of them, such as "
        f"{next(iter(models.values()))}"
    )


def _logs(name: str, run: storage.RunDirectory | None) -> dict[str, Path]:
    """The records of a run and its picture of them."""
    if run is None or not run.metrics.is_file():
        raise UserError(f"--logs: {name} has no {storage.METRICS} of a run: leave it out")
    pictures = sorted(run.plots.glob("*.png"))
    return {storage.METRICS: run.metrics, **{f"plots/{path.name}": path for path in pictures}}

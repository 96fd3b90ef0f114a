"""What a checkpoint's name stands for: a run, one of its checkpoints, a Hugging Face folder, a Hub name."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fmlm_cli import hub, storage
from fmlm_cli.config import PretrainSettings, saved_settings
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.engine.checkpoint import STATE, check_weights, complete_checkpoints
from fmlm_cli.engine.records import read_metrics
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, ignore
from fmlm_cli.model.checkpoints.adapters import ADAPTER, adapter_settings, is_adapter
from fmlm_cli.model.checkpoints.folders import inner_model, parts_after_model

FINETUNED = "finetuned.json"  # beside a fine-tuned model: what it is for, and how good it is
CARD = "README.md"  # of a model; its users may write on
FINETUNING_KIND = "fine-tuning"  # of the folders of `fmlm finetune`
_AT_STEP = "@step-"
_GENERATIONS = 20  # of runs that went on from each other, at most


@dataclass(frozen=True)
class Origin:
    """A checkpoint that was found.

    `name`: as it was given. `folder`: the model's. `revision`: the commit, of a Hub name. `adapter`: the
    folder of one that is to be merged into the model. `after_model`: what a sentence encoder passes the
    model's output through. Of a run of fmlm's also its settings, and `training`,
    the checkpoint that holds the state of its training (where one is kept).
    """

    name: str
    folder: Path
    revision: str | None = None
    run: storage.RunDirectory | None = None
    settings: PretrainSettings | None = None
    training: Path | None = None
    adapter: Path | None = None
    after_model: tuple[str, ...] = ()

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer lies: an adapter may have been saved with one."""
        has_one = self.adapter is not None and (self.adapter / "tokenizer_config.json").is_file()
        return self.adapter if self.adapter is not None and has_one else self.folder

    @property
    def made_from(self) -> dict[Path, str]:
        """The folders that hold it, and what each is."""
        return {path: "checkpoint" for path in (self.folder, self.adapter) if path is not None}

    def learning_rate(self, step: int) -> float | None:
        """The rate that the run had at a step, as its metrics say."""
        if self.run is None or not self.run.metrics.is_file():
            return None
        records = [r for r in read_metrics(self.run.metrics) if "learning_rate" in r and r["step"] <= step]
        return float(records[-1]["learning_rate"]) if records else None


def find_checkpoint(
    name: str, *, revision: str | None = None, code: bool = False, emit: Emit = ignore
) -> Origin:
    """Find what `name` stands for; a Hub name is downloaded, with its Python files if `code`.

    A run stands for its final model, or for its newest checkpoint while it has no final one, which is told.
    RUN@step-N is one of its checkpoints. Raises `UserError` for a model of fmlm's that is no longer what it
    was.
    """
    origin = _find(name, revision, code, adapters=True)
    run = origin.run
    if run is not None and not run.is_finished and Path(name).resolve() == run.root.resolve():
        emit(Caution(f"{name} is not finished: its checkpoint {origin.folder.name} is taken"))
    return origin


def hub_base(origin: Origin) -> str | None:
    """The model of the Hub that a checkpoint is, or descends from by way of runs that are still there."""
    if origin.revision is not None:
        return origin.name
    settings = origin.settings
    for _ in range(_GENERATIONS):
        if settings is None or settings.model.checkpoint is None:
            return None
        if settings.model.revision is not None:
            return settings.model.checkpoint
        settings = _settings_behind(settings.model.checkpoint)
    return None


def _settings_behind(name: str) -> PretrainSettings | None:
    """The settings of the run that a local checkpoint is of; None where it is of none."""
    path = Path(name.rpartition(_AT_STEP)[0] or name)
    configs = (run / storage.RUN_CONFIG for run in (path, path.parent, path.parent.parent))
    config = next((config for config in configs if config.is_file()), None)
    try:
        return saved_settings(PretrainSettings, config) if config else None
    except UserError:
        return None


def keep_hashes(folder: Path) -> None:
    """Leave beside a finished model the hashes of all its files but its card."""
    hashes = storage.hashes_of(folder, but=(CARD, storage.HASHES))
    storage.write_sealed(folder / storage.HASHES, {"files": hashes})


def carry_over_others(folder: Path, new: Path) -> None:
    """Copy into a model's folder what others put into the one that it replaces, and the card as it is there.

    Called when `new` has all that is fmlm's, and the hashes of that.
    """
    try:
        made = {storage.HASHES, *_hashes(folder)}
    except (OSError, UserError):
        made = {storage.HASHES}  # no telling: what the new one has too is fmlm's
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        target = new / name
        if name in made or (path.is_dir() and not path.is_symlink()):
            continue
        if name == CARD:
            target.unlink(missing_ok=True)
        if not os.path.lexists(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)


def check_model_files(folder: Path) -> None:
    """Refuse a model of fmlm's whose files are no longer what they were; those of other tools pass."""
    if folder.name.startswith("step-") and (folder / STATE).is_file():
        check_weights(folder)
    elif damage := damage_of_model(folder):
        raise UserError(
            f"{damage}: {_remedy(folder)}; or delete {folder / storage.HASHES} if another tool was meant to "
            "change it"
        )


def damage_of_model(folder: Path) -> str | None:
    """What is wrong with the files of a finished model of fmlm's, in words; None if nothing is."""
    if not (folder / storage.HASHES).is_file():
        return None
    try:
        return storage.damage_of(folder, _hashes(folder))
    except UserError as error:  # the hashes themselves
        return str(error)


def _remedy(folder: Path) -> str:
    """How a finished model is made again."""
    if (folder / FINETUNED).is_file():  # by the cell that it is of, which may be any
        return "`fmlm finetune` with --resume says how to have it made again"
    if storage.RunDirectory(folder.parent).final != folder or not storage.kind_of(folder.parent):
        return "copy it again from where it was made"
    return f"remove {folder}, and --resume makes it again"


def files_of_model(folder: Path) -> dict[str, Path] | None:
    """The files of a finished model of fmlm's, whole, by their paths in it: what loads, and its card.

    None for any other folder. Raises `UserError` where one is missing or damaged.
    """
    if not (folder / storage.HASHES).is_file():
        return None
    check_model_files(folder)
    if not (folder / CARD).is_file():
        raise UserError(f"{folder} has lost its card, {CARD}: put it back, or {_remedy(folder)}")
    return {name: folder / name for name in (CARD, *_hashes(folder))}


def lost_of_model(folder: Path) -> str | None:
    """What a finished model's folder has lost, by name; None where nothing is gone."""
    if (folder / storage.HASHES).is_file():
        missing = storage.missing_file(folder, _hashes(folder))
        return missing.name if missing else None
    whole = any((folder / name).is_file() for name in hub.WEIGHTS)
    return None if whole else hub.WEIGHTS[0]


def _hashes(folder: Path) -> dict[str, str]:
    return dict(storage.read_sealed(folder / storage.HASHES)["files"])


def _find(name: str, revision: str | None, code: bool, *, adapters: bool) -> Origin:
    """The same; `adapters`: whether it may be one, to be merged into another checkpoint's model."""
    origin = _locate(name, revision, code)
    if origin.revision is None:  # the Hub checks its own files
        check_model_files(origin.folder)
    if not is_adapter(origin.folder):
        return origin
    if not adapters:
        raise UserError(f"{name} is an adapter too: merge it into its model with peft first")
    return _on_its_base(origin, code)


def _locate(name: str, revision: str | None, code: bool) -> Origin:
    if not name.strip():
        raise UserError("the checkpoint's name is empty: give a run, a Hugging Face folder or a Hub name")
    path, at, step = name.rpartition(_AT_STEP)
    if at and step.isdigit():
        return _of_run(storage.RunDirectory(Path(path)), name, int(step))
    root = Path(name)
    if (root / "race").is_dir() and (root / "cells").is_dir():
        run = next((root / "race").glob("*/seed-*"), root / "race")
        raise UserError(f"{name} is what `fmlm compare-masks` left: give one of its runs, such as {run}")
    if (models := finetuned_models(root)) is not None:
        instead = (
            f"one of its models, such as {next(iter(models.values()))}" if models else "another checkpoint"
        )
        raise UserError(f"{name} is what `fmlm finetune` left, with a model for each task: give {instead}")
    kind = storage.kind_of(root)
    if kind not in (None, storage.RUN.name):
        raise UserError(f"{name} is a {kind}, not a model: give a run, a Hugging Face folder or a Hub name")
    if storage.RunDirectory(root).config.is_file():
        return _of_run(storage.RunDirectory(root), name, None)
    if root.is_dir():
        for owner in (storage.RunDirectory(root.parent), storage.RunDirectory(root.parent.parent)):
            inside = root.parent == owner.checkpoints or root == owner.final
            if inside and owner.config.is_file():
                training = root if root != owner.final else _newest(owner)
                settings = saved_settings(PretrainSettings, owner.config)
                return Origin(name, root, None, owner, settings, training)
    located = hub.locate(name, revision=revision, weights=True, code=code)
    folder, after_model = inner_model(located.folder), parts_after_model(located.folder)
    if not (is_adapter(folder) or (folder / "config.json").is_file()):
        raise UserError(
            f"{name} holds no model (no config.json): give a run, a Hugging Face folder or a Hub name"
        )
    return Origin(name, folder, located.revision, after_model=after_model)


def _on_its_base(adapter: Origin, code: bool) -> Origin:
    """The model that an adapter was trained on, with the adapter to be merged into it."""
    settings = adapter_settings(adapter.folder, adapter.name)
    base = str(settings["base_model_name_or_path"])
    beside = adapter.folder / base
    name, revision = (str(beside), None) if beside.is_dir() else (base, settings.get("revision"))
    try:
        model = _find(name, revision, code, adapters=False)
    except UserError as error:
        raise UserError(
            f"{adapter.name} is an adapter for '{base}', as its {ADAPTER} says: {error}"
        ) from None
    return Origin(adapter.name, model.folder, adapter.revision, adapter=adapter.folder)


def finetuned_models(root: Path) -> dict[str, Path] | None:
    """The models in what `finetune` left, which may have none yet; None for any other folder.

    By task, or by CHECKPOINT/TASK where there are several checkpoints.
    """
    has_models = (root / "cells").is_dir() or (root / "models").is_dir()
    is_other = storage.kind_of(root) not in (None, FINETUNING_KIND)
    if is_other or not (has_models and (root / storage.RUN_CONFIG).is_file()):
        return None
    models = root / "models"
    found = [path.parent for depth in ("*", "*/*") for path in sorted(models.glob(f"{depth}/{FINETUNED}"))]
    names = {folder.relative_to(models): folder for folder in found}
    return {
        name.as_posix(): folder
        for name, folder in names.items()
        if not any(part.startswith(".") for part in name.parts)
    }


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Refuse a tokenizer that has more tokens than the model has embeddings."""
    rows = len(model.get_input_embeddings().weight)
    if len(tokenizer) > rows:
        raise UserError(
            f"{name} has embeddings for {rows:,} tokens, and its tokenizer has {len(tokenizer):,}: "
            "they do not belong together"
        )


def _newest(run: storage.RunDirectory) -> Path | None:
    kept = complete_checkpoints(run.checkpoints)
    return kept[-1][1] if kept else None


def _of_run(run: storage.RunDirectory, name: str, step: int | None) -> Origin:
    if not run.config.is_file():
        raise UserError(
            f"{run.root} is no run of fmlm's (it has no {storage.RUN_CONFIG}): leave out @step-{step}"
        )
    settings = saved_settings(PretrainSettings, run.config)
    kept = dict(complete_checkpoints(run.checkpoints))
    if step is not None:
        if step not in kept:
            kept_steps = ", ".join(f"step-{number}" for number in kept) or "none"
            raise UserError(
                f"{run.root} has no checkpoint step-{step}; it keeps {kept_steps} (checkpoint.keep)"
            )
        return Origin(name, kept[step], None, run, settings, kept[step])
    newest = _newest(run)
    if run.is_finished:
        return Origin(name, run.final, None, run, settings, newest)
    if newest is None:
        raise UserError(
            f"{run.root} has neither a final model nor a checkpoint yet: let it train on with --resume"
        )
    return Origin(name, newest, None, run, settings, newest)


def check_tokenizer(origin: Origin, store: TokenStore, *, extended: bool) -> PreTrainedTokenizerFast:
    """The checkpoint's tokenizer; refuses a store whose ids mean other tokens than its own.

    `extended`: a store is welcome whose tokenizer has more tokens; else one whose tokenizer has fewer.
    """
    tokenizer = tokenizers.load_tokenizer(str(origin.tokenizer_folder))
    larger, smaller = (store.tokenizer, tokenizer) if extended else (tokenizer, store.tokenizer)
    if not tokenizers.extends(larger, tokenizers.fingerprint(smaller), len(smaller)):
        raise UserError(
            f"{store.root} was made with another tokenizer than {origin.name}'s: tokenize the text with "
            f"`--tokenizer {origin.tokenizer_folder}`"
        )
    return tokenizer

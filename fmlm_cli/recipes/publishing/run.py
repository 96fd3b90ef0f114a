"""`fmlm push`: a finished model becomes a repository of the Hub; and the same at the end of training."""

import shlex
from pathlib import Path

from huggingface_hub import ModelCard

from fmlm_cli import __version__, hub
from fmlm_cli.config import HubSettings, PushSettings
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Doing, Emit, Facts, Note, counted, data_size, ignore
from fmlm_cli.recipes.publishing.card import card_of, smallest_card
from fmlm_cli.recipes.publishing.finding import FinishedModel, find_finished
from fmlm_cli.recipes.shared.checkpoints import CARD

_SHOWN = 5  # files that are left out


def push(settings: PushSettings, *, emit: Emit = ignore) -> str:
    """Upload a finished model to a repository, in one commit; its address.

    Raises `UserError` for what is no finished model, and where the Hub refuses, or cannot be reached.
    """
    model = find_finished(settings.run, logs=settings.logs)
    emit(Doing(f"asking the Hub about {settings.name}"))
    target = _checked(model, settings)
    card = _card(model, settings, target.name)
    _tell_of_gaps(model, card, emit)
    emit(Doing(f"uploading {data_size(model.size)} to {target.page}"))
    message = f"Upload by fmlm {__version__}"
    hub.upload(target, {**model.files, CARD: str(card).encode()}, message, public=settings.public)
    emit(Facts("pushed", _pushed(model, card, target, public=settings.public)))
    return target.page


def preview(settings: PushSettings, *, emit: Emit = ignore) -> str:
    """Tell what `push` would upload, and what stands in its way; the card that the repository would have."""
    model, name = find_finished(settings.run, logs=settings.logs), settings.name
    try:
        name = _checked(model, settings).name
    except UserError as error:
        emit(Caution(str(error)))
    card = _card(model, settings, name)
    rows = {file: data_size(path.stat().st_size) for file, path in model.files.items()}
    emit(Facts(f"would be uploaded to {name} ({_seen_by(settings.public)})", rows))
    _tell_of_gaps(model, card, emit)
    return str(card).rstrip("\n") + "\n"


def check_push(asked: HubSettings, *names: str, begun: bool, emit: Emit) -> None:
    """Refuse to begin what is to be pushed and could not be, as far as that is known before there is a model.

    `names`: of the repositories; default: the one that is asked for. What has `begun` goes on whatever the
    Hub says now, and is told.
    """
    if asked.push_to is None:
        return
    try:
        for name in names or (asked.push_to,):
            emit(Doing(f"asking the Hub about {name}"))
            hub.check_target(name, public=asked.public, card=smallest_card(asked))
    except UserError as error:
        if not begun:
            raise
        emit(Caution(f"{error}; this goes on, and the Hub is asked again at the end"))


def push_finished(result: Path, asked: HubSettings, emit: Emit, *, name: str | None = None) -> None:
    """Push a run, or a model's folder, that has just been finished, if it is asked for.

    `name`: of the repository; default: what is asked for. A failure says what to do later.
    """
    if asked.push_to is None:
        return
    settings = PushSettings(
        run=str(result),
        name=name or asked.push_to,
        public=asked.public,
        license=asked.license,
        language=asked.language,
    )
    try:
        push(settings, emit=emit)
    except UserError as error:
        raise UserError(
            f"the model is finished, but not on the Hub: {error}; then {_again(settings)}"
        ) from error


def _checked(model: FinishedModel, settings: PushSettings) -> hub.Target:
    card = str(_card(model, settings, settings.name))
    return hub.check_target(settings.name, public=settings.public, card=card)


def _card(model: FinishedModel, settings: PushSettings, repository: str) -> ModelCard:
    path = model.files[CARD]
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8: save it so") from error
    return card_of(text, str(path), settings, repository)


def _tell_of_gaps(model: FinishedModel, card: ModelCard, emit: Emit) -> None:
    """What the repository will lack."""
    if card.data.get("license") is None:
        emit(Note("the card names no licence, without which others may not use the model: see --license"))
    if model.left_out:
        shown, more = model.left_out[:_SHOWN], len(model.left_out) - _SHOWN
        left_out = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
        emit(Note(f"not uploaded, as it is no part of what fmlm made: {left_out}"))


def _pushed(model: FinishedModel, card: ModelCard, target: hub.Target, *, public: bool) -> dict[str, str]:
    rows = {
        "repository": f"{target.page} ({_seen_by(public)})",
        "files": f"{counted(len(model.files), 'file')}, {data_size(model.size)}, in one commit",
    }
    if task := card.data.get("pipeline_tag"):
        rows["in Python"] = f'pipeline("{task}", "{target.name}")'
    return rows


def _seen_by(public: bool) -> str:
    return "public" if public else "private"


def _again(settings: PushSettings) -> str:
    """The command that pushes it another time."""
    words = ["fmlm", "push", settings.run, settings.name]
    words += ["--public"] * settings.public
    words += ["--license", settings.license] if settings.license else []
    words += [word for language in settings.language for word in ("--language", language)]
    return f"`{shlex.join(words)}`"

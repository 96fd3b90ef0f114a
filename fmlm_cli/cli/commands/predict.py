"""`fmlm predict`."""

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fmlm_cli.cli.running import (
    Debug,
    Revision,
    SetOption,
    TrustRemoteCode,
    command,
    list_settings,
    read_settings,
)
from fmlm_cli.config import PredictSettings
from fmlm_cli.events import Caution, Event, Facts, counted

if TYPE_CHECKING:  # they bring torch along, which waits until a command runs
    from fmlm_cli.recipes.prediction.run import LabelGuess, Predicted, TokenGuess

_SHOWN = 70  # characters of a text beside its labels
_BAR = 20  # characters of a bar that stands for 1


def predict(
    checkpoint: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="CHECKPOINT",
            help="A run, one of its checkpoints, what fmlm finetune left, a Hugging Face folder, or a Hub name.",
            show_default=False,
        ),
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="Texts, each in quotes.", show_default=False),
    ] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="For tasks of two texts: the second one. Once for each TEXT, in their order.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Texts, one a line, in UTF-8; two texts are parted by a tab; - is standard input.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Which model, where fmlm finetune left several.", show_default=False),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(help="Guesses for each mask, and labels shown. Default: 5.", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line instead: text, pair, predictions.")
    ] = False,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    assignments: SetOption = None,
    settings_table: Annotated[
        bool,
        typer.Option(
            "--settings",
            callback=list_settings(PredictSettings),
            is_eager=True,
            help="List all settings, for --set, and exit.",
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    r"""Fill the masks of texts, or label texts, whatever the model is for.

    Write each mask as \[MASK] or <mask>: either stands for the tokenizer's own.

    Example: fmlm predict --from run "Paris is the \[MASK] of France."

    Example: fmlm predict --from tuned --task mrpc "It rains." --pair "Rain is falling."
    """
    found: list[Any] = []
    with command(debug) as emit:
        flags = {
            "checkpoint": checkpoint,
            "texts": texts or None,
            "pairs": pair or None,
            "file": file,
            "task": task,
            "top": top,
            "revision": revision,
            "trust_remote_code": trust_remote_code or None,
        }
        settings = read_settings(PredictSettings, flags, assignments)
        from fmlm_cli.recipes import prediction

        found = list(prediction.predict(settings, emit=_cautions_aside if as_json else emit))
        for each in () if as_json else found:
            emit(_facts(each, settings.top))
    if as_json:  # out here, so that a reader who closes the pipe early is no fault of fmlm's
        lines = (json.dumps(dataclasses.asdict(each), ensure_ascii=False) + "\n" for each in found)
        typer.echo("".join(lines).encode(), nl=False)  # as UTF-8, whatever the terminal's encoding


def _cautions_aside(event: Event) -> None:
    """Cautions to the standard error, all else nowhere."""
    if isinstance(event, Caution):
        typer.echo(f"note: {event.text}", err=True)


def _facts(found: "Predicted[Any]", top: int) -> Facts:
    """A text and, below it, what the model predicts, for a reader."""
    from fmlm_cli.recipes.prediction.run import FilledText, ScoredText

    if isinstance(found, FilledText):
        return Facts(_printable(found.text), _mask_rows(found.predictions))
    title = "  |  ".join(_shortened(text) for text in (found.text, found.pair) if text is not None)
    if isinstance(found, ScoredText):
        return Facts(title, {"score": "  ".join(f"{each.score:.3f}" for each in found.predictions)})
    return Facts(title, _label_rows(found.predictions, top))


def _mask_rows(masks: "Sequence[Sequence[TokenGuess]]") -> dict[str, str]:
    """A line for each mask."""
    return {
        f"mask {number}" if len(masks) > 1 else "mask": "   ".join(
            f"{_token(guess, guesses)} {_percent(guess.probability)}" for guess in guesses
        )
        for number, guesses in enumerate(masks, start=1)
    }


def _token(guess: "TokenGuess", among: "Sequence[TokenGuess]") -> str:
    """A token without the blank before it, unless that alone tells it from another one."""
    bare = guess.token.strip()
    alike = sum(other.token.strip() == bare for other in among)
    return bare if bare.isprintable() and bare and alike == 1 else repr(guess.token)


def _label_rows(guesses: "Sequence[LabelGuess]", top: int) -> dict[str, str]:
    """A line for each of the likeliest labels."""
    rows = {
        guess.label: f"{_percent(guess.probability):>6}  {'█' * round(_BAR * guess.probability)}".rstrip()
        for guess in guesses[:top]
    }
    left = len(guesses) - top
    return {**rows, "...": f"{counted(left, 'more label')}: --top shows more"} if left > 0 else rows


def _percent(probability: float) -> str:
    return "<0.1%" if probability < 0.001 else f"{probability:.1%}"


def _printable(text: str) -> str:
    """A text on one line, without what would steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _shortened(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3].rstrip()}..."

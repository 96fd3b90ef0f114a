"""`fmlm predict`."""

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import with_options
from fmlm_cli.config import PredictSettings
from fmlm_cli.events import Emit, Facts, counted

if TYPE_CHECKING:  # they bring torch along, which waits until a command runs
    from fmlm_cli.recipes.prediction.run import LabelGuess, Predicted, TokenGuess

_SHOWN = 70  # characters of a text beside its labels
_BAR = 20  # characters of a bar that stands for 1


@with_options(
    PredictSettings,
    Flag("--from", "checkpoint", metavar="CHECKPOINT"),
    Flag("TEXT", "texts"),
    Flag("--pair", "pairs", metavar="TEXT"),
    Flag("--file", "file", metavar="FILE"),
    Flag("--task", "task"),
    Flag("--top", "top"),
    Flag("--threads", "speed.threads"),
    Flag("--revision", "revision"),
    Flag("--trust-remote-code", "trust_remote_code"),
    by_one=True,
    needs=("TEXT|--file",),
)
def command(
    settings: PredictSettings,
    emit: Emit,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line instead: text, pair, predictions.")
    ] = False,
) -> str | None:
    """Fill the masks of texts, or label texts, whatever the model is for.

    Write each mask as [MASK] or <mask>: either stands for the tokenizer's own.

    Example: fmlm predict --from run "Paris is the [MASK] of France."

    Example: fmlm predict --from tuned --task mrpc "It rains." --pair "Rain is falling."
    """
    from fmlm_cli.recipes.prediction import predict

    predicted = list(predict(settings, emit=emit))
    if as_json:
        return "".join(
            json.dumps(dataclasses.asdict(prediction), ensure_ascii=False) + "\n" for prediction in predicted
        )
    for prediction in predicted:
        emit(_facts(prediction, settings.top))
    return None


def _facts(prediction: "Predicted[Any]", top: int) -> Facts:
    """A text and, below it, what the model predicts, for a reader."""
    from fmlm_cli.recipes.prediction.run import FilledText, ScoredText

    if isinstance(prediction, FilledText):
        return Facts(_printable(prediction.text), _mask_rows(prediction.predictions))
    title = "  |  ".join(_shortened(text) for text in (prediction.text, prediction.pair) if text is not None)
    if isinstance(prediction, ScoredText):
        return Facts(title, {"score": "  ".join(f"{score.score:.3f}" for score in prediction.predictions)})
    return Facts(title, _label_rows(prediction.predictions, top))


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
    more = len(guesses) - top
    return {**rows, "...": f"{counted(more, 'more label')}: --top shows more"} if more > 0 else rows


def _percent(probability: float) -> str:
    return "<0.1%" if probability < 0.001 else f"{probability:.1%}"


def _printable(text: str) -> str:
    """A text on one line, without what would steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _shortened(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3].rstrip()}..."

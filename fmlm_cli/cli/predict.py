"""`fmlm predict`."""

import dataclasses
import json
from typing import Annotated, Any

import typer

from fmlm_cli.cli.running import Debug, Revision, SetOption, TrustRemoteCode, command, list_settings
from fmlm_cli.config import PredictSettings, build, nested, parse_assignments
from fmlm_cli.events import Caution, Event


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
        typer.Argument(metavar="[TEXT]...", help="Texts, each in quotes.", show_default=False),
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
        assigned = parse_assignments(assignments or [], PredictSettings)
        settings = build(PredictSettings, nested(flags), assigned)
        from fmlm_cli import recipes

        found = recipes.predict(settings, emit=_cautions_aside if as_json else emit)
    if as_json:  # out here, so that a reader who closes the pipe early is no fault of fmlm's
        lines = (json.dumps(dataclasses.asdict(each), ensure_ascii=False) + "\n" for each in found)
        typer.echo("".join(lines).encode(), nl=False)  # as UTF-8, whatever the terminal's encoding


def _cautions_aside(event: Event) -> None:
    """Cautions to the standard error, all else nowhere."""
    if isinstance(event, Caution):
        typer.echo(f"note: {event.text}", err=True)

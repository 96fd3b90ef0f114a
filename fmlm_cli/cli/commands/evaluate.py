"""`fmlm evaluate`."""

from typing import Annotated

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
from fmlm_cli.config import EvaluateSettings


def evaluate(
    checkpoint: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="RUN|FOLDER|HUB-NAME",
            help="A run, a checkpoint of one, or a Hugging Face model.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str, typer.Option(metavar="STORE", help="Folder made by fmlm tokenize.", show_default=False)
    ],
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    assignments: SetOption = None,
    settings_table: Annotated[
        bool,
        typer.Option(
            "--settings",
            callback=list_settings(EvaluateSettings),
            is_eager=True,
            help="List all settings, for --set, and exit.",
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Evaluate any masked language model on a store's validation split.

    Example: fmlm evaluate --from run --data store
    """
    with command(debug) as emit:
        flags = {
            "checkpoint": checkpoint,
            "store": data,
            "revision": revision,
            "trust_remote_code": trust_remote_code,
        }
        settings = read_settings(EvaluateSettings, flags, assignments)
        from fmlm_cli.recipes import evaluate

        evaluate.evaluate_checkpoint(settings, emit=emit)

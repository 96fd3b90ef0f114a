"""`fmlm push`."""

from typing import Annotated

import typer

from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import with_options
from fmlm_cli.config import PushSettings
from fmlm_cli.events import Emit


@with_options(
    PushSettings,
    Flag("RUN", "run"),
    Flag("NAME", "name"),
    Flag("--public", "public"),
    Flag("--license", "license", metavar="LICENCE"),
    Flag("--language", "language", metavar="CODE"),
    Flag("--logs", "logs"),
    assignable=False,
    by_one=True,
)
def command(
    settings: PushSettings,
    emit: Emit,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List what would be uploaded and print the card, no more."),
    ] = False,
) -> str | None:
    """Upload a finished model with its card to the Hugging Face Hub, privately at first.

    Log in before, with `hf auth login`.

    Example: fmlm push run my-bert --license apache-2.0 --language en --dry-run

    Example: fmlm push tuned/models/mrpc my-organization/bert-mrpc --public

    - Uploaded is what loads, in one commit: weights, configuration, tokenizer and card, as their hashes say
    that they were made. No optimizer's state, no path of this machine, and nothing that others have put into
    the folder.

    - The card has what the Hub lists models by: base model, data sets, results, licence, language. What you
    have written into final/README.md goes with it; PATH/OF/THIS/FOLDER becomes the repository's name.

    - In a repository that is there already, files of its earlier model go, and all others stay. One that is
    public takes nothing without --public.

    - pretrain, continue and finetune do the same at their end with --push-to-hub NAME.
    """
    from fmlm_cli.recipes import publishing

    if dry_run:
        return publishing.preview(settings, emit=emit)
    publishing.push(settings, emit=emit)
    return None

"""`fmlm runs`."""

import dataclasses
import json
from typing import Annotated

import typer

from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import with_options
from fmlm_cli.config import RunsSettings
from fmlm_cli.events import Emit, ignore


@with_options(
    RunsSettings,
    Flag("DIR", "folders"),
    Flag("--sort", "sort"),
    by_one=True,
)
def command(
    settings: RunsSettings,
    emit: Emit,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> str | None:
    """List the runs below some folders: what differs, how far they are, and their losses.

    Example: fmlm runs experiments --sort best
    """
    from fmlm_cli.recipes.overview.listing import list_runs

    overview = list_runs(settings, ignore if as_json else emit)
    # In ASCII, for a folder's name need not be UTF-8.
    return json.dumps(dataclasses.asdict(overview)) + "\n" if as_json else None

"""`fmlm runs`."""

import dataclasses
import json
import math
from typing import Annotated, Any

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

    Fine-tunings and comparisons have tables of their own: scores by task, losses by arm.

    Example: fmlm runs experiments --sort best
    """
    from fmlm_cli.recipes.overview.listing import list_runs

    overview = list_runs(settings, ignore if as_json else emit)
    return _as_json(dataclasses.asdict(overview)) if as_json else None


def _as_json(overview: dict[str, Any]) -> str:
    """In ASCII, for a folder's name need not be UTF-8; a loss that is not finite is null, as JSON has it."""
    for run in overview["runs"]:
        if run["last_loss"] is not None and not math.isfinite(run["last_loss"]):
            run["last_loss"] = None
    return json.dumps(overview) + "\n"

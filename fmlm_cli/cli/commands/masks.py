"""`fmlm masks`."""

import dataclasses
import json
from typing import Annotated, Any

import typer

from fmlm_cli.cli.running import MASKING_HELP, Debug, SetOption, command, list_settings, read_settings
from fmlm_cli.config import MasksSettings


def masks(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="Folder made by fmlm tokenize.", show_default=False)
    ],
    masking: Annotated[
        str | None, typer.Option(metavar="STRATEGY", help=MASKING_HELP, show_default=False)
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Rows to show. Default: 3.", show_default=False)] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes to look at. Default: until every token was seen, or 7.", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Which rows, and their masks. Default: 0.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    assignments: SetOption = None,
    settings_table: Annotated[
        bool,
        typer.Option(
            "--settings",
            callback=list_settings(MasksSettings),
            is_eager=True,
            help="List all settings, for --set, and exit.",
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Show what a masking strategy does to real rows.

    Example: fmlm masks store --masking fully-explored-span --rows 2
    """
    with command(debug) as emit:
        flags = {"store": store, "masking.strategy": masking, "rows": rows, "epochs": epochs, "seed": seed}
        settings = read_settings(MasksSettings, flags, assignments)
        from fmlm_cli.events import ignore
        from fmlm_cli.recipes import masks

        found = masks.show_masks(settings, emit=ignore if as_json else emit)
        if as_json:
            typer.echo(json.dumps(_as_json(settings, found), ensure_ascii=False))


def _as_json(settings: MasksSettings, found: Any) -> dict[str, object]:
    """Everything that is shown, for programs."""
    return {
        "strategy": found.strategy.name,
        "description": found.strategy.description,
        "rate": found.strategy.rate,
        "masks_per_sequence": found.strategy.masks_per_sequence,
        "passes": found.passes,
        "settings": settings.model_dump(mode="json"),
        "rows": [dataclasses.asdict(row) for row in found.rows],
        "coverage": {"rows": found.sampled_rows, **dataclasses.asdict(found.coverage)},
    }

"""`fmlm masks`."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import with_options
from fmlm_cli.config import MasksSettings
from fmlm_cli.events import Emit, ignore

if TYPE_CHECKING:  # it brings torch along, which waits until a command runs
    from fmlm_cli.recipes.masks import MasksResult


@with_options(
    MasksSettings,
    Flag("STORE", "store"),
    Flag("--masking", "masking.strategy", metavar="STRATEGY"),
    Flag("--rows", "rows"),
    Flag("--epochs", "epochs"),
    Flag("--seed", "seed"),
    by_one=True,
)
def command(
    settings: MasksSettings,
    emit: Emit,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> str | None:
    """Show what a masking strategy does to real rows.

    Example: fmlm masks store --masking fully-explored-span --rows 2
    """
    from fmlm_cli.recipes.masks import show_masks

    shown = show_masks(settings, emit=ignore if as_json else emit)
    return json.dumps(_as_json(settings, shown), ensure_ascii=False) + "\n" if as_json else None


def _as_json(settings: MasksSettings, shown: "MasksResult") -> dict[str, object]:
    """Everything that is shown, for programs."""
    return {
        "strategy": shown.strategy.name,
        "description": shown.strategy.description,
        "rate": shown.strategy.rate,
        "masks_per_sequence": shown.strategy.masks_per_sequence,
        "passes": shown.passes,
        "settings": settings.model_dump(mode="json"),
        "rows": [dataclasses.asdict(row) for row in shown.rows],
        "coverage": {"rows": shown.sampled_rows, **dataclasses.asdict(shown.coverage)},
    }

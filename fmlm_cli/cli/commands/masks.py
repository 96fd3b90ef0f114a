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

    - Words are told by the text, the same under every tokenizer: one begins after a blank, at a mark of
    punctuation and behind it, and at every grapheme of a script without blanks (Chinese, Thai). What a token
    joins stays joined.

    - A unit is never split. A mask has as many tokens as its rate says, as nearly as whole units allow: with
    single tokens the segments of a row differ by one token at most, with longer units by less than the
    largest unit from n/K.

    - At the rate 1/K a random mask and a segment have the same law: the two differ only in how a row's masks
    relate to each other.

    - Scope epoch shows one segment a pass, and a fresh partition every K passes. In the first pass it is
    random masking, mask for mask, and below two passes almost so: it is for text that is seen several times.

    - Scope batch, or K random masks in a step, forwards every row K times: compare them at equal --steps or
    --tokens.

    - Under masking.schedule the rate changes over training; with full exploration K changes between a row's
    cycles, so that each is still complete.

    - A mask is a pure function of (seed, row, pass), by SplitMix64 without any state: it depends on no batch,
    no machine, and nothing that ran before.

    - A strategy of your own: package.module:Class, or an entry point in the group fmlm.masking; see
    `register_strategy` and `Unit` in fmlm_cli.masking.
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

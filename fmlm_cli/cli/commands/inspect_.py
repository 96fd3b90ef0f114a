"""`fmlm inspect`."""

import dataclasses
import json
from typing import Annotated

import typer

from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import with_options
from fmlm_cli.config import InspectSettings
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, ignore


@with_options(
    InspectSettings,
    Flag("STORE|SOURCE...", "sources"),
    Flag("--verify", "verify"),
    Flag("--split", "split"),
    Flag("--tokenizer", "tokenizer", metavar="FOLDER|vocab.txt|HUB-NAME"),
    Flag("--format", "format"),
    Flag("--revision", "revision"),
    Flag("--documents", "documents"),
    Flag("--text-field", "text_field"),
    Flag("--on-bad-text", "on_bad_text"),
    Flag("--min-chars", "min_chars", metavar="N"),
    Flag("--max-chars", "max_chars", metavar="N"),
    Flag("--shown", "shown", metavar="N"),
    Flag("--seed", "seed"),
    by_one=True,
    needs=("STORE|SOURCE...",),
)
def command(
    settings: InspectSettings,
    emit: Emit,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> str | None:
    """Show what a token store holds, or what text would become one.

    Example: fmlm inspect store

    Example: fmlm inspect corpus/ --tokenizer bert-base-uncased
    """
    from fmlm_cli.recipes.inspecting import inspect_sources, inspect_store, is_store

    stores = [source for source in settings.sources if is_store(source)]
    if stores and len(settings.sources) > 1:
        raise UserError(f"{stores[0]} is a token store: give it alone, or sources of text alone")
    inspect = inspect_store if stores else inspect_sources
    report = inspect(settings, ignore if as_json else emit)
    return json.dumps(dataclasses.asdict(report), ensure_ascii=False) + "\n" if as_json else None

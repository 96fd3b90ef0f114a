"""`fmlm evaluate`."""

import dataclasses
import json
from typing import Annotated

import typer

from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import with_options
from fmlm_cli.config import EvaluateSettings
from fmlm_cli.events import Emit, ignore


@with_options(
    EvaluateSettings,
    Flag("--from", "checkpoints", metavar="RUN|FOLDER|HUB-NAME"),
    Flag("--data", "store", metavar="STORE"),
    Flag("--threads", "speed.threads"),
    Flag("--revision", "revision"),
    Flag("--trust-remote-code", "trust_remote_code"),
    by_one=True,
)
def command(
    settings: EvaluateSettings,
    emit: Emit,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line instead, for each checkpoint.")
    ] = False,
) -> str | None:
    """Evaluate masked language models on a store's validation split.

    Example: fmlm evaluate --from run --data store

    Example: fmlm evaluate --from run-a --from run-b --data store

    - It is the evaluation of `fmlm pretrain`, for any masked language model whose tokenizer made the store:
    single tokens, 15 %, 80/10/10, the same masks for all.
    """
    from fmlm_cli.recipes.evaluate import evaluate_checkpoints

    found = evaluate_checkpoints(settings, emit=ignore if as_json else emit)
    if not as_json:
        return None
    return "".join(json.dumps(dataclasses.asdict(each), ensure_ascii=False) + "\n" for each in found)

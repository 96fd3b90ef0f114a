"""`fmlm pretrain`."""

from pathlib import Path
from typing import Annotated

import typer

from fmlm_cli.cli.running import (
    MASKING_HELP,
    Debug,
    Evaluations,
    Overwrite,
    Replay,
    Resume,
    ScheduleOption,
    SetOption,
    command,
    list_settings,
    named_stores,
)
from fmlm_cli.config import PretrainSettings, build, nested, parse_assignments, read_yaml
from fmlm_cli.errors import UserError


def pretrain(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG.yaml]", help="Settings, below all flags.", show_default=False),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STORE[:WEIGHT]",
            help="Folder made by fmlm tokenize; several are mixed.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET|CONFIG.json",
            help="bert-tiny, -mini, -small, -medium, -base, -large, or a Hugging Face config.json. Default: bert-mini.",
            show_default=False,
        ),
    ] = None,
    masking: Annotated[
        str | None,
        typer.Option(
            metavar="STRATEGY",
            help=MASKING_HELP,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="RUN", help="The run's folder.", show_default=False)
    ] = None,
    replay: Replay = None,
    evaluations: Evaluations = None,
    schedule: ScheduleOption = None,
    steps: Annotated[int | None, typer.Option(help="Budget in optimizer steps.", show_default=False)] = None,
    tokens: Annotated[
        float | None, typer.Option(help="Budget in tokens forwarded.", show_default=False)
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Budget in passes over the data.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, order and masks. Default: 0.", show_default=False)
    ] = None,
    assignments: SetOption = None,
    settings_table: Annotated[
        bool,
        typer.Option(
            "--settings",
            callback=list_settings(PretrainSettings),
            is_eager=True,
            help="List all settings, for --set, and exit.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    debug: Debug = False,
) -> None:
    """Pre-train a masked language model from scratch.

    Example: fmlm pretrain --data store --model bert-mini --masking fully-explored --epochs 14 --out run
    """
    with command(debug) as emit:
        flags = nested(
            {
                "data.stores": data,
                "data.replay": replay,
                "evaluation.stores": named_stores(evaluations),
                "optimizer.schedule": schedule,
                "model.name": model,
                "masking.strategy": masking,
                "out": out,
                "budget.steps": steps,
                "budget.tokens": tokens,
                "budget.epochs": epochs,
                "seed": seed,
            }
        )
        from_file = read_yaml(config, PretrainSettings) if config else {}
        assigned = parse_assignments(assignments or [], PretrainSettings)
        settings = build(PretrainSettings, from_file, flags, assigned)
        if settings.model.checkpoint is not None:
            raise UserError("model.checkpoint is set: `fmlm continue` goes on from a checkpoint")
        from fmlm_cli import recipes

        recipes.pretrain(settings, overwrite=overwrite, resume=resume, emit=emit)

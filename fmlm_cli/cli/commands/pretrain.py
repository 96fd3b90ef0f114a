"""`fmlm pretrain`."""

from typing import Annotated

import typer

from fmlm_cli.cli.running import (
    ConfigFile,
    Debug,
    Epochs,
    Evaluations,
    Masking,
    Out,
    Overwrite,
    Replay,
    Resume,
    ScheduleOption,
    SetOption,
    Steps,
    Stores,
    Tokens,
    command,
    list_settings,
    named_stores,
    read_settings,
)
from fmlm_cli.config import PretrainSettings
from fmlm_cli.errors import UserError


def pretrain(
    config: ConfigFile = None,
    data: Stores = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET|CONFIG.json",
            help="bert-tiny, -mini, -small, -medium, -base, -large, or a Hugging Face config.json. Default: bert-mini.",
            show_default=False,
        ),
    ] = None,
    masking: Masking = None,
    out: Out = None,
    replay: Replay = None,
    evaluations: Evaluations = None,
    schedule: ScheduleOption = None,
    steps: Steps = None,
    tokens: Tokens = None,
    epochs: Epochs = None,
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
        flags = {
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
        settings = read_settings(PretrainSettings, flags, assignments, config)
        if settings.model.checkpoint is not None:
            raise UserError("model.checkpoint is set: `fmlm continue` goes on from a checkpoint")
        from fmlm_cli.recipes import pretraining

        pretraining.pretrain(settings, overwrite=overwrite, resume=resume, emit=emit)

"""`fmlm pretrain`."""

from fmlm_cli.cli.flags import BUDGET, Flag
from fmlm_cli.cli.options import (
    AllowChanges,
    DryRun,
    Overwrite,
    PricePerHour,
    Processes,
    Resume,
    with_options,
)
from fmlm_cli.config import PretrainSettings
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit


@with_options(
    PretrainSettings,
    Flag("--data", "data.stores", metavar="STORE[:WEIGHT]"),
    Flag("--model", "model.name", metavar="PRESET|CONFIG.json"),
    Flag("--masking", "masking.strategy", metavar="STRATEGY"),
    Flag("--out", "out", metavar="RUN"),
    Flag("--replay", "data.replay", metavar="STORE:SHARE"),
    Flag("--eval", "evaluation.stores", metavar="NAME=STORE"),
    Flag("--schedule", "optimizer.schedule"),
    BUDGET,
    Flag("--steps", "budget.steps"),
    Flag("--tokens", "budget.tokens"),
    Flag("--epochs", "budget.epochs"),
    Flag("--log", "logging.to", metavar="tensorboard|wandb|trackio"),
    Flag("--push-to-hub", "hub.push_to", metavar="NAME"),
    Flag("--seed", "seed"),
    Flag("--deterministic", "deterministic"),
    Flag("--threads", "speed.threads"),
    from_file=True,
    limited=True,
    needs=("--data", "--out", "--budget|--steps|--tokens|--epochs"),
)
def command(
    settings: PretrainSettings,
    emit: Emit,
    nproc: Processes = None,
    dry_run: DryRun = False,
    price_per_hour: PricePerHour = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    allow_changes: AllowChanges = False,
) -> None:
    """Pre-train a masked language model from scratch.

    Example: fmlm pretrain --data store --model bert-mini --masking fully-explored --epochs 14 --out run
    """
    if settings.model.checkpoint is not None:
        raise UserError("model.checkpoint is set: `fmlm continue` goes on from a checkpoint")
    if dry_run:
        from fmlm_cli.recipes.pretraining.dry_run import estimate_run

        estimate_run(settings, price_per_hour=price_per_hour, emit=emit)
        return
    from fmlm_cli.recipes.shared.launching import hand_over

    if hand_over(nproc, settings.device, emit):
        return
    from fmlm_cli.recipes.pretraining.together import pretrain_together

    pretrain_together(settings, overwrite=overwrite, resume=resume, allow_changes=allow_changes, emit=emit)

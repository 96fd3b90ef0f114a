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

    - RUN has config.yaml (all settings, itself a valid input), metrics.jsonl (a line for each record),
    checkpoints/step-N and final/ (each a Hugging Face folder), plots/loss.png, and what --log asks for.

    - Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 save a checkpoint first (exit code 128 + the signal's number; a
    second Ctrl-C leaves at once). The same command with --resume goes on: on a CPU the finished weights are
    byte for byte those of a run that was never interrupted.

    - Documents share rows without seeing each other (data.packing=documents). On a GPU a batch is one flat
    row, kept apart by torch's variable-length kernel, flash-attn or flex attention, whichever is the first
    that a trial finds right for this very model, else by a mask; the console says which.

    - The loss is summed over the masked tokens of the whole step and divided once: neither batch.micro_size
    nor the number of processes changes the gradient.

    - The evaluation is fixed: held-out rows under masks that depend on no training setting but the rows'
    length and packing, beside the cross-entropy that mere word frequencies reach on the same targets.

    - The head's bias begins at the tokens' log frequencies (model.unigram_bias=false: at zero).

    - Several GPUs: --nproc, torchrun or srun; rows and masks are the same however many there are, from one
    --resume to the next. configs/slurm has tested examples.

    - Several --data STORE:WEIGHT are mixed: which store gives a row is a function of the seed and the row's
    place, and any stretch of rows holds each share to within one row.

    - W&B and trackio cannot take records back: a resumed run sends them what is new; TensorBoard's are
    purged. A tracker that fails is told of, and the run goes on.

    - Checkpoints and models carry hashes that are checked. A final/ that another tool has changed on purpose
    is taken once fmlm_hashes.json in it is deleted.

    - RUN and its store may be moved and renamed: fmlm pretrain RUN/config.yaml --resume.
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

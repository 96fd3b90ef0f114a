"""`fmlm finetune`."""

from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import Cell, Jobs, Overwrite, Report, ReportOnly, Resume, with_options
from fmlm_cli.config import FinetuneSettings
from fmlm_cli.events import Emit


@with_options(
    FinetuneSettings,
    Flag("--from", "checkpoint", metavar="[NAME=]CHECKPOINT"),
    Flag("--task", "tasks.names", metavar="TASK"),
    Flag("--data-dir", "tasks.folder", metavar="DIR"),
    Flag("--train", "tasks.train", metavar="FILE"),
    Flag("--dev", "tasks.dev", metavar="FILE"),
    Flag("--test", "tasks.test", metavar="FILE"),
    Flag("--name", "tasks.name"),
    Flag("--text-field", "tasks.text_field"),
    Flag("--text-pair-field", "tasks.text_pair_field"),
    Flag("--label-field", "tasks.label_field"),
    Flag("--metric", "tasks.metric"),
    Flag("--out", "out", metavar="DIR"),
    Flag("--seeds", "seeds"),
    Flag("--grid", "grid", metavar="none|paper|FILE.yaml"),
    Flag("--epochs", "training.epochs"),
    Flag("--learning-rate", "training.learning_rate"),
    Flag("--batch-size", "training.batch_size"),
    Flag("--from-mnli", "from_mnli"),
    Flag("--push-to-hub", "hub.push_to", metavar="NAME"),
    Flag("--threads", "speed.threads"),
    Flag("--revision", "revision"),
    Flag("--trust-remote-code", "trust_remote_code"),
    from_file=True,
    limited=True,
    needs=("--task|--train", "--out"),
)
def command(
    settings: FinetuneSettings,
    emit: Emit,
    jobs: Jobs = None,
    cell: Cell = None,
    report_only: ReportOnly = False,
    report: Report = True,
    overwrite: Overwrite = False,
    resume: Resume = False,
) -> None:
    """Fine-tune an encoder on GLUE or a labelled set of your own, over seeds.

    Several are compared with the first, on the same tasks and seeds.

    Example: fmlm finetune --from roberta-base --from run --task mrpc --data-dir glue --seeds 5 --out tuned
    """
    from fmlm_cli.recipes.shared.launching import share_out

    cell, processes, emit = share_out(cell, jobs, None if report_only else settings.device, emit)
    from fmlm_cli.recipes.finetuning import finetune

    finetune(
        settings,
        overwrite=overwrite,
        resume=resume,
        cell=cell,
        jobs=processes,
        report=report,
        report_only=report_only,
        emit=emit,
    )

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

    - Scores are GLUE's measures; of each run the epoch with the best development score counts (select=last:
    the last), then median, mean, standard deviation, best and least over seeds; of a grid, the point with the
    best median. A GLUE average stands only where all its tasks are.

    - Several checkpoints are compared in pairs of the same seed: difference, 95 % interval, p after Holm's
    correction over the table, and the smallest difference that so many seeds can be expected to show.

    - Small sets get at least 500 steps where --epochs is left open (training.min_steps; Mosbach et al. 2021).
    training.reinit_layers=2 draws the top layers afresh (Zhang et al. 2021), patience=2 stops early.

    - Of your own sets, labels that are numbers and not all whole are scores to be predicted
    (tasks.regression); labels that the training set lacks count as wrong, with a note. Seeds no better than
    the most frequent class are counted and said.

    - Nothing is computed for padding: sequences of like length share a batch, and what still has more than 5
    % of it is forwarded in parts, with the exact gradient.

    - Finished cells (task, point, seed) are never done again, one in the middle goes on: --resume. With
    OMP_NUM_THREADS=1 results are the same however many --jobs there are.

    - DIR has results.md, .tex and .json, plots/scores.png, predictions of every cell, models/TASK
    (models/CHECKPOINT/TASK of several) with a card, and submission.zip for GLUE's server.
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

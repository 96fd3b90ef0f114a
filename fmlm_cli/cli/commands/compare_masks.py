"""`fmlm compare-masks`."""

from collections.abc import Mapping
from typing import Any

from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import Cell, Jobs, Overwrite, Report, ReportOnly, Resume, with_options
from fmlm_cli.config import SPELLINGS, CompareSettings
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit

_MODEL, _CHECKPOINT = "run.model.name", "run.model.checkpoint"


def _one_start(flagged: Mapping[str, Any]) -> None:
    """One of the two flags may stand over what a file says of the other, but not both flags."""
    if _MODEL in flagged and _CHECKPOINT in flagged:
        raise UserError(
            "--model is trained from scratch and --from goes on from a checkpoint: give one of them"
        )


@with_options(
    CompareSettings,
    Flag("--data", "run.data.stores", metavar="STORE[:WEIGHT]"),
    Flag("--model", _MODEL, metavar="PRESET|CONFIG.json"),
    Flag("--from", _CHECKPOINT, metavar="CHECKPOINT"),
    Flag("--strategies", "strategies", metavar="A,B,...", commas=True),
    Flag("--seeds", "seeds"),
    Flag("--budget", "budget", metavar=SPELLINGS),
    Flag("--tasks", "downstream.tasks", metavar="A,B,...", commas=True),
    Flag("--data-dir", "downstream.folder", metavar="DIR"),
    Flag("--only", "only", metavar="PART,...", commas=True),
    Flag("--out", "out", metavar="DIR"),
    Flag("--threads", "run.speed.threads"),
    Flag("--revision", "run.model.revision"),
    Flag("--trust-remote-code", "run.model.trust_remote_code"),
    from_file=True,
    limited=True,
    needs=("--data", "--budget", "--out"),
    check=_one_start,
)
def command(
    settings: CompareSettings,
    emit: Emit,
    jobs: Jobs = None,
    cell: Cell = None,
    report_only: ReportOnly = False,
    report: Report = True,
    overwrite: Overwrite = False,
    resume: Resume = False,
) -> None:
    """Compare masking strategies: coverage, gradient variance, a race over seeds, and downstream tasks.

    Example: fmlm compare-masks --data store --budget 7-epochs --out races

    - coverage: how often tokens are masked over the passes, and the distances between a row's masks.
    variance: the noise of a step's gradient on real rows, by masks and by rows, at the start, early and late.
    race: every strategy from the same weights, over seeds. downstream: every raced model fine-tuned on
    --tasks.

    - A strategy is NAME[:SETTING=VALUE...]; all run at the rate 1/K, and the first plain random is what the
    others are compared with. Where run.data.max_rows leaves rows over, a control sees fresh rows in every
    pass.

    - The budget is each run's of the race. run. has all settings of `fmlm pretrain` and `continue`: --set
    run.sequence_length=64.

    - A seed is another sample of everything: weights, order, masks, and rows where some are left out
    (race.vary_rows). Arms of a seed share all but the masks.

    - One arm is called better where the paired t-test says so after Holm's correction and it has learnt more
    than word frequencies with every seed; its interval allows for the choice among all (Bonferroni). The
    smallest difference that so many seeds can show is said: give three, better five.

    - Tokens to a loss compare an arm in the middle of its schedule with one at its end:
    race.rerun_to_target=true trains the sooner ones again, with a schedule that ends there.

    - Sweeps: --set 'sweep.segments=[3,5,7]', 'sweep.strategy=[random,fully-explored]',
    'sweep.run.optimizer.learning_rate=[2e-4,5e-4]', every combination; each point against random under its
    own settings.

    - Finished parts are kept: --resume --only PART adds one. DIR has report.html (one file, opens offline),
    report.md, results.json, and every figure as SVG and PNG.
    """
    from fmlm_cli.recipes.shared.launching import share_out

    cell, processes, emit = share_out(cell, jobs, None if report_only else settings.run.device, emit)
    from fmlm_cli.recipes.comparison import compare_masks

    compare_masks(
        settings,
        overwrite=overwrite,
        resume=resume,
        cell=cell,
        jobs=processes,
        report_only=report_only,
        report=report,
        emit=emit,
    )

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

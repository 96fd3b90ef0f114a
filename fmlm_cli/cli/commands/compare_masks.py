"""`fmlm compare-masks`."""

from typing import Annotated

import typer

from fmlm_cli.cli.running import (
    ConfigFile,
    Debug,
    Jobs,
    Overwrite,
    ReportOnly,
    Resume,
    Revision,
    SetOption,
    Share,
    Stores,
    TrustRemoteCode,
    command,
    list_settings,
    read_settings,
)
from fmlm_cli.config import CompareSettings
from fmlm_cli.errors import UserError


def compare_masks(
    config: ConfigFile = None,
    data: Stores = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET|CONFIG.json", help="From scratch. Default: bert-mini.", show_default=False
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="CHECKPOINT",
            help="Go on from a run, one of its checkpoints, a Hugging Face folder, or a Hub name.",
            show_default=False,
        ),
    ] = None,
    strategies: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Each NAME[:SETTING=VALUE...], e.g. random,random:masks_per_sequence=7,fully-explored,"
            "fully-explored:scope=batch.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of each. Default: 3.", show_default=False)] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="2000-steps|5M-tokens|7-epochs|20m", help="Of each run of the race.", show_default=False
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Fine-tune the raced models on GLUE tasks, or on folders that hold train and dev files.",
            show_default=False,
        ),
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where the tasks lie.", show_default=False)
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="PART,...",
            help="Of coverage, variance, race, downstream. Default: all.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of the results.", show_default=False)
    ] = None,
    jobs: Jobs = 1,
    cell: Share = None,
    report_only: ReportOnly = False,
    report: Annotated[bool, typer.Option("--report/--no-report", hidden=True)] = True,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    assignments: SetOption = None,
    settings_table: Annotated[
        bool,
        typer.Option(
            "--settings",
            callback=list_settings(CompareSettings),
            is_eager=True,
            help="List all settings, for --set, and exit.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    debug: Debug = False,
) -> None:
    """Compare masking strategies: coverage, gradient variance, a race over seeds, and downstream tasks.

    Example: fmlm compare-masks --data store --strategies random,fully-explored --budget 7-epochs --out compared
    """
    with command(debug) as emit:
        flags = {
            "run.data.stores": data,
            "run.model.name": model,
            "run.model.checkpoint": checkpoint,
            "run.model.revision": revision,
            "run.model.trust_remote_code": trust_remote_code or None,
            "strategies": _listed(strategies),
            "seeds": seeds,
            "budget": budget,
            "downstream.tasks": _listed(tasks),
            "downstream.folder": data_dir,
            "only": _listed(only),
            "out": out,
        }
        if model is not None and checkpoint is not None:
            raise UserError(
                "--model is trained from scratch and --from goes on from a checkpoint: give one of them"
            )
        settings = read_settings(CompareSettings, flags, assignments, config)
        from fmlm_cli.recipes import comparison

        comparison.compare_masks(
            settings,
            overwrite=overwrite,
            resume=resume,
            cell=cell,
            jobs=jobs,
            report_only=report_only,
            report=report,
            emit=emit,
        )


def _listed(text: str | None) -> list[str] | None:
    """`a,b` as its parts."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]

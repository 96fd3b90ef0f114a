"""`fmlm finetune`."""

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
    TrustRemoteCode,
    command,
    list_settings,
)
from fmlm_cli.config import FinetuneSettings, build, nested, parse_assignments, read_yaml
from fmlm_cli.errors import UserError


def finetune(
    config: ConfigFile = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="CHECKPOINT",
            help="A run, one of its checkpoints, a Hugging Face folder, or a Hub name.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK",
            help="cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, ax, or all (may be repeated).",
            show_default=False,
        ),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="GLUE's files. Default: from the Hub.", show_default=False),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A set of your own: .jsonl, .csv, .tsv, .parquet.", show_default=False
        ),
    ] = None,
    dev: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its development split.", show_default=False)
    ] = None,
    test: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its test split, if any.", show_default=False)
    ] = None,
    text_field: Annotated[
        str | None, typer.Option(help="Field of the text. Default: found.", show_default=False)
    ] = None,
    text_pair_field: Annotated[
        str | None, typer.Option(help="Field of a second text. Default: found.", show_default=False)
    ] = None,
    label_field: Annotated[
        str | None, typer.Option(help="Field of the label. Default: found.", show_default=False)
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What decides: accuracy, f1, macro_f1, micro_f1, matthews, pearson, spearman. Default: macro_f1, "
            "or the mean of both correlations.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of the results.", show_default=False)
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Runs of each, for a spread. Default: 5.", show_default=False)
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="none|paper|FILE.yaml",
            help="Hyperparameters to try: BERT's or RoBERTa's paper's, or lists by setting. Default: none.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes. Default: 3.", show_default=False)] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak. Default: by the model's size.", show_default=False)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: 32.", show_default=False)] = None,
    from_mnli: Annotated[
        bool | None,
        typer.Option(
            "--from-mnli", help="Begin RTE, MRPC and STS-B from the MNLI model.", show_default=False
        ),
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
            callback=list_settings(FinetuneSettings),
            is_eager=True,
            help="List all settings, for --set, and exit.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    debug: Debug = False,
) -> None:
    """Fine-tune an encoder on GLUE or a labelled set of your own, over seeds.

    Example: fmlm finetune --from run --task mrpc --data-dir glue --seeds 5 --out tuned
    """
    with command(debug) as emit:
        flags = {
            "checkpoint": checkpoint,
            "revision": revision,
            "trust_remote_code": trust_remote_code or None,
            "out": out,
            "tasks.names": task,
            "tasks.folder": data_dir,
            "tasks.train": train,
            "tasks.dev": dev,
            "tasks.test": test,
            "tasks.text_field": text_field,
            "tasks.text_pair_field": text_pair_field,
            "tasks.label_field": label_field,
            "tasks.metric": metric,
            "seeds": seeds,
            "grid": grid,
            "training.epochs": epochs,
            "training.learning_rate": learning_rate,
            "training.batch_size": batch_size,
            "from_mnli": from_mnli,
        }
        from_file = read_yaml(config, FinetuneSettings) if config else {}
        assigned = parse_assignments(assignments or [], FinetuneSettings)
        if not checkpoint and "checkpoint" not in {**from_file, **assigned}:
            raise UserError("no checkpoint: give --from CHECKPOINT")
        settings = build(FinetuneSettings, from_file, nested(flags), assigned)
        from fmlm_cli.recipes import finetuning

        finetuning.finetune(
            settings,
            overwrite=overwrite,
            resume=resume,
            cell=cell,
            jobs=jobs,
            report=report,
            report_only=report_only,
            emit=emit,
        )

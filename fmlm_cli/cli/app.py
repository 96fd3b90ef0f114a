"""The `fmlm` command."""

from typing import Annotated

import typer

from fmlm_cli import __version__
from fmlm_cli.cli.commands.compare_masks import compare_masks
from fmlm_cli.cli.commands.continue_ import continue_
from fmlm_cli.cli.commands.evaluate import evaluate
from fmlm_cli.cli.commands.finetune import finetune
from fmlm_cli.cli.commands.masks import masks
from fmlm_cli.cli.commands.predict import predict
from fmlm_cli.cli.commands.pretrain import pretrain
from fmlm_cli.cli.commands.tokenize import tokenize

app = typer.Typer(
    name="fmlm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Pre-train masked language models with fully-explored masking.",
    epilog="First steps: [bold]fmlm tokenize python-docs --train-tokenizer wordpiece --out store[/bold], then "
    "[bold]fmlm pretrain --data store --epochs 7 --out run[/bold]",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fmlm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options of `fmlm` itself."""


app.command()(tokenize)
app.command()(masks)
app.command()(pretrain)
app.command("continue")(continue_)
app.command()(evaluate)
app.command()(finetune)
app.command()(predict)
app.command("compare-masks")(compare_masks)


def main() -> None:
    """Run the command line."""
    app()

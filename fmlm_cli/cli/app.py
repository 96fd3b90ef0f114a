"""The `fmlm` command: which commands there are. A command is loaded when it runs, or shows its own help."""

import contextlib
import importlib
import io
import os
import signal
import sys
from typing import Annotated, Any

import typer
import typer.main

from fmlm_cli.cli import pages
from fmlm_cli.cli.streams import lead_nowhere, not_writable, occupy_closed_descriptors
from fmlm_cli.engine.signals import stop_when_parent_ends, stop_when_stdin_closes

# By name: the module whose `command` it is, and what it does.
COMMANDS = {
    "tokenize": ("tokenize", "Turn text into a token store."),
    "merge": ("merge", "Join the shards of a token store that several machines have made."),
    "inspect": ("inspect_", "Show what a token store holds, or what text would become one."),
    "masks": ("masks", "Show what a masking strategy does to real rows."),
    "pretrain": ("pretrain", "Pre-train a masked language model from scratch."),
    "continue": ("continue_", "Go on training an encoder on your own text."),
    "runs": ("runs", "List the runs below some folders: what differs, how far they are, and their losses."),
    "plot": ("plot", "Draw the loss curves of runs over each other, into a picture or in the terminal."),
    "evaluate": ("evaluate", "Evaluate masked language models on a store's validation split."),
    "finetune": ("finetune", "Fine-tune an encoder on GLUE or a labelled set of your own, over seeds."),
    "predict": ("predict", "Fill the masks of texts, or label texts, whatever the model is for."),
    "push": (
        "push",
        "Upload a finished model with its card to the Hugging Face Hub, privately at first.",
    ),
    "compare-masks": (
        "compare_masks",
        "Compare masking strategies: coverage, gradient variance, a race over seeds, and downstream tasks.",
    ),
    "config": ("config_", "Show a file of settings resolved, or the JSON schema of such files."),
    "doctor": (
        "doctor",
        "Show what training will meet on this machine: device, precision, attention, memory, disk, speed.",
    ),
}


class _LazyGroup(pages.Group):
    """Commands that are only a name and a line of help until one of them is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _load(name) if name else command, rest


app = typer.Typer(
    name="fmlm",
    cls=_LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=pages.context_settings(),
    help="""Pre-train masked language models with fully-explored masking.

    Example: fmlm tokenize python-docs --train-tokenizer wordpiece --out store

    Example: fmlm pretrain --data store --epochs 7 --out run
    """,
)


def _print_version(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:  # a shell that completes runs nothing
        for line in importlib.import_module("fmlm_cli.about").described():  # it loads torch in the end
            typer.echo(line)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print versions, fmlm's and those of what it stands on, and the device, and exit.",
        ),
    ] = False,
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
) -> None:
    """Options of `fmlm` itself."""
    if until_stdin_closes:
        stop_when_stdin_closes()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun's agent, whose end nothing else tells of
        stop_when_parent_ends()


def _not_loaded() -> None:
    """Stands for every command until it is called."""


for _name, (_, _help) in COMMANDS.items():
    app.command(_name, help=_help)(_not_loaded)


def _load(name: str) -> Any:
    """The command with its options."""
    module, _ = COMMANDS[name]
    command = importlib.import_module(f"fmlm_cli.cli.commands.{module}").command
    if isinstance(command, typer.Typer):  # several commands of one kind
        return typer.main.get_group(command)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name, cls=pages.Command)(command)
    return typer.main.get_command(alone)


def main() -> None:
    """Run the command line."""
    occupy_closed_descriptors()
    _write_what_the_locale_lacks()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # --help ends as `cat` does where its reader has gone
    try:
        app()
    except OSError as error:  # of the help, which Typer prints: what commands do is guarded
        lead_nowhere(sys.stdout)
        with contextlib.suppress(OSError):
            print(f"error: {not_writable(error)}", file=sys.stderr)
        lead_nowhere(sys.stderr)
        sys.exit(2)


def _write_what_the_locale_lacks() -> None:
    r"""Let letters that a terminal's encoding lacks be written as \u2212; files are UTF-8 whatever it is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="backslashreplace")

"""What all commands share: their common options, and how they end."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TypeVar

import typer

from fmlm_cli.cli.console import Console
from fmlm_cli.config import (
    Section,
    TextSettings,
    build,
    choices,
    describe_settings,
    nested,
    parse_assignments,
    read_yaml,
)
from fmlm_cli.errors import Interrupted, OutOfSpaceError, UserError, is_out_of_space
from fmlm_cli.events import Emit

Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds, if fmlm made it.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where an earlier call stopped; start if there is none.")
]

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any setting, e.g. sequence_length=256 (may be repeated).",
        show_default=False,
    ),
]

ConfigFile = Annotated[
    Path | None,
    typer.Argument(metavar="[CONFIG.yaml]", help="Settings, below all flags.", show_default=False),
]
Out = Annotated[str | None, typer.Option(metavar="RUN", help="The run's folder.", show_default=False)]
Steps = Annotated[int | None, typer.Option(help="Budget in optimizer steps.", show_default=False)]
Tokens = Annotated[float | None, typer.Option(help="Budget in tokens forwarded.", show_default=False)]
Epochs = Annotated[float | None, typer.Option(help="Budget in passes over the data.", show_default=False)]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a Hub name.", show_default=False)
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python code that a checkpoint brings.")
]
DocumentsOption = Annotated[
    str | None,
    typer.Option(
        "--documents",
        metavar="|".join(choices(TextSettings, "documents")),
        help="What a document is in .txt files. Default: auto.",
        show_default=False,
    ),
]
TextField = Annotated[
    str | None,
    typer.Option(help="Field of a .jsonl line that holds the text. Default: text.", show_default=False),
]
OnBadText = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(choices(TextSettings, "on_bad_text")),
        help="What to do with invalid UTF-8. Default: stop.",
        show_default=False,
    ),
]
AddTokens = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Words, one a line, that become tokens of the tokenizer's, when text is tokenized.",
        show_default=False,
    ),
]
ExtendVocab = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="So many words of the text become tokens: those that are frequent and split most.",
        show_default=False,
    ),
]
Replay = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STORE:SHARE",
        help="Mix this share of another store's rows in, against forgetting (may be repeated).",
        show_default=False,
    ),
]
Evaluations = Annotated[
    list[str] | None,
    typer.Option(
        "--eval",
        metavar="NAME=STORE",
        help="Evaluate on this store's held-out text too (may be repeated).",
        show_default=False,
    ),
]
ScheduleOption = Annotated[
    str | None,
    typer.Option(
        metavar="linear|cosine|wsd", help="Course of the learning rate. Default: linear.", show_default=False
    ),
]

MASKING_HELP = (
    "random, whole-word, span or pmi; fully-explored, fully-explored-word, -span or -pmi; or package.module:object. "
    "Default: fully-explored."
)

Stores = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="STORE[:WEIGHT]",
        help="Folder made by fmlm tokenize; several are mixed.",
        show_default=False,
    ),
]
Jobs = Annotated[int, typer.Option(help="Processes that share the work.")]
Share = Annotated[
    str | None,
    typer.Option(
        "--cell", metavar="I/N", help="Do only this share of the work (Slurm arrays).", show_default=False
    ),
]
ReportOnly = Annotated[
    bool, typer.Option("--report-only", help="Report on work that is finished; train nothing.")
]

Masking = Annotated[str | None, typer.Option(metavar="STRATEGY", help=MASKING_HELP, show_default=False)]

S = TypeVar("S", bound=Section)

USER_ERROR, PROGRAM_ERROR = 2, 1

_STOPPED = "stopped by {}; nothing half-written was left, and the same command with --resume goes on"


def read_settings(
    section: type[S], flags: Mapping[str, Any], assignments: list[str] | None, config: Path | None = None
) -> S:
    """A command's settings from its file, dotted flags and --set, the later over the earlier."""
    from_file = read_yaml(config, section) if config else {}
    assigned = parse_assignments(assignments or [], section)
    return build(section, from_file, nested(flags), assigned)


def named_stores(given: list[str] | None) -> dict[str, str] | None:
    """`["general=wiki"]` as `{"general": "wiki"}`; a store without a name goes by its folder's."""
    if not given:
        return None
    named: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        name, path = (name, path) if equals else (Path(text).name, text)
        if not name or not path:
            raise UserError(f"--eval {text}: write it as --eval name=store")
        if name in named:
            raise UserError(f"--eval {text}: the name '{name}' is given twice")
        named[name] = path
    return named


def list_settings(section: type[Section]) -> Callable[[bool], None]:
    """The callback of an option that prints all settings of a command and exits."""

    def show(wanted: bool) -> None:
        if wanted:
            Console().settings(describe_settings(section))
            raise typer.Exit

    return show


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Interrupted(_STOPPED.format("SIGTERM"), 128 + number)


@contextmanager
def command(debug: bool) -> Iterator[Emit]:
    """Run a command's body: gives it a console to emit to, turns whatever ends it into one line and an exit code."""
    # Libraries that bring a progress bar or advice of their own would write over ours.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    signal.signal(signal.SIGTERM, _terminate)
    console = Console()
    try:
        with console:
            yield console.emit
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt, Interrupted) as error:
        if debug and not isinstance(error, Interrupted | KeyboardInterrupt):
            raise
        line, code = _ending(error)
        console.error(line)
        raise typer.Exit(code) from None


def _ending(error: BaseException) -> tuple[str, int]:
    """The line and the exit code for whatever ended a command."""
    if isinstance(error, UserError):
        return f"error: {error}", USER_ERROR
    if isinstance(error, Interrupted):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return _STOPPED.format("Ctrl-C"), 128 + signal.SIGINT
    if is_out_of_space(error):
        return (
            f"error: {OutOfSpaceError('no space left on the disk: free some, or choose another --out')}",
            USER_ERROR,
        )
    kind = type(error).__name__
    if kind == "OutOfMemoryError":  # torch's; by name, for torch may not be imported
        return (
            "error: out of GPU memory: forward fewer rows at once, with --set batch.micro_size=N (and --resume)",
            USER_ERROR,
        )
    reason = (str(error).splitlines() or [""])[0]
    return f"unexpected {kind}: {reason} (this is a fault of fmlm's: --debug shows where)", PROGRAM_ERROR

"""`fmlm config`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fmlm_cli.cli.pages import Command, Group
from fmlm_cli.cli.running import guarded
from fmlm_cli.cli.suggestions import of_assignments
from fmlm_cli.config import PretrainSettings, Section, build, parse_assignments, read_yaml
from fmlm_cli.config.showing.commands import SECTIONS, likeliest_section
from fmlm_cli.config.showing.json_schema import schema_of
from fmlm_cli.config.showing.origins import Origins, annotated_yaml
from fmlm_cli.errors import unknown_name

command = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Show a file of settings resolved, or the JSON schema of such files.

    Example: fmlm config show configs/demo.yaml

    Example: fmlm config schema
    """,
)
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")]


@command.command("show", cls=Command)
def show(
    file: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The file. Required.", readable=False)],
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting, over the file (may be repeated).",
            show_default=False,
            autocompletion=of_assignments(PretrainSettings),
        ),
    ] = None,
    of: Annotated[
        str | None,
        typer.Option(
            "--command",
            metavar="|".join(SECTIONS),
            help="Whose settings they are; default: the command that most of them belong to.",
            show_default=False,
            autocompletion=lambda: [*SECTIONS],
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Show every setting of a file resolved, and where it comes from, as a file of its own.

    Example: fmlm config show configs/demo.yaml --set seed=3
    """
    with guarded(debug, leaves_files=False, for_programs=True) as console:
        section = _known(of) if of is not None else likeliest_section(file)
        given = read_yaml(file, section), parse_assignments(assignments or (), section)
        needed = {name for name, field in section.model_fields.items() if field.is_required()}
        lacking = needed.difference(*given)
        settings = build(section, dict.fromkeys(lacking, ""), *given)
        origins = Origins(section, file, assignments=assignments or (), lacking=lacking)
        console.write(annotated_yaml(settings, origins))


@command.command("schema", cls=Command)
def schema(
    of: Annotated[
        str,
        typer.Argument(
            metavar="COMMAND",
            help=f"Whose: {', '.join(SECTIONS)}. Default: pretrain.",
            show_default=False,
            autocompletion=lambda: [*SECTIONS],
        ),
    ] = "pretrain",
    debug: Debug = False,
) -> None:
    """Print the JSON schema of a command's settings, for editors.

    Example: fmlm config schema pretrain
    """
    with guarded(debug, leaves_files=False, for_programs=True) as console:
        console.write(json.dumps(schema_of(_known(of), of), indent=2, ensure_ascii=False) + "\n")


def _known(name: str) -> type[Section]:
    if name not in SECTIONS:
        raise unknown_name("command with a file of settings", name, SECTIONS)
    return SECTIONS[name]

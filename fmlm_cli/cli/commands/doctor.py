"""`fmlm doctor`."""

import dataclasses
import json
from typing import Annotated

import typer

from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import with_options
from fmlm_cli.config import DoctorSettings
from fmlm_cli.events import Emit, ignore


@with_options(
    DoctorSettings,
    Flag("--device", "device"),
    Flag("--precision", "precision"),
    Flag("--out", "out", metavar="FOLDER"),
    assignable=False,  # each of its settings has a flag
    by_one=True,
)
def command(
    settings: DoctorSettings,
    emit: Emit,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> str | None:
    """Show what training will meet on this machine: device, precision, attention, memory, disk, speed.

    Example: fmlm doctor
    """
    from fmlm_cli.recipes.doctor import examine

    report = examine(settings, emit=ignore if as_json else emit)
    return json.dumps(dataclasses.asdict(report), ensure_ascii=False) + "\n" if as_json else None

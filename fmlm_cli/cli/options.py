"""What makes a command of a function: options, those of its settings and those that several commands have."""

import inspect
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from fmlm_cli.cli.flags import Flag, Shortcut, keyword, typer_option
from fmlm_cli.cli.pages import SETTINGS, laid_out
from fmlm_cli.cli.running import guarded
from fmlm_cli.cli.suggestions import of_assignments, of_settings
from fmlm_cli.config import (
    Section,
    build,
    choices,
    describe_settings,
    nested,
    parse_assignments,
    read_yaml,
    setting_field,
)
from fmlm_cli.config.layers import UnknownSettingError
from fmlm_cli.config.showing.commands import commands_with, likeliest_section
from fmlm_cli.config.showing.origins import Origins
from fmlm_cli.engine.ranks.launch import read_launch
from fmlm_cli.engine.signals import TEMPFAIL, limit_process, note_that_work_has_ended
from fmlm_cli.errors import USER_ERROR, AnotherEndedError, OtherSettingError, UserError, shortened
from fmlm_cli.events import Emit
from fmlm_cli.storage import RUN_CONFIG, check_not_within, kind_of

S = TypeVar("S", bound=Section)
P = ParamSpec("P")

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds, if fmlm made it.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where an earlier call stopped; start if there is none.")
]
Processes = Annotated[
    int | None,
    typer.Option(
        "--nproc",
        metavar="N",
        help="Processes of this machine that train together; default: as many as it has GPUs.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Say what it would take, in time, memory and disk, by a few timed steps; write nothing.",
    ),
]
PricePerHour = Annotated[
    float | None,
    typer.Option(
        "--price-per-hour",
        metavar="X",
        help="With --dry-run: what an hour of the machine costs.",
        show_default=False,
    ),
]
AllowChanges = Annotated[
    bool,
    typer.Option(
        "--allow-changes",
        help="With --resume: go on under other settings, where that can be; what differs is recorded.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        metavar="N",
        help="Processes that share the work and the threads, by whose number sums round differently; "
        "default: as many as there are GPUs.",
        show_default=False,
    ),
]
Cell = Annotated[
    str | None,
    typer.Option(
        "--cell", metavar="I/N", help="Do only this share of the work (Slurm arrays).", show_default=False
    ),
]
ReportOnly = Annotated[
    bool, typer.Option("--report-only", help="Report on work that is finished; train nothing.")
]
Report = Annotated[bool, typer.Option("--report/--no-report", hidden=True)]

_CONFIG = keyword(
    "config",
    Path,
    # Whether it can be read is seen, and told in one line, where it is read.
    typer.Argument(
        metavar="CONFIG.yaml", help="Settings, what is required among them; flags win.", readable=False
    ),
)
_LIMITS = (
    keyword(
        "max_minutes",
        float,
        typer.Option(
            "--max-minutes",
            metavar="M",
            help=f"Save and end within M minutes of the start, with exit code {TEMPFAIL}; --resume goes on.",
            show_default=False,
        ),
    ),
    keyword(
        "requeue_exit_code",
        int,
        typer.Option(
            "--requeue-exit-code",
            metavar="N",
            help=f"The exit code of a run that was stopped, by time or a signal, in place of {TEMPFAIL} and "
            "128 + the signal's number.",
            show_default=False,
        ),
    ),
)
_TIME_TO_SPEAK = 5.0  # seconds
_DEBUG = keyword("debug", bool, typer_option("--debug", None, "Show a traceback when something goes wrong."))


def check_dry_run(dry_run: bool, price_per_hour: float | None) -> None:
    """Refuse a dry run by several processes, which would time each other, and a price without a dry run."""
    if dry_run:
        _check_alone()
    if price_per_hour is not None and not dry_run:
        raise UserError(f"--price-per-hour {price_per_hour:g} is for an estimate: give --dry-run too")
    if price_per_hour is not None and not 0 <= price_per_hour < float("inf"):
        raise UserError(f"--price-per-hour {price_per_hour:g}: give 0 or more")


def _no_check(flagged: Mapping[str, Any]) -> None:
    pass


def with_options(
    section: type[S],
    *flags: Flag | Shortcut,
    from_file: bool = False,
    assignable: bool = True,
    by_one: bool = False,
    limited: bool = False,
    needs: Sequence[str] = (),
    check: Callable[[Mapping[str, Any]], None] = _no_check,
) -> Callable[[Callable[Concatenate[S, Emit, P], str | None]], Callable[..., None]]:
    """A decorator that makes a command of a function of settings and of where to emit events.

    The command has these flags (of two that set the same, the later wins), --set and --settings if it is
    `assignable`, a CONFIG.yaml if it may be given `from_file`, --max-minutes and --requeue-exit-code if its
    time can be `limited`, the function's other parameters, and --debug.
    `by_one`: it is work for one process, and refused in several that were started together.
    `needs`: flags without which, or what they set in a file, it refuses to begin, beside those of settings
    without a default; its help says so. "--a|--b" needs one of the two.
    `check` sees what flags have set, by dotted name, before anything else is read. A text that the function
    returns is for programs: it goes to the standard output in UTF-8.
    """

    def decorate(body: Callable[Concatenate[S, Emit, P], str | None]) -> Callable[..., None]:
        def command(
            *,
            debug: bool,
            config: Path | None = None,
            assignments: Sequence[str] | None = None,
            list_settings: str | None = None,
            max_minutes: float | None = None,
            requeue_exit_code: int | None = None,
            **arguments: Any,
        ) -> None:
            for_programs = bool(arguments.get("as_json"))
            with guarded(debug, leaves_files=leaves_files, for_programs=for_programs) as console:
                with _told_once_a_machine():
                    if by_one:
                        _check_alone()
                    _limit(max_minutes, requeue_exit_code)
                    flagged, by_flag = _taken_from(arguments, section, flags)
                    check(flagged)
                    origins = Origins(section, config, by_flag, assignments or ())
                    settings = _read_settings(section, flags, flagged, origins)
                    _check_place(settings, body)
                try:
                    with _naming_origins(origins):
                        output = body(settings, console.emit, **arguments)  # type: ignore[call-arg] # Typer gives them all
                finally:
                    note_that_work_has_ended()
                if output:
                    console.write(output)

        leaves_files = "resume" in inspect.signature(body).parameters
        limits = _LIMITS if limited else ()
        parameters = [*_of_settings(section, flags, needs, from_file, assignable), *limits, *_of_body(body)]
        command.__doc__ = body.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def _taken_from(
    arguments: dict[str, Any], section: type[Section], flags: Iterable[Flag | Shortcut]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What flags set, by dotted name, and which flag each is from; they are taken out of the `arguments`."""
    flagged: dict[str, Any] = {}
    by_flag: dict[str, str] = {}
    alone: set[str] = set()
    for flag in flags:
        value = arguments.pop(flag.parameter)
        if value == "":
            raise UserError(f"{flag.name} is empty (an unset variable?): give a value, or leave it out")
        given = flag.settings(value, section) if _is_given(value) else {}
        for name in given.keys() & alone:
            raise UserError(f"{by_flag[name]} and {flag.name} both set {name}: keep one")
        alone |= given.keys() if isinstance(flag, Shortcut) and flag.alone else set()
        flagged |= given
        by_flag |= dict.fromkeys(given, flag.name)
    return flagged, by_flag


@contextmanager
def _told_once_a_machine() -> Iterator[None]:
    """What is wrong with a command's words is wrong in all processes: the first of each machine says so.

    The others give it the time to: torchrun ends all once the first of them has ended.
    """
    try:
        yield
    except UserError:
        launch = read_launch(os.environ)
        if launch is not None and launch.local_rank:
            time.sleep(_TIME_TO_SPEAK)
            raise AnotherEndedError(USER_ERROR) from None
        raise


def _check_place(settings: Section, body: Callable[..., Any]) -> None:
    """Refuse a folder for the results of a command that would lie in one that fmlm made."""
    out = getattr(settings, "out", None)
    if out is not None and "overwrite" in inspect.signature(body).parameters:
        check_not_within(Path(out))


def _check_alone() -> None:
    """Refuse to do the same several times at once."""
    launch = read_launch(os.environ)
    if launch is not None:
        raise UserError(
            f"this command is work for one process, and {launch.by} has started {launch.world}: "
            "run it without"
        )


def _limit(minutes: float | None, requeue_code: int | None) -> None:
    """Let the process end by itself, if it is to."""
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UserError(f"--max-minutes {minutes:g}: give more than 0")
    if requeue_code is not None and not 1 <= requeue_code <= 255:
        raise UserError(f"--requeue-exit-code {requeue_code}: give 1 to 255")
    limit_process(minutes, requeue_code)


def _is_given(value: Any) -> bool:
    """Whether a flag was given; 0 and an empty text can be."""
    return value is not None and value is not False and value != []


def _read_settings(
    section: type[S], flags: Iterable[Flag | Shortcut], flagged: Mapping[str, Any], origins: Origins
) -> S:
    """A command's settings from its file, its flags and --set, the later over the earlier."""
    config = origins.config
    from_file = {**_read_file(config, section), **_whose(config, section)} if config else {}
    trees = (from_file, nested(flagged), parse_assignments(origins.assignments, section))
    required = [flag for flag in flags if isinstance(flag, Flag) and flag.is_required(section)]
    for flag in required:
        if not any(tree.get(flag.setting) for tree in trees):  # no required setting is in a group
            raise UserError(f"no {flag.setting}: give {flag.name} {flag.metavar or ''}".rstrip())
    return build(section, *trees, origin=origins.of)


def _read_file(config: Path, section: type[S]) -> dict[str, Any]:
    """What a file sets; one of another command is told to be that."""
    try:
        return read_yaml(config, section)
    except UnknownSettingError as error:
        meant = likeliest_section(config)
        if meant is section:
            raise
        raise error.hinting(f"the file seems to be for {commands_with(meant)}") from None


def _whose(config: Path, section: type[Section]) -> Mapping[str, str]:
    """The folder that a config.yaml lies in, if a command has made it: it means that one, moved or not."""
    folder = config.parent if config.parent.name else config.absolute().parent
    is_own = config.name == RUN_CONFIG and kind_of(folder) is not None
    return {"out": str(folder)} if is_own and "out" in section.model_fields else {}


@contextmanager
def _naming_origins(origins: Origins) -> Iterator[None]:
    """Say of a setting that stands in the way where its value came from."""
    try:
        yield
    except OtherSettingError as error:
        origin = origins.of(error.setting)
        where = f"from {origin}" if origin else "its default, or what follows from the others"
        raise error.named(where) from None


def _of_settings(
    section: type[Section],
    flags: Iterable[Flag | Shortcut],
    needs: Sequence[str],
    from_file: bool,
    assignable: bool,
) -> list[inspect.Parameter]:
    """The parameters of a command that settings come from."""
    parameters = [_CONFIG] if from_file else []
    for flag in flags:
        without_default = isinstance(flag, Flag) and flag.is_required(section)
        more_help = _need(flag.name, (flag.name,) if without_default else needs)
        parameters.append(flag.as_parameter(section, may_be_missing=from_file, more_help=more_help))
    return [*parameters, *([_assignments(section), _settings_list(section)] if assignable else [])]


def _need(name: str, needs: Sequence[str]) -> str:
    """What to say of a flag that may not be left out."""
    for need in needs:
        names = [need] if need == name else need.split("|")  # an argument's name may hold a |
        if name in names:
            others = " or ".join(other for other in names if other != name)
            return f" Required, unless {others} is given." if others else " Required."
    return ""


def _of_body(body: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that a command's function has beside settings and emit, and --debug."""
    _, _, *others = inspect.signature(body, eval_str=True).parameters.values()
    return [*(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in others), _DEBUG]


def _assignments(section: type[Section]) -> inspect.Parameter:
    """--set, for any setting."""
    help_text = "Any setting, e.g. sequence_length=256 (may be repeated)."
    shown = typer_option("--set", "NAME=VALUE", help_text, complete=of_assignments(section))
    return keyword("assignments", list[str], shown)


def _settings_list(section: type[Section]) -> inspect.Parameter:
    """--settings, which prints all settings of a command and exits."""

    def show(context: typer.Context, words: str | None) -> None:
        if words is not None and not context.resilient_parsing:  # a shell that completes runs nothing
            with guarded(debug=False, leaves_files=False) as console:
                console.page(lambda width: laid_out(_listed(section, words), width))
            raise typer.Exit

    option = typer.Option(
        SETTINGS,
        callback=show,
        is_eager=True,
        metavar="[WORD...]",
        autocompletion=of_settings(section),
        help="List the settings that --set takes, all of them or those with these words, and exit.",
    )
    return keyword("list_settings", str, option)


def _listed(section: type[Section], words: str) -> dict[str, list[tuple[str, str]]]:
    """The settings that have all of the words in their names or descriptions, by the groups they are in."""
    wanted = words.casefold().split()
    panels: dict[str, list[tuple[str, str]]] = {}
    for name, default, meaning in describe_settings(section):
        if all(word in f"{name} {meaning}".casefold() for word in wanted):
            values = "|".join(choices(section, name))
            group = name.rpartition(".")[0]
            text = f"{meaning}. Default: {default}." if default else f"{meaning}."
            panels.setdefault(group, []).append((f"{name} {values}".strip(), text))
    if not panels:
        raise UserError(f"no setting has '{shortened(words)}' in its name or meaning: {SETTINGS} lists all")
    return {_titled(section, group): rows for group, rows in panels.items()}


def _titled(section: type[Section], group: str) -> str:
    """A group's name, and what it is about."""
    if not group:
        return "of the command:"
    about = (inspect.getdoc(setting_field(section, group).annotation) or "").splitlines()[0]
    return f"{group}: {about.rstrip('.')}"

"""Options that are made from settings, with a small command of our own."""

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
import typer
import typer.main
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from typer.testing import CliRunner

from fmlm_cli.cli.app import COMMANDS, app
from fmlm_cli.cli.flags import Flag, Shortcut
from fmlm_cli.cli.options import Overwrite, with_options
from fmlm_cli.cli.pages import Command
from fmlm_cli.config import Section
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Note
from tests.cli.refusals import assert_refused

quick = settings(derandomize=True, deadline=None, max_examples=60)


class Wheels(Section):
    """A group."""

    count: Annotated[int, Field(ge=1)] = Field(4, description="wheels there are")
    width: Annotated[float, Field(gt=0)] | None = Field(
        None, description="in cm; default by the car's weight"
    )
    kind: Literal["summer", "winter"] | None = Field(None, description="season that they are for")


class Car(Section):
    """What the command below builds."""

    name: str = Field(description="what it is called [a-z]")
    colours: tuple[str, ...] = Field((), description="paint, of which there may be several coats")
    fuel: Literal["petrol", "none"] = Field("petrol", description="what it burns")
    doors: int = Field(0, description="doors [bold]of it[/bold]")
    roof: bool = Field(False, description="cover it")
    keys: dict[str, str] = Field({}, description="spare keys, and where they hang")
    wheels: Wheels = Wheels()


FLAGS = (
    Flag("--name", "name", metavar="NAME"),
    Shortcut("--winter", bool, "Be ready.", lambda _: {"wheels.kind": "winter", "wheels.width": 20.0}),
    Flag("--colour", "colours", metavar="PAINT"),
    Flag("--fuel", "fuel"),
    Flag("--doors", "doors"),
    Flag("--roof", "roof"),
    Flag("--key", "keys", metavar="WHO=HOOK"),
    Flag("--wheels", "wheels.count"),
    Flag("--width", "wheels.width"),
    Flag("--tyres", "wheels.kind"),
)


def of_one_colour(flagged: Mapping[str, Any]) -> None:
    if len(flagged.get("colours", ())) > 2:
        raise UserError("too much paint")


built: list[tuple[Car, bool]] = []


@with_options(Car, *FLAGS, from_file=True, check=of_one_colour)
def build_car(settings: Car, emit: Emit, overwrite: Overwrite = False, aloud: bool = False) -> str | None:
    """Build a car."""
    emit(Note("building"))
    built.append((settings, overwrite))
    return f"{settings.name} ü\n" if aloud else None


def made(command: Callable[..., None]) -> typer.Typer:
    cars = typer.Typer(add_completion=False, rich_markup_mode=None)
    cars.command(cls=Command)(command)
    return cars


def call(*words: Any) -> Result:
    return CliRunner().invoke(made(build_car), list(map(str, words)), env={"COLUMNS": "160"})


def car(*words: Any) -> Car:
    result = call("--name", "x", *words)
    assert result.exit_code == 0, result.output
    return built[-1][0]


def options() -> dict[str, Any]:
    return {option.name: option for option in typer.main.get_command(made(build_car)).params}


def taken(parameter: inspect.Parameter) -> Any:
    """What an option takes: the annotation that Typer reads, without the None of what may be left out."""
    kind = (get_args(parameter.annotation) or (parameter.annotation,))[0]
    return get_args(kind)[0] if type(None) in get_args(kind) else kind


def test_types_metavars_and_repetition_come_from_the_settings() -> None:
    shown = {name: taken(parameter) for name, parameter in inspect.signature(build_car).parameters.items()}
    assert shown == {
        "config": Path, "name": str, "winter": bool, "colours": list[str], "fuel": str, "doors": int,
        "roof": bool, "keys": list[str], "wheels_count": int, "wheels_width": float, "wheels_kind": str,
        "assignments": list[str], "list_settings": str, "overwrite": bool, "aloud": bool, "debug": bool,
    }  # fmt: skip
    metavars = {name: option.metavar for name, option in options().items() if option.metavar}
    assert metavars == {
        "config": "CONFIG.yaml", "name": "NAME", "colours": "PAINT", "fuel": "petrol|none", "doors": "N",
        "keys": "WHO=HOOK", "wheels_count": "N", "wheels_width": "X", "wheels_kind": "summer|winter",
        "assignments": "NAME=VALUE", "list_settings": "[WORD...]",
    }  # fmt: skip


def test_help_and_defaults_come_from_the_settings() -> None:
    shown = {name: option.help for name, option in options().items()}
    assert shown["wheels_count"] == "Wheels there are. Default: 4."
    assert shown["wheels_width"] == "In cm; default by the car's weight."
    assert shown["wheels_kind"] == "Season that they are for."
    assert shown["colours"] == "Paint, of which there may be several coats. May be repeated."
    assert shown["fuel"] == "What it burns. Default: petrol."
    assert shown["roof"] == "Cover it."
    assert shown["doors"] == "Doors [bold]of it[/bold]. Default: 0."
    assert shown["name"] == "What it is called [a-z]. Required."
    assert "Doors [bold]of it[/bold]. Default: 0." in call("--help").output
    assert typer.main.get_command(made(build_car)).help == "Build a car."


def test_what_is_not_given_is_not_set() -> None:
    assert car() == Car(name="x")
    assert car().model_fields_set == {"name"}
    assert car("--doors", 0).model_fields_set == {"name", "doors"}
    assert car("--tyres", "summer").wheels.model_fields_set == {"kind"}


def test_what_is_given_is_set() -> None:
    words = ["--colour", "red", "--colour", "grey", "--roof", "--wheels", 3, "--width", "1e1", "--overwrite"]
    assert car(*words) == Car(name="x", colours=("red", "grey"), roof=True, wheels=Wheels(count=3, width=10))
    assert built[-1][1]
    assert car("--key", "me=hall", "--key", "a/b/you").keys == {"me": "hall", "you": "a/b/you"}


def test_the_later_layer_and_the_later_flag_win(tmp_path: Path) -> None:
    file = tmp_path / "car.yaml"
    file.write_text("name: file\ndoors: 1\nroof: true\nwheels: {count: 1, kind: summer}\n")
    assert call(file).exit_code == 0
    assert built[-1][0] == Car(name="file", doors=1, roof=True, wheels=Wheels(count=1, kind="summer"))
    assert car(file, "--doors", 2, "--wheels", 2, "--set", "wheels.count=3") == Car(
        name="x", doors=2, roof=True, wheels=Wheels(count=3, kind="summer")
    )
    for words in (["--winter", "--width", 9], ["--width", 9, "--winter"]):  # the order of the table counts
        assert car(file, *words).wheels == Wheels(count=1, kind="winter", width=9)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    assert_refused(call(), "no name: give --name NAME")
    assert_refused(call("--set", "doors=3"), "no name: give --name NAME")
    assert call("--set", "name=y").exit_code == 0
    assert built[-1][0] == Car(name="y")
    assert_refused(call("--name", "x", "--fuel", "milk"), "fuel", "'petrol' or 'none', not 'milk'")
    assert_refused(call("--name", "x", "--wheels", 0), "wheels.count", "not 0")
    assert_refused(call("--name", "x", "--key", "=hall"), "--key =hall: write it as --key who=hook")
    assert_refused(call("--name", "x", "--key", "me="), "write it as --key who=hook")
    assert_refused(call("--name", "x", "--key", "me=a", "--key", "me=b"), "the name 'me' is given twice")
    paint = [part for colour in ("red", "green", "blue") for part in ("--colour", colour)]
    assert_refused(call("--name", "x", *paint, "--set", "dors=1"), "too much paint")
    assert_refused(call("--name", "x", "--set", "dors=1"), "did you mean 'doors'")
    assert_refused(call(tmp_path / "none.yaml"), "no such configuration file")
    assert call("--doors", "many").exit_code == 2


def test_a_setting_without_a_default_is_required_where_there_is_no_file() -> None:
    def body(settings: Car, emit: Emit) -> None:
        """Build a car."""

    required = typer.main.get_command(made(with_options(Car, *FLAGS)(body)))
    assert [option.name for option in required.params if option.required] == ["name"]
    assert not any(option.required for option in options().values())
    assert required.params[0].metavar == "NAME"
    bare = typer.main.get_command(made(with_options(Car, *FLAGS, assignable=False)(body)))
    assert {option.name for option in required.params} - {option.name for option in bare.params} == {
        "assignments",
        "list_settings",
    }


def test_a_name_without_dashes_is_an_argument() -> None:
    @with_options(Car, Flag("NAME", "name"), Flag("PAINT", "colours"))
    def body(settings: Car, emit: Emit) -> None:
        """Build a car."""
        built.append((settings, False))

    name, colours, *_ = typer.main.get_command(made(body)).params
    assert (name.param_type_name, name.metavar, name.nargs, name.required) == ("argument", "NAME", 1, True)
    assert (colours.param_type_name, colours.metavar, colours.nargs) == ("argument", "PAINT", -1)
    assert "repeated" not in colours.help
    assert CliRunner().invoke(made(body), ["x", "red", "grey"]).exit_code == 0
    assert built[-1][0] == Car(name="x", colours=("red", "grey"))


def test_what_a_command_returns_is_written_in_utf_8() -> None:
    result = CliRunner(charset="latin-1").invoke(made(build_car), ["--name", "x", "--aloud"])
    assert result.stdout_bytes.endswith("x ü\n".encode())


@quick
@given(st.lists(st.text("ab :=-[]", min_size=1).map(str.strip).filter(bool), min_size=1))
def test_values_between_commas(values: list[str]) -> None:
    flag = Flag("--colours", "colours", commas=True)
    assert flag.settings(", ".join(values) + ",", Car) == {"colours": values}
    assert flag.as_parameter(Car, may_be_missing=True).annotation.__origin__ == str | None


def loaded(name: str) -> Any:
    group: Any = typer.main.get_command(app)
    return group.resolve_command(group.make_context("fmlm", [], resilient_parsing=True), [name])[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_is_a_sentence(name: str) -> None:
    for option in loaded(name).params:
        if option.hidden:
            continue
        first = option.help[:1]
        assert first == first.upper(), option.help
        assert option.help.endswith((".", ")")) and not option.help.endswith(".."), option.help
        assert option.help.count("efault:") <= 1, option.help
        values = (option.metavar or "").split("|")
        first_word = option.help.split()[0].rstrip(",.:").lower()
        assert first_word not in values, option.help  # a value would not be written with a capital


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"config"}))
def test_what_is_called_required_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any of it a command refuses to begin, and names a part of it."""
    monkeypatch.chdir(tmp_path)
    required = [
        p.opts[0] if p.opts[0].startswith("-") else p.metavar
        for p in loaded(name).params
        if re.search(r" Required(\.|, unless .* is given\.)$", p.help or "")
    ]
    if not required:  # whatever it finds, it begins
        assert not any("equired" in (p.help or "") for p in loaded(name).params)
        return
    result = CliRunner().invoke(app, [name])
    assert result.exit_code == 2
    parts = [part for name in required for part in name.rstrip(".").split("|")]
    assert any(part in result.output for part in parts), result.output

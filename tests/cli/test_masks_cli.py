"""`fmlm masks` as it is typed: what it shows is what the strategy does."""

import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.masking import get_strategy, plugins, strategy_names
from fmlm_cli.masking.registry import BUILT_IN
from fmlm_cli.objectives.masked_lm import view_of
from tests.cli.refusals import assert_refused

NAMES = [name for name in BUILT_IN if not name.endswith("pmi")]


@pytest.fixture(autouse=True)
def plugins_as_they_were() -> Iterator[None]:
    """Plug-ins register themselves."""
    registered = dict(plugins.registered)
    yield
    plugins.registered.clear()
    plugins.registered.update(registered)


def masks(store: Path, *words: Any, **env: str) -> Result:
    return CliRunner().invoke(app, ["masks", str(store), *map(str, words)], env={"COLUMNS": "200", **env})


def as_json(store: Path, *words: Any) -> dict[str, Any]:
    result = masks(store, "--json", *words)
    assert result.exit_code == 0, result.output
    assert not result.stderr
    return json.loads(result.stdout)  # nothing but the object


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_is_shown(name: str, tiny_store: Path) -> None:
    result = masks(tiny_store, "--masking", name, "--rows", 2)
    assert result.exit_code == 0, result.output
    assert not result.stderr
    assert len(re.findall(r"^row [\d,]+ ", result.stdout, flags=re.MULTILINE)) == 2
    for part in (name, "[MASK]", "tokens in mask", "ever masked", "[1:", "[SEP]"):
        assert part in result.stdout
    assert "\x1b" not in result.stdout


def test_the_masks_shown_are_the_strategys(tiny_store: Path) -> None:
    shown = as_json(tiny_store, "--masking", "fully-explored-word", "--rows", 3, "--seed", 4)
    store = TokenStore.open(tiny_store)
    reader = RowReader(store, "train", packing="documents", sequence_length=128)
    strategy = get_strategy("fully-explored-word")
    for row in shown["rows"]:
        rows = reader.read(np.array([row["number"]]))
        used = rows.segments[0] > 0
        assert row["maskable"] == rows.maskable[0, used].tolist()
        passes = [strategy.masks(view_of(rows), epoch, 4)[0, 0, used] for epoch in range(7)]
        assert row["masks"] == [
            [number for number, mask in enumerate(passes, start=1) if mask[place]]
            for place in range(int(used.sum()))
        ]
        assert row["counts"] == [int(mask.sum()) for mask in passes]
        assert rows.word_starts is not None
        starts = rows.word_starts[0, used].tolist()
        assert [not s and bool(m) for s, m in zip(starts, row["masks"], strict=True)] == row["joined"]
    assert shown["coverage"]["covered"][-1] == 1
    assert shown["passes"] == 7
    assert shown["rate"] == pytest.approx(1 / 7)


def test_plain_text_and_colours_say_the_same(tiny_store: Path) -> None:
    words = ("--masking", "fully-explored-span", "--rows", 1, "--set", "sequence_length=40")
    (row,) = as_json(tiny_store, *words)["rows"]
    plain = masks(tiny_store, *words).stdout
    shown = "".join(plain.split("can be masked\n")[1].split("[SEP]")[0].split("\n"))
    bare = re.sub(r"\[\d+(,\d+)*:|\]", "", shown.replace("[CLS]", ""))
    wanted = "".join(text for text, maskable in zip(row["texts"], row["maskable"], strict=True) if maskable)
    assert bare.split() == wanted.split()
    units = sum(bool(masks) and not joined for masks, joined in zip(row["masks"], row["joined"], strict=True))
    assert len(re.findall(r"\[\d+:", plain.split("tokens in mask")[0])) == units


def test_colours(tiny_store: Path) -> None:
    from rich.console import Console as RichConsole

    from fmlm_cli.cli.pictures.masked_row import show_row
    from fmlm_cli.events import MaskedRow

    row = MaskedRow(
        7,
        [" new", " york", " is"],
        [True] * 3,
        [[1], [1], [2, 3]],
        [False, True, False],
        [" [MASK]"] * 3,
        [2, 1, 1],
    )
    console = RichConsole(
        file=io.StringIO(), record=True, force_terminal=True, color_system="truecolor", width=80
    )
    console.print(show_row(row, colours=True))
    html = console.export_html(inline_styles=True)
    styled = re.findall(r"background-color: (#\w+)[^>]*>([^<]*)<", html)
    assert ("#8dd3c7", "new york") in [(colour, text) for colour, text in styled]
    assert ("#ffffb3", "is") in styled
    assert "\u2082 \u2083" in html  # it is in mask 3 as well


def test_more_masks_than_colours_and_terminals_of_few_are_told_by_number(
    tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, env in (
        (["--set", "masking.segments=13"], {"FORCE_COLOR": "1", "COLORTERM": "truecolor"}),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLORTERM": "truecolor"}),
        ([], {"FORCE_COLOR": "1", "TERM": "xterm-16color", "COLORTERM": ""}),
    ):
        assert "[7:" in masks(tiny_store, *words, **env).stdout
    assert "[7:" not in masks(tiny_store, FORCE_COLOR="1", COLORTERM="truecolor").stdout


def test_coverage_of_random_masks_is_the_binomials(tiny_store: Path) -> None:
    shown = as_json(tiny_store, "--masking", "random", "--set", "masking.rate=0.2", "--epochs", 5)
    for passes, share in enumerate(shown["coverage"]["covered"], start=1):
        assert share == pytest.approx(1 - 0.8**passes, abs=0.01)


@pytest.mark.parametrize(
    ("words", "passes", "counts"),
    [
        (["--masking", "random"], 7, 7),
        (["--masking", "random", "--set", "masking.masks_per_sequence=3"], 1, 3),
        (["--masking", "fully-explored", "--set", "masking.segments=4"], 4, 4),
        (["--masking", "fully-explored", "--set", "masking.scope=batch"], 1, 7),
        (["--masking", "fully-explored", "--set", "masking.scope=batch", "--epochs", 2], 2, 14),
    ],
)
def test_how_many_masks_are_looked_at(tiny_store: Path, words: list[Any], passes: int, counts: int) -> None:
    shown = as_json(tiny_store, *words)
    assert shown["passes"] == passes
    assert {len(row["counts"]) for row in shown["rows"]} == {counts}


def test_half_a_cycle_is_said(tiny_store: Path) -> None:
    assert "takes 7 passes to see every token once" in masks(tiny_store, "--epochs", 5).stdout


def test_a_schedule_is_said(tiny_store: Path) -> None:
    shown = masks(tiny_store, "--set", "masking.schedule={shape: linear, final_rate: 0.33}").stdout
    assert "the rate goes to 33.3% (linear)" in shown
    assert "the rate that training begins with" in shown


def test_settings_reach_it(tiny_store: Path) -> None:
    words = ["split=validation", "sequence_length=24", "packing=none", "sample=5", "masking.corruption.mask=1.0",
             "masking.corruption.random=0", "masking.corruption.keep=0"]  # fmt: skip
    shown = as_json(tiny_store, *(part for word in words for part in ("--set", word)))
    assert shown["coverage"]["rows"] == 5
    assert max(len(row["texts"]) for row in shown["rows"]) <= 24
    for row in shown["rows"]:
        assert [text.strip() == "[MASK]" for text in row["seen"]] == [1 in masks for masks in row["masks"]]


# ---------------------------------------------------------------- plug-ins

PLUG_IN = """
import numpy as np
from fmlm_cli.masking import Strategy

class EveryOther(Strategy):
    def masks(self, view, epoch=0, seed=0):
        turn = (np.arange(view.shape[1]) + np.broadcast_to(epoch, len(view))[:, None]) % 2 == 0
        return (view.maskable & turn)[:, None]

class Broken(Strategy):
    def masks(self, view, epoch=0, seed=0):
        raise ZeroDivisionError("no rows today")

class WrongShape(Strategy):
    def masks(self, view, epoch=0, seed=0):
        return view.maskable
"""


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_masks.py").write_text(PLUG_IN)
    monkeypatch.chdir(tmp_path)
    yield "my_masks"
    sys.modules.pop("my_masks", None)


def test_a_strategy_from_the_working_folder(plug_in: str, tiny_store: Path) -> None:
    shown = as_json(tiny_store, "--masking", f"{plug_in}:EveryOther", "--epochs", 2)
    assert shown["coverage"]["covered"][-1] == 1
    assert shown["coverage"]["stretch"] == 1


def test_plug_ins_that_fail(plug_in: str, tiny_store: Path) -> None:
    assert_refused(
        masks(tiny_store, "--masking", f"{plug_in}:Broken"), "my_masks:Broken", "no rows today", "--debug"
    )
    assert_refused(
        masks(tiny_store, "--masking", f"{plug_in}:WrongShape"), "WrongShape", "[rows, masks, length]"
    )
    assert_refused(masks(tiny_store, "--masking", f"{plug_in}:Nothing"), "Nothing")
    assert_refused(masks(tiny_store, "--masking", "nowhere_at_all:Nothing"), "nowhere_at_all")


def test_debug_shows_the_plug_ins_own_traceback(plug_in: str, tiny_store: Path) -> None:
    result = masks(tiny_store, "--masking", f"{plug_in}:Broken", "--debug")
    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError)
    assert isinstance(result.exception.__cause__, ZeroDivisionError)


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--masking", "fuly-explored"], ["did you mean 'fully-explored'", *strategy_names()]),
        (["--masking", "pmi"], ["collocations", "fmlm tokenize --pmi"]),
        (["--set", "masking.rate=1.5"], ["masking.rate must lie between 0 and 1"]),
        (["--set", "masking.rate=0.4"], ["0.4 is impossible", "0.3333", "segments 3"]),
        (["--set", "masking.rate=0.2", "--set", "masking.segments=7"], ["contradict", "segments 5"]),
        (["--set", "masking.segments=200"], ["200", "126 tokens of a row"]),
        (["--set", "masking.corruption.mask=0.9"], ["mask + random + keep must be 1"]),
        (["--masking", "random", "--set", "masking.scope=batch"], ["masking.scope", "masks_per_sequence"]),
        (["--set", "masking.count=bernoulli"], ["masking.count"]),
        (["--masking", "span", "--set", "masking.options.q=2"], ["'q'", "p, longest"]),
        (["--masking", "span", "--set", "masking.options.p=2"], ["masking.options.p", "2"]),
        (["--masking", "random", "--set", "masking.options.p=0.2"], ["has no options"]),
        (["--set", "masking.schedule={shape: linear, final_rate: 0.005}"], ["200", "126 tokens of a row"]),
        (["--set", "masking.options.rate=0.2"], ["masking.options.rate", "masking.rate"]),
        (["--rows", 0], ["rows"]),
        (["--set", "sequence_length=2"], ["sequence_length 2"]),
        (["--set", "masking.strategee=x"], ["did you mean 'masking.strategy'"]),
    ],
)  # fmt: skip
def test_refusals(tiny_store: Path, words: list[Any], parts: list[str]) -> None:
    assert_refused(masks(tiny_store, *words), *parts)


def test_no_store(tmp_path: Path) -> None:
    assert_refused(masks(tmp_path / "nowhere"), "no such store")
    assert_refused(masks(tmp_path), "not a token store")


def test_a_store_without_validation(tmp_path: Path, make_store: Any) -> None:
    store = make_store(tmp_path / "store", ["the water and the river are long"])
    assert_refused(masks(store, "--set", "split=validation"), "no validation split")

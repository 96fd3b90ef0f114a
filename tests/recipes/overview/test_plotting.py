"""The curves that are drawn are those of the records, under names that tell the runs apart."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmlm_cli.analysis.report.figures.runs import RunCurves
from fmlm_cli.analysis.results.comparison import NextStep
from fmlm_cli.analysis.results.finetuning import CheckpointComparison
from fmlm_cli.config import PlotSettings
from fmlm_cli.errors import UserError
from fmlm_cli.events import Chart, Event
from fmlm_cli.recipes.overview.differences import labels_of
from fmlm_cli.recipes.overview.outcomes import TUNING
from fmlm_cli.recipes.overview.plotting import plot_runs
from fmlm_cli.recipes.overview.reading import read_settings
from fmlm_cli.storage import RunDirectory
from tests.analysis.report.comparison import ARMS
from tests.analysis.report.races import MADE
from tests.recipes.overview.made_results import made_tuning, write_results
from tests.recipes.overview.made_runs import make_run, records


def plotted(*runs: Path, **more: Any) -> tuple[list[RunCurves], list[Event]]:
    told: list[Event] = []
    return plot_runs(PlotSettings(runs=tuple(map(str, runs)), **more), told.append), told


@pytest.mark.parametrize(("x", "a_step"), [("steps", 1.0), ("tokens", 1000.0), ("hours", 0.01)])
def test_losses_stand_where_they_were_measured(tmp_path: Path, x: str, a_step: float) -> None:
    [curves], charts = plotted(make_run(tmp_path / "a", records(40)), x=x)
    assert curves.x == pytest.approx(a_step * np.arange(1, 41))
    assert curves.x_held_out == pytest.approx(a_step * np.arange(0, 41, 10))
    assert curves.training == pytest.approx([r["loss"] for r in records(40) if "loss" in r])
    assert curves.held_out == pytest.approx([r["eval_loss"] for r in records(40) if "eval_loss" in r])
    assert [chart.title.split(" loss")[0] for chart in charts if isinstance(chart, Chart)] == [
        "training",
        "held-out",
    ]


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    written = records(30)
    written[3] |= {"loss": float("nan")}
    [curves], _ = plotted(make_run(tmp_path / "a", written))
    assert len(curves.x) == 29 and np.isfinite(curves.smooth).all()


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "PNG"])
@pytest.mark.parametrize("width", [400, 1400])
def test_pictures_by_their_ending(tmp_path: Path, ending: str, width: int) -> None:
    runs = [make_run(tmp_path / name, records(40, level=n)) for n, name in enumerate("ab", start=2)]
    out = tmp_path / f"curves.{ending}"
    plotted(*runs, out=str(out), width=width)
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending.lower()]
    content = out.read_bytes()
    assert content.startswith(begins)
    if ending.lower() == "png":
        assert abs(int.from_bytes(content[16:20], "big") - width) <= 1
    plotted(*runs, out=str(out), width=width)
    assert out.read_bytes() == content  # the same picture has the same bytes
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_legend_has_what_differs(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", records(20), **{"masking.strategy": "random", "seed": 1})
    b = make_run(tmp_path / "b", records(20), **{"masking.strategy": "span", "seed": 1})
    out = tmp_path / "curves.svg"
    curves, _ = plotted(a, b, out=str(out))
    assert [run.label for run in curves] == ["random", "span"]
    texts = [
        "".join(element.itertext())
        for element in ET.parse(out).getroot().iter("{http://www.w3.org/2000/svg}text")
    ]
    assert [text for text in texts if text.startswith(("random:", "span:"))] == [
        f"{run.label}: {run.held_out[-1]:.3f}" for run in curves
    ]


def test_labels_are_told_apart(tmp_path: Path) -> None:
    settings = [{"seed": 1}, {"seed": 1}, {"seed": 2, "optimizer.learning_rate": 1e-3}]
    runs = [make_run(tmp_path / f"r{n}", None, **changed) for n, changed in enumerate(settings)]
    read = [read_settings(RunDirectory(run)) for run in runs]
    assert labels_of(list(map(str, runs)), read) == [
        "r0: seed 1, learning_rate -",
        "r1: seed 1, learning_rate -",
        "seed 2, learning_rate 0.001",
    ]
    assert labels_of(list(map(str, runs[:2])), read[:2]) == ["r0", "r1"]
    assert labels_of([str(runs[0])], read[:1]) == ["r0"]
    assert labels_of(["x/run", "y/run"], read[:2]) == ["x/run", "y/run"]


def test_a_folder_stands_for_the_runs_in_it(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path / "runs" / str(seed), records(10), seed=seed)
    curves, _ = plotted(tmp_path / "runs", tmp_path / "runs" / "1")
    assert [run.label for run in curves] == ["seed 0", "seed 1", "seed 2"]


def test_a_comparison_is_drawn_by_arms(tmp_path: Path) -> None:
    races = write_results(tmp_path / "races", "comparison", MADE)
    make_run(races / "race" / "random" / "seed-0", records(5))
    race = MADE.race
    assert race is not None
    for x in ("steps", "tokens"):
        curves, told = plotted(races, x=x)
        [chart] = [event for event in told if isinstance(event, Chart)]
        assert curves == [] and chart.title == "races: held-out loss (nats), mean over 3 seeds"
        assert [line.name for line in chart.lines] == list(ARMS.values())
        for line, runs in zip(chart.lines, race.curves.values(), strict=True):
            assert line.y == pytest.approx(np.mean([run.losses for run in runs.values()], axis=0))
            assert line.x == pytest.approx(list(getattr(runs[0], x)))
    out = tmp_path / "arms.svg"
    plotted(races, out=str(out))
    assert "fully-explored-span" in out.read_text() and "tokens forwarded" not in out.read_text()
    with pytest.raises(UserError, match="--x hours: a comparison keeps steps and tokens alone"):
        plotted(races, x="hours")
    make_run(tmp_path / "run", records(5))
    with pytest.raises(UserError, match="take a picture each"):
        plotted(races, tmp_path / "run", out=str(out))
    assert len([event for event in plotted(tmp_path)[1] if isinstance(event, Chart)]) == 3
    (races / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results\.json: damaged"):
        plotted(races)
    (races / "results.json").unlink()  # not finished: then its runs
    assert len(plotted(races)[0]) == 1


def test_a_fine_tuning_is_drawn_by_epochs(tmp_path: Path) -> None:
    own = [made_tuning("b", [0.5, 0.7]), made_tuning("c", [0.6, None])]
    step = NextStep("use it", "fmlm predict --from x y")
    results = CheckpointComparison("0", {"seeds": 2}, "b", {}, ("c minus b: worse",), step, tuple(own))
    _, told = plotted(write_results(tmp_path / "tuned", TUNING, results))
    [chart] = [event for event in told if isinstance(event, Chart)]
    assert (chart.title, chart.x_label) == ("tuned: development score (%), mean over 2 seeds", "epoch")
    assert [line.name for line in chart.lines] == ["rivers b", "rivers c"]
    assert [(line.x, [round(y) for y in line.y]) for line in chart.lines] == [
        ([1, 2], [50, 60]),
        ([1, 2], [50, 60]),
    ]
    nothing = replace(results, checkpoints=(made_tuning("b", [None, None]),))
    with pytest.raises(UserError, match="no run of fmlm's"):
        plotted(write_results(tmp_path / "diverged", TUNING, nothing))


@pytest.mark.parametrize("width", [400, 1400])
def test_panels_fit_whatever_their_number(tmp_path: Path, width: int) -> None:
    races = [write_results(tmp_path / f"races-{n}", "comparison", MADE) for n in range(2)]
    out = tmp_path / "arms.png"
    plotted(*races, out=str(out), width=width)
    assert abs(int.from_bytes(out.read_bytes()[16:20], "big") - width) <= 1


def test_refusals(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", records(10))
    with pytest.raises(UserError, match=r"curves\.jpg: give a name that ends in \.png, \.svg, \.pdf"):
        plotted(run, out=str(tmp_path / "curves.jpg"))
    with pytest.raises(UserError, match="no run of fmlm's"):
        plotted(make_run(tmp_path / "t", None, kind="fine-tuning"))
    with pytest.raises(UserError, match="no records yet"):
        plotted(make_run(tmp_path / "empty", None))
    with pytest.raises(UserError, match="unknown held-out text 'domian': did you mean 'domain'"):
        plotted(run, evaluation="domian")
    with pytest.raises(UserError, match="no such folder"):
        plotted(tmp_path / "nowhere")
    (run / "metrics.jsonl").write_text("{\n{}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:1"):
        plotted(run)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", 10**400),
        ("loss", []),
        ("loss", 10**400),
        ("tokens", "many"),
        ("tokens", -1),
        ("seconds", float("nan")),
        ("eval_loss", {}),
        ("evaluation", {}),
    ],
)
def test_a_record_with_what_is_no_number_is_damaged(tmp_path: Path, field: str, value: Any) -> None:
    written = records(10)
    place = next(number for number, record in enumerate(written) if "eval_loss" in record)
    written[place if field.startswith("eval") else place + 1] |= {field: value}
    with pytest.raises(UserError, match="no record of a step; the file is damaged"):
        plotted(make_run(tmp_path / "a", written), x="tokens")


def test_what_a_record_lacks_is_told(tmp_path: Path) -> None:
    written = records(10)
    del next(record for record in written if record["step"] == 3)["seconds"]
    run = make_run(tmp_path / "a", written)
    with pytest.raises(UserError, match="--x hours: the record of step 3 has no seconds"):
        plotted(run, x="hours")
    assert len(plotted(run)[0]) == 1


@pytest.mark.parametrize(
    "damage",
    [
        ('"losses": [', '"losses": [1.0, '),
        ('"losses": [', '"losses": [NaN, '),
        ('"steps": [', f'"steps": [{10**400}, '),
        ('"losses": [', '"losses": [1e300, 1e308, '),
        ('"random": {', '"randon": {'),
    ],
)
def test_results_of_which_no_curves_can_be_made_are_damaged(tmp_path: Path, damage: tuple[str, str]) -> None:
    races = write_results(tmp_path / "races", "comparison", MADE)
    text = " ".join((races / "results.json").read_text().split())
    (races / "results.json").write_text(text.replace(*damage))
    with pytest.raises(UserError, match=r"results\.json: damaged"):
        plotted(races)


@pytest.mark.parametrize(
    "history", [[{"epoch": 1}], [{"epoch": 1, "score": None}], [{"epoch": 1, "score": []}]]
)
def test_scores_of_which_no_curves_can_be_made_are_damaged(tmp_path: Path, history: Any) -> None:
    made = made_tuning("b", [0.5, 0.7])
    made = replace(made, cells=[replace(cell, history=history) for cell in made.cells])
    own = CheckpointComparison("0", {"seeds": 2}, "b", {}, (), NextStep("a", "b"), (made,))
    with pytest.raises(UserError, match=r"results\.json: damaged"):
        plotted(write_results(tmp_path / "tuned", TUNING, own))

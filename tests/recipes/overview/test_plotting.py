"""The curves that are drawn are those of the records, under names that tell the runs apart."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmlm_cli.analysis.report.figures.runs import RunCurves
from fmlm_cli.config import PlotSettings
from fmlm_cli.errors import UserError
from fmlm_cli.events import Chart, Event
from fmlm_cli.recipes.overview.differences import labels_of
from fmlm_cli.recipes.overview.plotting import plot_runs
from fmlm_cli.recipes.overview.reading import read_settings
from fmlm_cli.storage import RunDirectory
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

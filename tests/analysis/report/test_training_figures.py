"""The smoothed training curve: a mean inside, a fitted line at the ends, and no jump at the last point."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from fmlm_cli.analysis.report.figures.training import draw_loss_curve
from fmlm_cli.analysis.smoothing import smoothed


def records(losses: np.ndarray) -> list[dict[str, float]]:
    return [{"step": step, "loss": float(loss)} for step, loss in enumerate(losses, start=1)]


@pytest.mark.parametrize("n", [9, 10, 100, 1000])
def test_a_straight_line_stays_one_to_its_last_point(n: int) -> None:
    line = np.linspace(7, 3, n)
    assert smoothed(line) == pytest.approx(line)


@pytest.mark.parametrize("n", [30, 300, 3000])
def test_the_ends_are_smooth_too(n: int) -> None:
    """Of pure noise the curve keeps less at its ends than two thirds; a window of one point keeps all."""
    noise = np.random.default_rng(0).normal(0, 1, (200, n))
    left = np.stack([smoothed(row) for row in noise]).std(axis=0)
    assert left[[0, -1]].max() < 0.75
    assert left.max() < 0.75


def test_inside_it_is_the_mean_around_each_point() -> None:
    losses = np.random.default_rng(1).normal(4, 1, 1000)
    curve = smoothed(losses)
    for place in (10, 500, 989):
        assert curve[place] == pytest.approx(losses[place - 10 : place + 11].mean())


@pytest.mark.parametrize("n", [1, 2, 8, 60])
def test_the_figure_draws_this_curve(n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    plot = Axes.plot

    def kept(axes: Axes, x: np.ndarray, y: np.ndarray, **style: object) -> object:
        drawn.append(np.asarray(y))
        return plot(axes, x, y, **style)

    monkeypatch.setattr(Axes, "plot", kept)
    losses = np.random.default_rng(2).normal(4, 1, n)
    assert draw_loss_curve(records(losses), tmp_path).is_file()
    assert drawn[1] == pytest.approx(smoothed(losses))
    assert len(drawn[1]) == n

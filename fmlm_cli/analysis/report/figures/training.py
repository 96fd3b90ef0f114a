"""The figures of a run and of fine-tuning, in the style of the comparison's."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fmlm_cli.analysis.report.figures.drawing import SERIES, SOFT, Drawing, colour, panels, write_figure
from fmlm_cli.analysis.smoothing import smoothed
from fmlm_cli.engine.records import evaluations_of

_BASELINE, _BLUE, _ORANGE = SERIES[:3]


def draw_loss_curve(records: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Draw training and held-out loss against steps as `loss.png` and `loss.svg`; the PNG's path.

    `records`: as in metrics.jsonl.
    """
    return _write(functools.partial(_loss_curve, records), "loss", folder)


def draw_scores(scores: Mapping[str, Mapping[int, float | None]], folder: Path) -> Path:
    """Draw each task's development score by seed and the median: `scores.png`, `scores.svg`; the PNG's path.

    `scores`: by task and seed, in [0, 1] as a rule; None where training diverged.
    """
    return _write(functools.partial(_scores, scores), "scores", folder)


def _write(draw: Drawing, name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (_, png), _ = write_figure(draw, name, folder)
    return png


def _loss_curve(records: Sequence[Mapping[str, Any]], width: float) -> Figure:
    figure, [[axes]] = panels(width, 4.2, 1, 1)
    training = [(record["step"], record["loss"]) for record in records if "loss" in record]
    held_out = evaluations_of(records)
    if training:
        steps, losses = np.array(training).T
        axes.plot(steps, losses, color=_BLUE, linewidth=0.6, alpha=0.3)
        axes.plot(steps, smoothed(losses), color=_BLUE, linewidth=1.4, label="training (smoothed)")
    for place, (name, evaluations) in enumerate(held_out.items(), start=2):
        axes.plot(
            [record["step"] for record in evaluations],
            [record["eval_loss"] for record in evaluations],
            color=colour(place),
            marker="o",
            markersize=4,
            linewidth=1.4,
            label=f"held out{f', {name}' if name else ''}: {evaluations[-1]['eval_loss']:.3f}",
        )
        unigram = evaluations[-1]["unigram_loss"]
        axes.axhline(
            unigram,
            color=colour(place) if len(held_out) > 1 else _BASELINE,
            linestyle="--",
            linewidth=1,
            label=f"word frequencies alone: {unigram:.3f}",
        )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("masked-LM loss (nats)")
    axes.grid()
    if training or held_out:
        axes.legend()
    return figure


def _scores(scores: Mapping[str, Mapping[int, float | None]], width: float) -> Figure:
    figure, [[axes]] = panels(width, 0.9 + 0.5 * len(scores), 1, 1)
    for place, by_seed in enumerate(scores.values()):
        values = [(seed, 100 * value) for seed, value in by_seed.items() if value is not None]
        if not values:
            continue
        seeds, points = zip(*values, strict=True)
        spread = np.linspace(-0.22, 0.22, len(seeds)) if len(seeds) > 1 else np.zeros(1)
        axes.scatter(points, place + spread, s=22, color=_BLUE, zorder=3)
        for seed, x, y in zip(seeds, points, place + spread, strict=True):
            axes.annotate(str(seed), (x, y), (4, -3), textcoords="offset points", fontsize=6, color=SOFT)
        axes.plot([np.median(points)] * 2, [place - 0.36, place + 0.36], color=_ORANGE, linewidth=1.6)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.5, -0.5)  # the first task on top, one that has no score too
    axes.set_xlabel("development score (%), a dot for each seed; the line is the median")
    axes.grid(axis="x")
    return figure

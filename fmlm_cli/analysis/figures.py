"""Figures, drawn without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fmlm_cli.engine.metrics import evaluations_of

_TRAIN, _UNIGRAM = "#9db8d2", "#57534e"
_EVAL = ("#c2410c", "#0f766e", "#7e22ce", "#a16207")


def draw_loss_curve(records: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Draw training and held-out loss against steps as `loss.png` and `loss.svg`; the PNG's path.

    `records`: as in metrics.jsonl.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    training = [(record["step"], record["loss"]) for record in records if "loss" in record]
    held_out = evaluations_of(records)
    if training:
        steps, losses = np.array(training).T
        axes.plot(steps, losses, color=_TRAIN, linewidth=0.6, alpha=0.6)
        axes.plot(steps, smooth(losses), color="#1d4e89", linewidth=1.4, label="training (smoothed)")
    for number, (name, own) in enumerate(held_out.items()):
        colour = _EVAL[number % len(_EVAL)]
        axes.plot(
            [record["step"] for record in own],
            [record["eval_loss"] for record in own],
            color=colour,
            marker="o",
            markersize=4,
            linewidth=1.4,
            label=f"held out{f', {name}' if name else ''}: {own[-1]['eval_loss']:.3f}",
        )
        unigram = own[-1]["unigram_loss"]
        axes.axhline(
            unigram,
            color=colour if len(held_out) > 1 else _UNIGRAM,
            linestyle="--",
            linewidth=1,
            label=f"word frequencies alone: {unigram:.3f}",
        )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("masked-LM loss (nats)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if training or held_out:
        axes.legend(frameon=False)
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"loss.{suffix}", dpi=160)
    return folder / "loss.png"


def smooth(values: np.ndarray, share: float = 0.02) -> np.ndarray:
    """Centred moving average over `share` of the curve, narrower at its ends. values: float[n]."""
    half = max(1, round(len(values) * share / 2))
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    begin, end = np.maximum(place - half, 0), np.minimum(place + half + 1, len(values))
    return np.asarray((total[end] - total[begin]) / (end - begin))


def draw_scores(scores: Mapping[str, Mapping[int, float | None]], folder: Path) -> Path:
    """Draw every task's development score by seed, with the median, as `scores.png` and `scores.svg`; the PNG's path.

    `scores`: by task and seed, in [0, 1] as a rule; None where training diverged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(7, 0.9 + 0.5 * len(scores)), layout="constrained")
    axes = figure.add_subplot()
    for place, own in enumerate(scores.values()):
        values = [(seed, 100 * value) for seed, value in own.items() if value is not None]
        if not values:
            continue
        seeds, points = zip(*values, strict=True)
        spread = np.linspace(-0.22, 0.22, len(seeds)) if len(seeds) > 1 else np.zeros(1)
        axes.scatter(points, place + spread, s=22, color="#1d4e89", zorder=3)
        for seed, x, y in zip(seeds, points, place + spread, strict=True):
            axes.annotate(str(seed), (x, y), (4, -3), textcoords="offset points", fontsize=6, color=_UNIGRAM)
        axes.plot([np.median(points)] * 2, [place - 0.36, place + 0.36], color=_EVAL[0], linewidth=1.6)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.invert_yaxis()
    axes.set_xlabel("development score (%), a dot for each seed; the line is the median")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"scores.{suffix}", dpi=160)
    return folder / "scores.png"

"""What a comparison or a fine-tuning found over time, as curves: means over seeds."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fmlm_cli.analysis.report.figures.runs import MeanCurve, Panel
from fmlm_cli.analysis.results.comparison import ComparisonResults, CurveResult
from fmlm_cli.analysis.results.finetuning import CellResult, CheckpointComparison, FinetuneResults
from fmlm_cli.errors import UserError
from fmlm_cli.events import counted
from fmlm_cli.recipes.overview.differences import printable
from fmlm_cli.recipes.overview.outcomes import checkpoints_of

_OF_LOSS, _OF_SCORE = 3, 1  # decimals


def arms_panel(folder: Path, results: ComparisonResults, x: str, x_label: str) -> Panel | None:
    """Held-out loss of the arms; None where no run ended. `x`: steps or tokens, as of all of them is kept."""
    if x not in ("steps", "tokens"):
        raise UserError(f"--x {x}: a comparison keeps steps and tokens alone: give --x steps or tokens")
    race = results.race
    curves = [
        _mean_of_runs(arm.label, list(race.curves[arm.name].values()), x)
        for arm in (results.arms if race is not None else ())
        if race is not None and race.curves[arm.name]
    ]
    title = f"{_called(folder)}: held-out loss (nats), mean over {counted(len(results.seeds), 'seed')}"
    return Panel(title, x_label, _OF_LOSS, curves) if curves else None


def _mean_of_runs(label: str, runs: Sequence[CurveResult], x: str) -> MeanCurve:
    """Runs of an arm are evaluated at the same steps."""
    at, losses = (np.array([getattr(run, field) for run in runs], np.float64) for field in (x, "losses"))
    return MeanCurve(printable(label), *_means(at, losses))


def scores_panel(folder: Path, results: FinetuneResults | CheckpointComparison) -> Panel | None:
    """Development scores in % by epoch, of each task and checkpoint at its best point; None without any."""
    curves = list(_mean_scores(results))
    seeds = counted(int(results.settings.get("seeds", 0)), "seed")
    title = f"{_called(folder)}: development score (%), mean over {seeds}"
    return Panel(title, "epoch", _OF_SCORE, curves) if curves else None


def _mean_scores(results: FinetuneResults | CheckpointComparison) -> Iterator[MeanCurve]:
    several = isinstance(results, CheckpointComparison)
    for own in checkpoints_of(results):
        for name, task in own.tasks.items():
            cells = [cell for cell in own.cells if (cell.task, cell.point) == (name, task.point)]
            curve = _mean_of_cells([cell for cell in cells if cell.failed is None and cell.history])
            if curve is not None:
                yield MeanCurve(printable(f"{name} {own.name}" if several else name), *curve)


def _mean_of_cells(cells: Sequence[CellResult]) -> tuple[np.ndarray, np.ndarray] | None:
    """Over the epochs that all of them made, for one may have stopped early."""
    if not cells:
        return None
    shortest = min(len(cell.history) for cell in cells)
    epochs, scores = (
        np.array([[float(record[field]) for record in cell.history[:shortest]] for cell in cells])
        for field in ("epoch", "score")
    )
    return _means(epochs, 100 * scores)


def _means(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Over the first axis. ValueError for what single precision cannot hold, which none of them is."""
    if x.shape != y.shape or not (np.abs([x, y]) <= np.finfo(np.float32).max).all():
        raise ValueError("no curves")
    return x.mean(axis=0), y.mean(axis=0)


def _called(folder: Path) -> str:
    return printable(folder.resolve().name)

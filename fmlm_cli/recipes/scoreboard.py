"""The scores of a grid as they come in, and how long the rest will take."""

import time

from fmlm_cli.events import Emit, Event, Scoreboard, Trained
from fmlm_cli.recipes.cells import CellResult, read_result
from fmlm_cli.recipes.finetune_plan import Plan
from fmlm_cli.recipes.grid import NO_GRID, Cell


class Board:
    """Tells of the scores as they come in, and how long the rest will take."""

    def __init__(self, plan: Plan, emit: Emit) -> None:
        self.plan, self.emit = plan, emit
        self.seeds = sorted({cell.seed for cell in plan.cells})
        self.texts: dict[tuple[str, int], str] = {}
        self.cost = {cell: self._cost(cell) for cell in plan.cells}
        self.left = sum(self.cost.values())
        self.worked = self.share = 0.0
        self.looked = False
        self.finished: set[Cell] = set()
        for cell in plan.cells:
            result = read_result(plan.folder(cell))
            if result is not None:
                self._take(cell, result)
        self.begun, self.cell = time.monotonic(), plan.cells[0]

    def _take(self, cell: Cell, result: CellResult) -> None:
        self.texts[self._row(cell), cell.seed] = _score_text(result)
        self.left -= self.cost[cell]
        self.finished.add(cell)

    def _cost(self, cell: Cell) -> float:
        """Characters that a cell trains on: near enough to be in proportion to its time."""
        train, chosen = self.plan.data[cell.task].train, cell.point.training
        texts = [train.first, train.second or ()]
        characters = sum(len(text) for part in texts for text in part)
        batches = -(-len(train) // chosen.batch_size)
        return float(max(chosen.epochs, -(-chosen.min_steps // batches)) * max(characters, 1))

    def _row(self, cell: Cell) -> str:
        return cell.task if cell.point.name == NO_GRID else f"{cell.task} {cell.point.name}"

    @property
    def unfinished(self) -> int:
        """How many cells are left to do."""
        return len(self.plan.cells) - len(self.finished)

    def begin(self, cell: Cell) -> None:
        """A cell is at work."""
        self.cell, self.share = cell, 0.0

    def step(self, event: Event) -> None:
        """A training record of the cell at work."""
        assert isinstance(event, Trained)
        step = int(event.record["step"])
        self.share = step / event.total_steps
        text = f"{self._row(self.cell)} seed {self.cell.seed}: step {step:,}/{event.total_steps:,}, loss {event.record['loss']:.3f}"
        self._tell(text, running=True)

    def end(self, cell: Cell, result: CellResult) -> None:
        """A cell is finished."""
        self._take(cell, result)
        self.worked += self.cost[cell]
        self.share = 0.0
        found = result.dev[next(iter(result.dev))] if result.dev else {}
        measures = ", ".join(
            f"{name.replace('_', '-')} {value:.1%}" for name, value in found.items() if name != "score"
        )
        what = (
            f"{measures}, epoch {result.epoch} of {result.epochs}"
            if measures
            else f"diverged: {result.failed}"
        )
        self._tell(f"{self._row(cell)} seed {cell.seed}: {what}", running=False)

    def look(self) -> None:
        """Tell of what other processes have finished since the last look, and that they are at work."""
        if not self.looked:
            self.looked = True
            self._tell("processes at work, which tell of their steps in the folder logs", running=False)
        for cell in self.plan.cells:
            if cell not in self.finished:
                result = read_result(self.plan.folder(cell))
                if result is not None:
                    self.end(cell, result)

    def _seconds_left(self) -> float | None:
        now = self.cost[self.cell] * self.share
        worked = self.worked + now
        return (self.left - now) * (time.monotonic() - self.begun) / worked if worked else None

    def _tell(self, latest: str, *, running: bool) -> None:
        rows: dict[str, list[str]] = {}
        for cell in self.plan.cells:
            row = self._row(cell)
            rows[row] = [self.texts.get((row, seed), "") for seed in self.seeds]
        self.emit(
            Scoreboard(
                "development scores",
                [f"seed {seed}" for seed in self.seeds],
                rows,
                latest,
                running,
                len(self.finished),
                len(self.plan.cells),
                self._seconds_left(),
            )
        )


def _score_text(result: CellResult) -> str:
    return "diverged" if result.score is None else f"{100 * result.score:.1f}"

"""The cells of a grid as pieces of work: their scores, and what they cost."""

from fmlm_cli.events import Emit
from fmlm_cli.recipes.finetuning.cells import CellResult, read_result
from fmlm_cli.recipes.finetuning.grid import NO_GRID, Cell
from fmlm_cli.recipes.finetuning.plan import Plan
from fmlm_cli.recipes.jobs.board import Outcome, Piece, WorkBoard


def board_of(plan: Plan, emit: Emit, jobs: int = 1) -> WorkBoard:
    """The board that tells of a plan's cells, which `jobs` processes share."""
    return WorkBoard("development scores", [_piece(plan, cell) for cell in plan.cells], emit, jobs)


def _piece(plan: Plan, cell: Cell) -> Piece:
    row = cell.task if cell.point.name == NO_GRID else f"{cell.task} {cell.point.name}"

    def read() -> Outcome | None:
        result = read_result(plan.folder(cell))
        return None if result is None else _outcome(result, plan.data[cell.task].decides)

    return Piece(cell.folder, f"{row} seed {cell.seed}", row, cell.seed, read, cost=_cost(plan, cell))


def _cost(plan: Plan, cell: Cell) -> float:
    """Characters that a cell trains on: near enough to be in proportion to its time."""
    train, chosen = plan.data[cell.task].train, cell.point.training
    texts = [train.first, train.second or ()]
    characters = sum(len(text) for part in texts for text in part)
    batches = -(-len(train) // chosen.batch_size)
    return float(max(chosen.epochs, -(-chosen.min_steps // batches)) * max(characters, 1))


def _outcome(result: CellResult, decides: str) -> Outcome:
    text = "diverged" if result.score is None else f"{100 * result.score:.1f}"
    found = result.dev.get(decides, {})
    measures = [f"{name.replace('_', '-')} {value:.1%}" for name, value in found.items() if name != "score"]
    words = (
        [*measures, f"epoch {result.epoch} of {result.epochs}"] if found else [f"diverged: {result.failed}"]
    )
    return Outcome(text, ", ".join(words), max(result.seconds, result.train_seconds))

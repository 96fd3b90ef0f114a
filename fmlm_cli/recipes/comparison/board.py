"""The items of a comparison as pieces of work: held-out losses as runs finish, and what other items come to."""

from collections.abc import Mapping
from typing import Any

from fmlm_cli.events import Caution, Emit, Event, Progress, Scoreboard, counted
from fmlm_cli.recipes.comparison.plan import Item, Plan
from fmlm_cli.recipes.jobs.board import Outcome, Piece, WorkBoard

_KNOWN = "the budget makes"  # a run's caution about its passes: said of all arms when the comparison began


class Board(WorkBoard):
    """Tells of the items of a plan, which `jobs` processes share."""

    def __init__(self, plan: Plan, emit: Emit, jobs: int = 1) -> None:
        self._labels = {item.name: _label(item) for item in plan.items}
        self._cautions: set[str] = set()
        super().__init__("held-out loss at the end", [_piece(plan, item) for item in plan.items], emit, jobs)

    def hear(self, event: Event) -> None:
        """What the item at work says: how far it has come is shown, cautions are passed on once."""
        assert self.at_work is not None
        if isinstance(event, Caution):
            if event.text not in self._cautions and not event.text.startswith(_KNOWN):
                self._cautions.add(event.text)
                self.emit(Caution(f"{self._labels[self.at_work.name]}: {event.text}"))
        elif isinstance(event, Progress):
            self.advance(event.done / event.total, f"{event.done:,.0f}/{event.total:,.0f} {event.unit}")
        elif isinstance(event, Scoreboard):
            self.advance(self.share, event.latest)
        else:
            super().hear(event)


def _piece(plan: Plan, item: Item) -> Piece:
    def read() -> Outcome | None:
        result = plan.result(item)
        return None if result is None else _outcome(item, result)

    row = _label(item) if item.kind in ("race", "sweep") else ""
    kind = {"sweep": "race", "downstream": f"downstream {item.what}"}.get(item.kind, item.kind)
    return Piece(item.name, _title(item), row, item.seed, read, kind)


def _label(item: Item) -> str:
    return f"sweep {item.arm.name}" if item.kind == "sweep" else item.arm.label


def _title(item: Item) -> str:
    if item.kind == "coverage":
        return f"coverage of {item.arm.label}"
    if item.kind == "variance":
        return f"gradient variance, {item.what}, {item.corruption}"
    task = f"{item.what} from " if item.kind == "downstream" else ""
    return f"{task}{_label(item)} seed {item.seed}"


def _outcome(item: Item, result: Mapping[str, Any]) -> Outcome:
    text = ""
    if item.kind == "coverage":
        words = f"{result['never_masked']:.1%} of the tokens never masked in {counted(result['epochs'], 'pass', 'passes')}"
    elif item.kind == "variance":
        words = f"{result['sequences']} rows measured"
    elif item.kind == "downstream":
        words = "diverged" if result["score"] is None else f"score {result['score']:.1%}"
    else:
        text = "diverged" if result["loss"] is None else f"{result['loss']:.4f}"
        words = f"held-out loss {text}"
    return Outcome(text, words, float(result["seconds"]))

"""The line that moves: how much of what is told fits beside a bar."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_GAP = "  "
_NEGLIGIBLE_WAIT = 0.01  # share of the training time
_SHORT_BAR, _LONG_BAR = 8, 16
_ROOMY = 110  # columns, from which on the bar is long
_TIME_LEFT = len(" 0:00:00 left")


@dataclass(frozen=True)
class Figure:
    """A text in a line. `rank`: the higher, the sooner it is left out where there is no room."""

    text: str
    rank: int


def bar_width(columns: int) -> int:
    """The bar's, in a console of so many columns."""
    return _LONG_BAR if columns >= _ROOMY else _SHORT_BAR


def room_beside(task: str, count: str, columns: int) -> int:
    """Columns that a name, a bar, a count and the time left leave of a line."""
    return columns - len(task) - bar_width(columns) - len(count) - _TIME_LEFT - len("   ")


def fitted(figures: Sequence[Figure], room: int | None = None) -> str:
    """As many figures as there is room for, in their order; the first in rank in any case."""
    kept = list(figures)
    while room is not None and len(kept) > 1 and len(_GAP.join(f.text for f in kept)) > room:
        kept.remove(max(kept, key=lambda figure: figure.rank))
    return _GAP.join(figure.text for figure in kept)


def training_figures(record: Mapping[str, float]) -> list[Figure]:
    """What is told of a training step."""
    waiting = record["data_wait_share"]
    wait = [Figure(f"data wait {waiting:.0%}", 2)] if waiting > _NEGLIGIBLE_WAIT else []
    return [
        Figure(f"loss {record['loss']:.3f}", 0),
        Figure(f"lr {record['learning_rate']:.1e}", 3),
        Figure(f"grad {record['grad_norm']:.2f}", 4),
        Figure(f"{record['tokens_per_second']:,.0f} tokens/s", 1),
        Figure(f"{record['peak_share']:.0%} of peak", 6),
        *wait,
        Figure(f"{record['memory_gib']:.1f} GiB", 5),
    ]

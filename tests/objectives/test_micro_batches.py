"""How a step is cut into micro-batches."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.objectives.micro_batches import cut_by_widest

_needed = st.lists(st.integers(1, 16), max_size=60).map(
    lambda widths: sorted((8 * w for w in widths), reverse=True)
)


def cut_by_hand(needed: list[int], room: int, cost: int) -> list[tuple[int, int, int]]:
    """Begin, end and width: row by row, a new part where one does not fit or makes the padding too much."""
    parts: list[tuple[int, int, int]] = []
    begin = padding = 0
    for number, width in enumerate(needed):
        widest = needed[begin]
        if (number + 1 - begin) * widest > room or padding + widest - width > cost:
            parts.append((begin, number, widest))
            begin, padding = number, 0
        padding += needed[begin] - width
    return [*parts, (begin, len(needed), needed[begin])] if needed else []


@given(_needed, st.integers(1, 40), st.integers(0, 600))
def test_rows_of_like_length_share_a_micro_batch(needed: list[int], micro: int, cost: int) -> None:
    cuts = list(cut_by_widest(np.array(needed, np.int64), 128, micro, cost))
    assert [(cut.part.start, cut.part.stop, cut.width) for cut in cuts] == cut_by_hand(
        needed, micro * 128, cost
    )


@given(_needed, st.integers(1, 40), st.integers(0, 600))
def test_padding_costs_less_than_the_micro_batches_that_would_save_it(
    needed: list[int], micro: int, cost: int
) -> None:
    for cut in cut_by_widest(np.array(needed, np.int64), 128, micro, cost):
        rows = needed[cut.part]
        assert sum(cut.width - width for width in rows) <= cost
        assert len(rows) * cut.width <= micro * 128

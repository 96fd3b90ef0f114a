"""Pairs of masks at a controlled Hamming distance, to measure how alike the gradients of two masks are.

A pair is two windows of one circle (see `exploration`), each n / K tokens long, the second shifted against
the first by a share d of its length. At d = 0 they are the same window, at d = 1 neighbours: two segments of
a full exploration. Shifts are quarters of a window: the circle is cut into 4 K fine windows, and each mask is
four in a row.

    first mask      0 1 2 3
    second mask         2 3 4 5        d = 1/2: fine windows 2 and 3 are in both

With units of one token, whatever d is: either mask by itself has exactly the law of a random mask of rate
1/K, and each has d n / K tokens that the other has not, rounded down or up. So the Hamming distance is 2 d n
/ K, give or take less than 2, and 2 d n / K on average. Longer units are never split, and distances go as
near as they allow.

Corruption is drawn for each mask by itself at every distance, so d = 0 is the limit of small ones:
covariances there differ by the masks alone. With [MASK] for every masked token the two inputs of d = 0 are
equal, a control of whatever is computed from them; otherwise corruption's own noise keeps their gradients
apart, as it does any two.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from fmlm_cli import keys
from fmlm_cli.masking.exploration import Circle
from fmlm_cli.masking.strategies import Exploration, StrategySettings
from fmlm_cli.masking.units import Unit
from fmlm_cli.masking.view import Bools, Int64s, RowView

STEPS = 4  # a shift is a whole number of these parts of a mask


def shift_of(distance: float) -> int:
    """The shift, in quarters of a mask, for a share of the largest distance.

    ValueError for any but 0, 1/4, ... 1.
    """
    shift = distance * STEPS
    if not 0 <= shift <= STEPS or shift != int(shift):
        raise ValueError(
            f"two masks can be 0, 0.25, 0.5, 0.75 or 1 of the largest distance apart, not {distance}"
        )
    return int(shift)


@dataclass(frozen=True)
class MaskPairs(Exploration):
    """Two masks of rate 1/K in one step, `shift` quarters of a mask apart.

    Pairs of different passes (`epoch`), rows, seeds and shifts are independent. At shift 0 both are the same
    mask; what masked tokens show is drawn for each of the two by itself, there as at any other.
    """

    shift: int  # 0 to STEPS

    @classmethod
    def of(cls, settings: StrategySettings, unit: Unit, segments: int, distance: float) -> "MaskPairs":
        """Pairs at a share of the largest distance, whatever rate the settings have.

        ValueError, see `shift_of`.
        """
        return cls(replace(settings, rate=1 / segments, masks_per_sequence=2), unit, shift_of(distance))

    @property
    def description(self) -> str:
        """In words: what is masked when."""
        return f"two masks of {self.rate:.1%}, {self.shift / STEPS:g} of the largest distance apart"

    def _explore(self, view: RowView, epoch: int | Int64s, seed: int) -> tuple[Bools, Bools]:
        place = (self.shift, epoch, view.row_ids)
        starts = self.unit(view, keys.derive(seed, keys.Stream.PAIR_UNITS, *place))
        circle = Circle.of(view.maskable, starts, keys.derive(seed, keys.Stream.PAIR_MASKS, *place))
        fine = circle.windows(Fraction(1, STEPS * self.segments), STEPS + self.shift)
        masks = np.stack([fine[:, :STEPS].any(axis=1), fine[:, self.shift :].any(axis=1)], axis=1)
        return masks, np.broadcast_to(starts[:, None], masks.shape)

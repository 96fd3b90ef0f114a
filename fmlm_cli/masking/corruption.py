"""Corruption: what a masked position shows instead of its token.

80 % [MASK], 10 % a random token, 10 % itself in Devlin et al. 2019.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fmlm_cli import keys
from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.masking.view import Bools, Int64s, UInt64s

IGNORED = -100  # label of a position that is not predicted, as torch and transformers have it

_BORDERS = np.uint64(1 << 41)  # index of the draw that rounds a mask's shares, beyond those of all positions
_HALF = np.uint64(32)


@dataclass(frozen=True)
class Corruption:
    """The shares of masked positions that become [MASK], become a random ordinary token, and stay.

    `draw` stratified: within each mask of t positions the counts are the shares of t, rounded down or up so
    that they hold on average; which position gets what is random. Independent: every position draws for
    itself.
    """

    mask: float = 0.8
    random: float = 0.1
    keep: float = 0.1
    draw: Literal["stratified", "independent"] = "stratified"

    def __post_init__(self) -> None:
        shares = (self.mask, self.random, self.keep)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise UserError(f"masking.corruption: mask + random + keep must be 1, none below 0, not {shares}")
        if self.draw not in ("stratified", "independent"):
            raise unknown_name("masking.corruption.draw", self.draw, ("stratified", "independent"))

    def __call__(
        self, input_ids: Int64s, masks: Bools, key: UInt64s, *, mask_id: int, ordinary_ids: Int64s
    ) -> Int64s:
        """Corrupted ids int64[n, length] of rows `input_ids` int64[n, length] under `masks` bool[n, length].

        `key`: uint64[n]. `ordinary_ids`: the ids that random replacements are drawn from.
        """
        at = np.flatnonzero(masks)
        row, column = np.divmod(at, masks.shape[1])
        draws = keys.bits(key[row], column)  # the upper half decides the kind, the lower half the token
        if self.draw == "stratified":
            order, to_mask, to_replace = self._stratified(row, draws, key)
            at, draws = at[order], draws[order]
        else:
            share = keys.uniform(draws & ~np.uint64(0xFFFFFFFF))
            to_mask, to_replace = share < self.mask, (share >= self.mask) & (share < self.mask + self.random)
        corrupted = input_ids.copy()
        corrupted.ravel()[at[to_mask]] = mask_id
        tokens = keys.below(draws[to_replace] << _HALF, len(ordinary_ids))
        corrupted.ravel()[at[to_replace]] = ordinary_ids[tokens]
        return corrupted

    def _stratified(self, row: Int64s, draws: UInt64s, key: UInt64s) -> tuple[Int64s, Bools, Bools]:
        """A random order of the masked positions within each row, and which of them, so ordered, get what."""
        # Stable: what two alike draws come to must not depend on the rest of the batch.
        order = np.argsort((row.view(np.uint64) << _HALF) | (draws >> _HALF), kind="stable")
        count = np.bincount(row, minlength=len(key))
        # One uniform draw rounds both borders: every share's count is its mean rounded down or up (systematic
        # sampling, Madow 1949).
        draw = keys.uniform(keys.bits(key, _BORDERS))
        first = np.floor(self.mask * count + draw)
        second = np.floor((self.mask + self.random) * count + draw)
        # `row` rises, and the order keeps rows together: it is the row of the ordered positions too.
        rank = np.arange(len(row)) - (np.cumsum(count) - count)[row]
        to_mask = rank < first[row]
        return order, to_mask, ~to_mask & (rank < second[row])

"""Corruption: what a masked position shows instead of its token (Devlin et al. 2019: 80 % [MASK], 10 %, 10 %)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fmlm_cli import keys
from fmlm_cli.masking.exploration import shuffled

Int64s = npt.NDArray[np.int64]

IGNORED = -100  # label of a position that is not predicted, as torch and transformers have it

_KIND, _TOKEN, _SHARES = 0xC0, 0xC1, np.uint64(1 << 41)


@dataclass(frozen=True)
class Corruption:
    """The shares of masked positions that become [MASK], become a random ordinary token, and stay as they are.

    `draw` stratified: within each mask of t positions the counts are the shares of t, rounded down or up so that
    they hold on average; which position gets what is random. Independent: every position draws for itself.
    """

    mask: float = 0.8
    random: float = 0.1
    keep: float = 0.1
    draw: Literal["stratified", "independent"] = "stratified"

    def __call__(
        self,
        input_ids: Int64s,
        masks: npt.NDArray[np.bool_],
        key: npt.NDArray[np.uint64],
        *,
        mask_id: int,
        ordinary_ids: Int64s,
    ) -> Int64s:
        """Corrupted ids, int64[n, length], of rows `input_ids` int64[n, length] under `masks` bool[n, length].

        `key`: uint64[n]. `ordinary_ids`: the ids that random replacements are drawn from.
        """
        to_mask, to_replace = self._kinds(masks, key)
        corrupted = np.where(to_mask, mask_id, input_ids)
        row, column = np.nonzero(to_replace)
        draws = keys.bits(keys.derive(key[row], _TOKEN), column)
        corrupted[row, column] = ordinary_ids[keys.below(draws, len(ordinary_ids))]
        return corrupted

    def _kinds(
        self, masks: npt.NDArray[np.bool_], key: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Where [MASK] goes, and where a random token: bool[n, length] each."""
        kind_key = keys.derive(key, _KIND)
        if self.draw == "independent":
            draw = keys.uniform(keys.bits(kind_key[:, None], np.arange(masks.shape[1])))
            to_mask = masks & (draw < self.mask)
            return to_mask, masks & ~to_mask & (draw < self.mask + self.random)
        positions, count = shuffled(masks, kind_key)
        # One uniform draw rounds both borders: every share's count is its mean rounded down or up (systematic
        # sampling, Madow 1949).
        draw = keys.uniform(keys.bits(kind_key, _SHARES))
        first = np.floor(self.mask * count + draw)[:, None]
        second = np.floor((self.mask + self.random) * count + draw)[:, None]
        rank = np.arange(masks.shape[1])
        to_mask, to_replace = np.zeros_like(masks), np.zeros_like(masks)
        for kind, chosen in (
            (to_mask, rank < np.minimum(first, count[:, None])),
            (to_replace, (rank >= first) & (rank < np.minimum(second, count[:, None]))),
        ):
            row, column = np.nonzero(chosen)
            kind[row, positions[row, column]] = True
        return to_mask, to_replace

"""Strategies: a way of exploring, how many masks a step sees, and how masked tokens are corrupted."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fmlm_cli import keys
from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.masking.corruption import IGNORED, Corruption
from fmlm_cli.masking.exploration import Bools, Int64s, partition, random_mask

DEFAULT_SEGMENTS = 7  # 1/7 = 14.3 %, the nearest to BERT's 15 %

_MASK, _SEGMENT, _CORRUPT = 0x3A5C, 0x5E67, 0xC0DE  # streams of the hash: one for each kind of choice


@dataclass(frozen=True)
class Strategy:
    """Which positions of a row are masked in which epoch.

    `exploration` random: `masks_per_sequence` independent masks of `rate`. `exploration` full: K = `segments`
    disjoint masks that cover the row, all in one step (`scope` batch) or one in each of K epochs (`scope`
    epoch, with a fresh partition every K epochs).
    """

    name: str
    exploration: Literal["random", "full"]
    segments: int
    rate: float
    scope: Literal["batch", "epoch"] = "epoch"
    masks_per_sequence: int = 1
    corruption: Corruption = field(default_factory=Corruption)

    @property
    def description(self) -> str:
        """In words: what is masked when."""
        if self.exploration == "full":
            way = "all in one step" if self.scope == "batch" else "one in each pass over the data"
            return f"fully explored: {self.segments} segments of {self.rate:.1%}, {way} (scope {self.scope})"
        number = (
            f", {self.masks_per_sequence} masks of a sequence in one step"
            if self.masks_per_sequence > 1
            else ""
        )
        return f"random, {self.rate:.1%} of the tokens{number}"

    def masks(self, maskable: Bools, row_ids: Int64s, epoch: int | Int64s = 0, seed: int = 0) -> Bools:
        """The masks of rows in an epoch: bool[rows, masks_per_sequence, length].

        `maskable`: bool[rows, length]. `row_ids`: int64[rows], the rows' identities. `epoch`: how often a row
        was drawn before, one number or int64[rows]. Depends on nothing else.
        """
        epoch = np.broadcast_to(np.asarray(epoch, np.int64), row_ids.shape)
        if self.exploration == "random":
            number = np.arange(self.masks_per_sequence)
            key = keys.derive(seed, _MASK, row_ids[:, None], epoch[:, None], number)
            each = np.repeat(maskable, self.masks_per_sequence, axis=0)
            return random_mask(each, key.ravel(), self.rate).reshape(*key.shape, maskable.shape[1])
        if self.scope == "batch":
            segment = partition(maskable, keys.derive(seed, _MASK, row_ids, epoch), self.segments)
            return np.asarray(segment[:, None, :] == np.arange(self.segments)[:, None])
        segment = partition(
            maskable, keys.derive(seed, _MASK, row_ids, epoch // self.segments), self.segments
        )
        turn = (epoch + keys.below(keys.derive(seed, _SEGMENT, row_ids), self.segments)) % self.segments
        return (segment == turn[:, None])[:, None, :]

    def corrupt(
        self,
        input_ids: Int64s,
        masks: Bools,
        row_ids: Int64s,
        epoch: int | Int64s = 0,
        seed: int = 0,
        *,
        mask_id: int,
        ordinary_ids: Int64s,
    ) -> tuple[Int64s, Int64s]:
        """What the model sees and what it predicts: two int64[rows, masks, length].

        `input_ids`: int64[rows, length]; `masks`: bool[rows, masks, length]. The second array holds the
        original id where masked and -100 elsewhere. Random replacements come uniformly from `ordinary_ids`.
        """
        number, length = masks.shape[1:]
        epoch = np.broadcast_to(np.asarray(epoch, np.int64), row_ids.shape)
        key = keys.derive(seed, _CORRUPT, row_ids[:, None], epoch[:, None], np.arange(number)).ravel()
        each, flat = np.repeat(input_ids, number, axis=0), masks.reshape(-1, length)
        corrupted = self.corruption(each, flat, key, mask_id=mask_id, ordinary_ids=ordinary_ids)
        labels = np.where(flat, each, IGNORED)
        return corrupted.reshape(masks.shape), labels.reshape(masks.shape)

    def most_masked(self, length: int) -> int:
        """The largest number of positions that a mask of a row of this length can have."""
        return min(length, math.ceil(self.rate * length - 1e-9))


def _segments_and_rate(segments: int | None, rate: float | None, *, whole: bool) -> tuple[int, float]:
    """K and the mask rate, of which one gives the other. `whole`: the rate must be exactly 1/K."""
    if rate is not None and not 0 < rate < 1:
        raise UserError(f"masking.rate must lie between 0 and 1, not {rate:g}")
    if segments is not None and segments < 2:
        raise UserError(f"masking.segments must be at least 2, not {segments}")
    if rate is None:
        segments = segments or DEFAULT_SEGMENTS
        return segments, 1 / segments
    possible = max(
        2, min((math.floor(1 / rate), math.ceil(1 / rate)), key=lambda k: abs(1 / max(k, 1) - rate))
    )
    if not whole:
        return segments or possible, rate
    if segments is not None and segments != possible:
        raise UserError(
            f"masking.rate {rate:g} and masking.segments {segments} contradict each other: with full exploration the rate is "
            f"1/segments; give one of them, or rate {1 / segments:.4g} or segments {possible}"
        )
    if abs(rate * possible - 1) > 0.1:
        raise UserError(
            f"masking.rate {rate:g} is impossible here: with full exploration it is 1/segments; "
            f"the nearest is {1 / possible:.4g}, with masking.segments {possible}"
        )
    return possible, 1 / possible


def _random(
    segments: int | None, rate: float | None, scope: str | None, masks: int | None, corruption: Corruption
) -> Strategy:
    if scope == "batch" and masks is None:
        raise UserError(
            "masking.scope batch is for full exploration; for K random masks in one step set masking.masks_per_sequence"
        )
    segments, rate = _segments_and_rate(segments, rate, whole=False)
    return Strategy("random", "random", segments, rate, "epoch", masks or 1, corruption)


def _fully_explored(
    segments: int | None, rate: float | None, scope: str | None, masks: int | None, corruption: Corruption
) -> Strategy:
    segments, rate = _segments_and_rate(segments, rate, whole=True)
    number = segments if scope == "batch" else 1
    if masks not in (None, number):
        raise UserError(
            f"masking.masks_per_sequence {masks} does not fit fully-explored: scope batch has {segments} (its segments), "
            f"scope epoch 1"
        )
    return Strategy(
        "fully-explored", "full", segments, rate, "batch" if scope == "batch" else "epoch", number, corruption
    )


STRATEGIES: Mapping[
    str, Callable[[int | None, float | None, str | None, int | None, Corruption], Strategy]
] = {"random": _random, "fully-explored": _fully_explored}


def get_strategy(
    name: str,
    *,
    segments: int | None = None,
    rate: float | None = None,
    scope: Literal["batch", "epoch"] | None = None,
    masks_per_sequence: int | None = None,
    corruption: Corruption | None = None,
) -> Strategy:
    """A named strategy. Raises `UserError` for an unknown name or settings that do not fit it."""
    if scope not in (None, "batch", "epoch"):
        raise unknown_name("masking.scope", scope, ("batch", "epoch"))
    if masks_per_sequence is not None and masks_per_sequence < 1:
        raise UserError(f"masking.masks_per_sequence must be at least 1, not {masks_per_sequence}")
    make = STRATEGIES.get(name)
    if make is None:
        raise unknown_name("masking strategy", name, STRATEGIES)
    return make(segments, rate, scope, masks_per_sequence, corruption or Corruption())

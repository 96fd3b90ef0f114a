"""Strategies: which positions of which row are masked in which epoch, and what stands there instead."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from fmlm_cli import keys
from fmlm_cli.errors import UserError
from fmlm_cli.masking.corruption import IGNORED, Corruption
from fmlm_cli.masking.exploration import Circle, as_fraction, independent
from fmlm_cli.masking.units import Bools, Collocations, Int64s, UInt64s, Unit

_LEAST_RATE = 1e-9  # anything below masks nothing in any row
RATE_TOLERANCE = 0.1  # how far, as a share of itself, a rate may be from the 1/K that stands for it

_UNIT = np.uint64(keys.Stream.UNITS)  # turns a mask's key into that of its units: a stream far from its own


@dataclass(frozen=True)
class StrategySettings:
    """What a strategy is asked to be; None leaves it the choice. `options` are settings that it alone has."""

    name: str
    rate: float
    scope: Literal["epoch", "batch"] | None = None
    masks_per_sequence: int | None = None
    count: Literal["exact", "bernoulli"] = "exact"
    corruption: Corruption = field(default_factory=Corruption)
    collocations: Collocations | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


Factory = Callable[[StrategySettings], "Strategy"]


@dataclass(frozen=True)
class Strategy:
    """Base of all strategies. One of your own has to define `masks`, and may define `description`.

    A strategy has no state: what it masks depends on its settings and on the arguments of `masks` alone.
    """

    settings: StrategySettings

    @property
    def understands(self) -> frozenset[str]:
        """Which of the settings scope and count it obeys: where it does not, they are refused."""
        return frozenset()

    @property
    def inside(self) -> "Strategy":
        """The strategy itself, without what may be wrapped around it."""
        return self

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return self.settings.name

    @property
    def rate(self) -> float:
        """Share of a row's maskable tokens in one mask."""
        return self.settings.rate

    @property
    def masks_per_sequence(self) -> int:
        """Masks of a sequence that share an optimizer step."""
        return self.settings.masks_per_sequence or 1

    @property
    def corruption(self) -> Corruption:
        """What masked positions show."""
        return self.settings.corruption

    @property
    def cycle(self) -> int:
        """Over how many passes the masks of a sequence are made for each other; 1 if each pass is by itself."""
        return 1

    @property
    def description(self) -> str:
        """In words: what is masked when."""
        several = f", {self.masks_per_sequence} masks of a sequence in one step"
        return f"{self.name}, {self.rate:.1%} of the tokens{several * (self.masks_per_sequence > 1)}"

    def masks(
        self,
        maskable: Bools,
        word_starts: Bools | None,
        row_ids: Int64s,
        epoch: int | Int64s = 0,
        seed: int = 0,
        input_ids: Int64s | None = None,
    ) -> Bools:
        """The masks of rows in an epoch: bool[rows, masks_per_sequence, length].

        `maskable`, `word_starts`: bool[rows, length]. `row_ids`: int64[rows], the rows' identities. `epoch`: how
        often a row was drawn before, one number or int64[rows]. `input_ids`: int64[rows, length]. Must be a pure
        function of these, row by row: not of the batch, nor of what was asked before.
        """
        raise NotImplementedError

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
        key = _mask_keys(keys.derive(seed, keys.Stream.CORRUPTION, epoch, row_ids), number)
        each, flat = np.repeat(input_ids, number, axis=0), masks.reshape(-1, length)
        corrupted = self.corruption(each, flat, key, mask_id=mask_id, ordinary_ids=ordinary_ids)
        labels = np.where(flat, each, IGNORED)
        return corrupted.reshape(masks.shape), labels.reshape(masks.shape)


def _mask_keys(key: UInt64s, number: int) -> UInt64s:
    """Keys of `number` masks of each row from the rows' keys, a row's masks next to each other."""
    return key if number == 1 else keys.bits(key[:, None], np.arange(number)).ravel()


@dataclass(frozen=True)
class _Request:
    """The arguments of `Strategy.masks`."""

    maskable: Bools
    word_starts: Bools | None
    row_ids: Int64s
    epoch: int | Int64s
    seed: int
    input_ids: Int64s | None

    def repeated(self, number: int) -> "_Request":
        """Every row several times in turn."""
        if number == 1:
            return self
        return replace(
            self,
            maskable=np.repeat(self.maskable, number, axis=0),
            word_starts=None if self.word_starts is None else np.repeat(self.word_starts, number, axis=0),
            input_ids=None if self.input_ids is None else np.repeat(self.input_ids, number, axis=0),
        )


@dataclass(frozen=True)
class Exploration(Strategy):
    """Base of the two ways of exploring: masks of whole units of one kind."""

    unit: Unit

    def masks(
        self,
        maskable: Bools,
        word_starts: Bools | None,
        row_ids: Int64s,
        epoch: int | Int64s = 0,
        seed: int = 0,
        input_ids: Int64s | None = None,
    ) -> Bools:
        """See `Strategy.masks`."""
        return self._explore(_Request(maskable, word_starts, row_ids, epoch, seed, input_ids))[0]

    def units(
        self,
        maskable: Bools,
        word_starts: Bools | None,
        row_ids: Int64s,
        epoch: int | Int64s = 0,
        seed: int = 0,
        input_ids: Int64s | None = None,
    ) -> Bools:
        """Where the units begin that each of the masks is made of: bool[rows, masks_per_sequence, length]."""
        return self._explore(_Request(maskable, word_starts, row_ids, epoch, seed, input_ids))[1]

    def _explore(self, asked: _Request) -> tuple[Bools, Bools]:
        """Masks and the starts of their units, each bool[rows, masks_per_sequence, length]."""
        raise NotImplementedError

    def _starts(self, asked: _Request, key: UInt64s) -> Bools:
        """Where units begin; nothing that is drawn for them has to do with what is drawn from `key` itself."""
        return self.unit(asked.maskable, asked.word_starts, asked.input_ids, key ^ _UNIT)


@dataclass(frozen=True)
class RandomExploration(Exploration):
    """Masks drawn independently: one, or `masks_per_sequence`, for every pass."""

    @property
    def understands(self) -> frozenset[str]:
        """See `Strategy.understands`."""
        return frozenset({"count"})

    @property
    def description(self) -> str:
        """In words: what is masked when."""
        each = ", each unit drawn by itself" if self.settings.count == "bernoulli" else ""
        return super().description + each

    def _explore(self, asked: _Request) -> tuple[Bools, Bools]:
        number, shape = self.masks_per_sequence, asked.maskable.shape
        key = _mask_keys(keys.derive(asked.seed, keys.Stream.MASKS, asked.epoch, asked.row_ids), number)
        each = asked.repeated(number)
        starts = self._starts(each, key)
        if self.settings.count == "bernoulli":
            masks = independent(each.maskable, starts, key, self.rate)
        else:
            masks = Circle.of(each.maskable, starts, key).windows(as_fraction(self.rate))
        return masks.reshape(shape[0], number, shape[1]), starts.reshape(shape[0], number, shape[1])


@dataclass(frozen=True)
class FullExploration(Exploration):
    """K masks that do not overlap and together cover the row (Zheng et al. 2020, arXiv 2010.06040).

    Scope batch: all K in one optimizer step. Scope epoch: one in each of K passes, with a fresh partition of the
    row every K passes. Where on the circle its cuts lie is random, so which of a row's segments comes first, and
    which take the remainder of n / K, is drawn for every row and cycle.
    """

    segments: int  # K
    scope: Literal["epoch", "batch"]

    @property
    def understands(self) -> frozenset[str]:
        """See `Strategy.understands`."""
        return frozenset({"scope"})

    @property
    def masks_per_sequence(self) -> int:
        """K with scope batch."""
        return self.segments if self.scope == "batch" else 1

    @property
    def cycle(self) -> int:
        """K passes with scope epoch."""
        return self.segments if self.scope == "epoch" else 1

    @property
    def description(self) -> str:
        """In words: what is masked when."""
        way = "all in one step" if self.scope == "batch" else "one in each pass over the data"
        return f"{self.name}: {self.segments} segments of {self.rate:.1%}, {way} (scope {self.scope})"

    def _explore(self, asked: _Request) -> tuple[Bools, Bools]:
        cycle, turn = divmod(asked.epoch, self.cycle)
        key = keys.derive(asked.seed, keys.Stream.MASKS, cycle, asked.row_ids)
        starts = self._starts(asked, key)
        circle = Circle.of(asked.maskable, starts, key)
        masks = circle.windows(Fraction(1, self.segments), self.masks_per_sequence, first=turn)
        return masks, np.broadcast_to(starts[:, None], masks.shape)


def random_exploration(unit: Unit) -> Factory:
    """Makes the strategy that masks such units at random."""
    return lambda settings: RandomExploration(settings, unit)


def full_exploration(unit: Unit) -> Factory:
    """Makes the strategy that explores such units fully. `UserError` for a rate that is no 1/K."""

    def make(settings: StrategySettings) -> Strategy:
        segments, scope = check_segments_of("masking.rate", settings.rate), settings.scope or "epoch"
        number = segments if scope == "batch" else 1
        if settings.masks_per_sequence not in (None, number):
            raise UserError(
                f"masking.masks_per_sequence {settings.masks_per_sequence} does not fit {settings.name}: scope batch has "
                f"{segments} (its segments), scope epoch 1"
            )
        return FullExploration(replace(settings, rate=1 / segments), unit, segments, scope)

    return make


def check_segments_of(setting: str, rate: float) -> int:
    """The K whose 1/K a rate stands for. `UserError`, with the setting's name, for a rate that is no 1/K."""
    segments = nearest_segments(rate)
    if abs(rate * segments - 1) > RATE_TOLERANCE:
        raise UserError(
            f"{setting} {rate:g} is impossible here: with full exploration it is 1/segments; "
            f"the nearest is {1 / segments:.4g}, with masking.segments {segments}"
        )
    return segments


def nearest_segments(rate: float) -> int:
    """The K, at least 2, whose 1/K is nearest to a rate."""
    exact = 1 / max(rate, _LEAST_RATE)
    around = (math.floor(exact), math.ceil(exact))
    return max(2, min(around, key=lambda k: abs(1 / max(k, 1) - rate)))

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
from fmlm_cli.masking.units import Collocations, Need, Unit
from fmlm_cli.masking.view import Bools, Int64s, RowView, UInt64s

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

    @property
    def required_collocations(self) -> Collocations:
        """The collocations, for a strategy that needs them. `UserError` where there are none."""
        if self.collocations is None:
            raise UserError(
                f"masking {self.name} needs the store's collocations, and it has none: "
                f"add them with `fmlm tokenize --pmi --out STORE`"
            )
        return self.collocations


Factory = Callable[[StrategySettings], "Strategy"]


@dataclass(frozen=True)
class Strategy:
    """Base of all strategies. One of your own has to define `masks`, and may say more of itself.

    A strategy has no state: what it masks depends on its settings and on the arguments of `masks` alone.
    """

    settings: StrategySettings

    @property
    def understands(self) -> frozenset[str]:
        """Which of the settings scope and count it obeys: where it does not, they are refused."""
        return frozenset()

    @property
    def needs(self) -> frozenset[Need]:
        """What has to be known of the rows. Collocations are read only where the class says so."""
        return frozenset()

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return self.settings.name

    @property
    def rate(self) -> float:
        """Share of a row's maskable tokens in one mask."""
        return self.settings.rate

    @property
    def segments(self) -> int:
        """K: how many masks of its rate make up a row, as nearly as a whole number, at least 2, can say."""
        return nearest_segments(self.rate)

    @property
    def exploration(self) -> Literal["random", "full", "other"]:
        """How its masks relate: drawn independently, K that do not overlap and cover the row, otherwise."""
        return "other"

    @property
    def scope(self) -> Literal["epoch", "batch"] | None:
        """When the K masks of a full exploration are seen; None for all others."""
        return None

    @property
    def joins_words(self) -> bool:
        """Whether its units may hold several words, and so reach from one document into the next."""
        return False

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
        """Over how many passes a sequence's masks are made for each other; 1 if each pass is by itself."""
        return 1

    @property
    def description(self) -> str:
        """In words: what is masked when."""
        several = f", {self.masks_per_sequence} masks of a sequence in one step"
        return f"{self.name}, {self.rate:.1%} of the tokens{several * (self.masks_per_sequence > 1)}"

    def masks(self, view: RowView, epoch: int | Int64s = 0, seed: int = 0) -> Bools:
        """The masks of rows in an epoch: bool[rows, masks_per_sequence, length].

        `epoch`: how often a row was drawn before, one number or int64[rows]. Must be a pure function of
        these, row by row: not of the batch, nor of what was asked before.
        """
        raise NotImplementedError

    def units(self, view: RowView, epoch: int | Int64s = 0, seed: int = 0) -> Bools | None:
        """Where the units begin that each of the masks is made of: bool[rows, masks_per_sequence, length].

        None from a strategy that cannot tell.
        """
        return None

    def corrupt(
        self,
        view: RowView,
        masks: Bools,
        epoch: int | Int64s = 0,
        seed: int = 0,
        *,
        mask_id: int,
        ordinary_ids: Int64s,
    ) -> tuple[Int64s, Int64s]:
        """What the model sees and what it predicts: two int64[rows, masks, length].

        `masks`: bool[rows, masks, length]. The second array holds the original id where masked and -100
        elsewhere. Random replacements come uniformly from `ordinary_ids`. ValueError for a view without
        input_ids.
        """
        if view.input_ids is None:
            raise ValueError("there is nothing to corrupt: give the RowView its input_ids")
        number, length = masks.shape[1:]
        key = _mask_keys(keys.derive(seed, keys.Stream.CORRUPTION, epoch, view.row_ids), number)
        input_ids, flat = np.repeat(view.input_ids, number, axis=0), masks.reshape(-1, length)
        corrupted = self.corruption(input_ids, flat, key, mask_id=mask_id, ordinary_ids=ordinary_ids)
        labels = np.where(flat, input_ids, IGNORED)
        return corrupted.reshape(masks.shape), labels.reshape(masks.shape)


def _mask_keys(key: UInt64s, number: int) -> UInt64s:
    """Keys of `number` masks of each row from the rows' keys, a row's masks next to each other."""
    return key if number == 1 else keys.bits(key[:, None], np.arange(number)).ravel()


@dataclass(frozen=True)
class Exploration(Strategy):
    """Base of those whose masks are made of whole units of one kind."""

    unit: Unit

    @property
    def needs(self) -> frozenset[Need]:
        """Of its units."""
        return self.unit.needs

    @property
    def joins_words(self) -> bool:
        """Of its units."""
        return self.unit.joins_words

    def masks(self, view: RowView, epoch: int | Int64s = 0, seed: int = 0) -> Bools:
        """See `Strategy.masks`."""
        return self._explore(view, epoch, seed)[0]

    def units(self, view: RowView, epoch: int | Int64s = 0, seed: int = 0) -> Bools:
        """See `Strategy.units`."""
        return self._explore(view, epoch, seed)[1]

    def _explore(self, view: RowView, epoch: int | Int64s, seed: int) -> tuple[Bools, Bools]:
        """Masks and the starts of their units, each bool[rows, masks_per_sequence, length]."""
        raise NotImplementedError

    def _starts(self, view: RowView, key: UInt64s) -> Bools:
        """Where units begin, drawn from a key that has nothing to do with what is drawn from `key` itself."""
        return self.unit(view, key ^ _UNIT)


@dataclass(frozen=True)
class RandomExploration(Exploration):
    """Masks drawn independently: one, or `masks_per_sequence`, for every pass."""

    @property
    def understands(self) -> frozenset[str]:
        """See `Strategy.understands`."""
        return frozenset({"count"})

    @property
    def exploration(self) -> Literal["random"]:
        """See `Strategy.exploration`."""
        return "random"

    @property
    def description(self) -> str:
        """In words: what is masked when."""
        drawn = ", each unit drawn by itself" if self.settings.count == "bernoulli" else ""
        return super().description + drawn

    def _explore(self, view: RowView, epoch: int | Int64s, seed: int) -> tuple[Bools, Bools]:
        number = self.masks_per_sequence
        key = _mask_keys(keys.derive(seed, keys.Stream.MASKS, epoch, view.row_ids), number)
        repeated = view.repeated(number)
        starts = self._starts(repeated, key)
        if self.settings.count == "bernoulli":
            masks = independent(repeated.maskable, starts, key, self.rate)
        else:
            masks = Circle.of(repeated.maskable, starts, key).windows(as_fraction(self.rate))
        shape = (len(view), number, view.shape[1])
        return masks.reshape(shape), starts.reshape(shape)


@dataclass(frozen=True)
class FullExploration(Exploration):
    """K masks that do not overlap and together cover the row (Zheng et al. 2020, arXiv 2010.06040).

    Its rate is 1/K. Scope batch: all K in one optimizer step. Scope epoch: one in each of K passes, with a
    fresh partition of the row every K passes. Where on the circle its cuts lie is random, so which of a row's
    segments comes first, and which take the remainder of n / K, is drawn for every row and cycle.
    """

    @property
    def understands(self) -> frozenset[str]:
        """See `Strategy.understands`."""
        return frozenset({"scope"})

    @property
    def exploration(self) -> Literal["full"]:
        """See `Strategy.exploration`."""
        return "full"

    @property
    def scope(self) -> Literal["epoch", "batch"]:
        """As the settings have it; epoch where they leave it open."""
        return self.settings.scope or "epoch"

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

    def _explore(self, view: RowView, epoch: int | Int64s, seed: int) -> tuple[Bools, Bools]:
        cycle, turn = divmod(epoch, self.cycle)
        key = keys.derive(seed, keys.Stream.MASKS, cycle, view.row_ids)
        starts = self._starts(view, key)
        circle = Circle.of(view.maskable, starts, key)
        masks = circle.windows(Fraction(1, self.segments), self.masks_per_sequence, first=turn)
        return masks, np.broadcast_to(starts[:, None], masks.shape)


def random_exploration(unit: Unit) -> Factory:
    """Makes the strategy that masks such units at random."""
    return lambda settings: RandomExploration(settings, unit)


def full_exploration(unit: Unit) -> Factory:
    """Makes the strategy that explores such units fully. `UserError` for a rate that is no 1/K."""

    def make(settings: StrategySettings) -> Strategy:
        segments = check_segments_of("masking.rate", settings.rate)
        strategy = FullExploration(replace(settings, rate=1 / segments), unit)
        if settings.masks_per_sequence not in (None, strategy.masks_per_sequence):
            raise UserError(
                f"masking.masks_per_sequence {settings.masks_per_sequence} does not fit {settings.name}: "
                f"scope batch has {segments} (its segments), scope epoch 1"
            )
        return strategy

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
    neighbours = (math.floor(exact), math.ceil(exact))
    return max(2, min(neighbours, key=lambda k: abs(1 / max(k, 1) - rate)))

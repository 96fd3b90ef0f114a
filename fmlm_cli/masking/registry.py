"""The table of strategies, and how a name and settings become a strategy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.masking import plugins
from fmlm_cli.masking.corruption import Corruption
from fmlm_cli.masking.strategies import (
    RATE_TOLERANCE,
    Factory,
    Strategy,
    StrategySettings,
    full_exploration,
    nearest_segments,
    random_exploration,
)
from fmlm_cli.masking.units import Collocations, Need, Spans, Tokens, Unit, Words

DEFAULT_SEGMENTS = 7  # 1/7 = 14.3 %, the nearest to BERT's 15 %
F = TypeVar("F", bound=Factory)

COUNTS, SCOPES = ("exact", "bernoulli"), ("epoch", "batch")


@dataclass(frozen=True)
class BuiltIn:
    """A point of the grid, which makes a strategy of settings: a way of exploring, and a kind of unit."""

    explore: Callable[[Unit], Factory]
    unit: type[Unit]
    options: tuple[str, ...] = ()  # arguments of the unit that are the user's

    @property
    def needs(self) -> frozenset[Need]:
        """What has to be known of the rows."""
        return self.unit.needs

    def __call__(self, settings: StrategySettings) -> Strategy:
        """The strategy. `UserError` for options that it does not have, and where collocations are missing."""
        for option in settings.options:
            if option not in self.options:
                raise (
                    unknown_name(f"option of masking {settings.name}", option, self.options)
                    if self.options
                    else UserError(
                        f"masking {settings.name} has no options: leave out masking.options.{option}"
                    )
                )
        if "collocations" in self.needs:
            return self.explore(settings.required_collocations)(settings)
        return self.explore(self.unit(**settings.options))(settings)


BUILT_IN: Mapping[str, BuiltIn] = {
    "random": BuiltIn(random_exploration, Tokens),
    "whole-word": BuiltIn(random_exploration, Words),
    "span": BuiltIn(random_exploration, Spans, ("p", "longest")),
    "pmi": BuiltIn(random_exploration, Collocations),
    "fully-explored": BuiltIn(full_exploration, Tokens),
    "fully-explored-word": BuiltIn(full_exploration, Words),
    "fully-explored-span": BuiltIn(full_exploration, Spans, ("p", "longest")),
    "fully-explored-pmi": BuiltIn(full_exploration, Collocations),
}


def register_strategy(name: str) -> Callable[[F], F]:
    """Decorator: make a `Strategy` subclass, or a function from settings to a strategy, known by `name`.

    Raises `UserError` for a name of fmlm's own.
    """
    if name in BUILT_IN:
        raise UserError(f"masking strategy '{name}' is fmlm's own: register yours by another name")

    def register(factory: F) -> F:
        plugins.registered[name] = factory
        return factory

    return register


def strategy_names() -> list[str]:
    """The names of all strategies: built in, registered, and those of installed packages."""
    return [*BUILT_IN, *(name for name in plugins.names() if name not in BUILT_IN)]


def random_counterpart(name: str) -> str | None:
    """The built-in strategy that masks the same units at random; None for a plug-in."""
    unit = BUILT_IN[name].unit if name in BUILT_IN else None
    at_random = (n for n, b in BUILT_IN.items() if b.unit is unit and b.explore is random_exploration)
    return next(at_random, None)


def strategy_needs(name: str) -> frozenset[Need]:
    """What has to be known of the rows, by the strategy's name, before there is a strategy.

    A plug-in is loaded for it; one that cannot be, or that says nothing on its class or function, needs
    nothing.
    """
    built_in = BUILT_IN.get(name)
    return plugins.needs(name) if built_in is None else built_in.needs


def get_strategy(
    name: str,
    *,
    segments: int | None = None,
    rate: float | None = None,
    scope: Literal["batch", "epoch"] | None = None,
    masks_per_sequence: int | None = None,
    count: Literal["exact", "bernoulli"] = "exact",
    corruption: Corruption | None = None,
    collocations: Collocations | None = None,
    **options: Any,
) -> Strategy:
    """A strategy by its name, or by `package.module:object` for one that is registered nowhere.

    `segments` is K and gives the rate 1/K, 1/7 if neither is given. `options` are what only this strategy
    has, such as `p` and `longest` of span. Raises `UserError` for an unknown name or settings that do not fit
    it.
    """
    for setting, value, known in (("scope", scope or "epoch", SCOPES), ("count", count, COUNTS)):
        if value not in known:
            raise unknown_name(f"masking.{setting}", str(value), known)
    if masks_per_sequence is not None and masks_per_sequence < 1:
        raise UserError(f"masking.masks_per_sequence must be at least 1, not {masks_per_sequence}")
    corruption = corruption or Corruption()
    settings = StrategySettings(
        name, _rate(segments, rate), scope, masks_per_sequence, count, corruption, collocations, options
    )
    built_in = BUILT_IN.get(name)
    if built_in is not None:
        strategy = built_in(settings)
    else:
        strategy = plugins.plug_in(plugins.load(name, strategy_names()), settings)
    for setting, choice in (("scope", scope), ("count", None if count == "exact" else count)):
        if choice is not None and setting not in strategy.understands:
            several = "; for several masks of a sequence in one step set masking.masks_per_sequence"
            hint = several if choice == "batch" else ""
            raise UserError(f"masking.{setting} {choice} does not go with {name}: leave it out{hint}")
    return strategy


def at_rate(strategy: Strategy, rate: float) -> Strategy:
    """The same strategy at another rate; with full exploration, at the nearest 1/K."""
    settings = replace(strategy.settings, rate=rate)
    if "scope" in strategy.understands:  # its masks in a step follow from K
        settings = replace(settings, rate=1 / nearest_segments(rate), masks_per_sequence=None)
    if isinstance(strategy, plugins.PluggedIn):
        return plugins.plug_in(strategy.factory, settings)
    return BUILT_IN[strategy.name](settings)


def _rate(segments: int | None, rate: float | None) -> float:
    """The mask rate that K or the rate stands for."""
    if rate is not None and not 0 < rate < 1:
        raise UserError(f"masking.rate must lie between 0 and 1, not {rate:g}")
    if segments is not None and segments < 2:
        raise UserError(f"masking.segments must be at least 2, not {segments}")
    if rate is None:
        return 1 / (segments or DEFAULT_SEGMENTS)
    possible = nearest_segments(rate)
    if segments is not None and (segments != possible or abs(rate * segments - 1) > RATE_TOLERANCE):
        raise UserError(
            f"masking.rate {rate:g} and masking.segments {segments} contradict each other: "
            f"one of K segments is a mask of rate 1/K; give one of them, or rate {1 / segments:.4g} "
            f"or segments {possible}"
        )
    return rate

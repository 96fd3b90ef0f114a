"""The table of strategies, and how a name and settings become a strategy."""

from collections.abc import Callable, Mapping
from dataclasses import replace
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
from fmlm_cli.masking.units import Collocations, Spans, Unit, tokens, words

DEFAULT_SEGMENTS = 7  # 1/7 = 14.3 %, the nearest to BERT's 15 %
F = TypeVar("F", bound=Factory)

COUNTS, SCOPES = ("exact", "bernoulli"), ("epoch", "batch")


def _built_in(
    explore: Callable[[Unit], Factory],
    unit: Callable[[StrategySettings], Unit],
    options: tuple[str, ...] = (),
) -> Factory:
    """A point of the grid: a way of exploring, and a kind of unit with the options that it has."""

    def factory(settings: StrategySettings) -> Strategy:
        for option in settings.options:
            if option not in options:
                raise (
                    unknown_name(f"option of masking {settings.name}", option, options)
                    if options
                    else UserError(
                        f"masking {settings.name} has no options: leave out masking.options.{option}"
                    )
                )
        return explore(unit(settings))(settings)

    return factory


def _collocations(settings: StrategySettings) -> Unit:
    if settings.collocations is None:
        raise UserError(
            f"masking {settings.name} needs the store's collocations, and it has none: "
            f"add them with `fmlm tokenize --pmi --out STORE`"
        )
    return settings.collocations


def _spans(settings: StrategySettings) -> Unit:
    return Spans(**settings.options)


BUILT_IN: Mapping[str, Factory] = {
    "random": _built_in(random_exploration, lambda _: tokens),
    "whole-word": _built_in(random_exploration, lambda _: words),
    "span": _built_in(random_exploration, _spans, ("p", "longest")),
    "pmi": _built_in(random_exploration, _collocations),
    "fully-explored": _built_in(full_exploration, lambda _: tokens),
    "fully-explored-word": _built_in(full_exploration, lambda _: words),
    "fully-explored-span": _built_in(full_exploration, _spans, ("p", "longest")),
    "fully-explored-pmi": _built_in(full_exploration, _collocations),
}


def register_strategy(name: str) -> Callable[[F], F]:
    """Decorator: make a `Strategy` subclass, or a function from settings to a strategy, known by `name`.

    Raises `UserError` for a name of fmlm's own.
    """
    if name in BUILT_IN:
        raise UserError(f"masking strategy '{name}' is fmlm's own: register yours by another name")

    def register(factory: F) -> F:
        plugins._registered[name] = factory
        return factory

    return register


def strategy_names() -> list[str]:
    """The names of all strategies: built in, registered, and those of installed packages."""
    return [*BUILT_IN, *(name for name in plugins.names() if name not in BUILT_IN)]


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

    `segments` is K and gives the rate 1/K, 1/7 if neither is given. `options` are what only this strategy has,
    such as `p` and `longest` of span. Raises `UserError` for an unknown name or settings that do not fit it.
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
    own = BUILT_IN.get(name)
    strategy = own(settings) if own else plugins.plug_in(plugins.load(name, strategy_names()), settings)
    for setting, given in (("scope", scope), ("count", None if count == "exact" else count)):
        if given is not None and setting not in strategy.understands:
            several = "; for several masks of a sequence in one step set masking.masks_per_sequence"
            hint = several if given == "batch" else ""
            raise UserError(f"masking.{setting} {given} does not go with {name}: leave it out{hint}")
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
            f"masking.rate {rate:g} and masking.segments {segments} contradict each other: one of K segments is a mask of rate 1/K; "
            f"give one of them, or rate {1 / segments:.4g} or segments {possible}"
        )
    return rate

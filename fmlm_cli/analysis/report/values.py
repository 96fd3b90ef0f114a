"""The numbers of results in words, and its arms.

No more digits are shown than an interval warrants: up to the first digit of its half-width, or the second
where the first is a 1 or a 2.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from fmlm_cli.analysis.results.comparison import ArmResult, Measurements
from fmlm_cli.analysis.results.variance import VarianceResult
from fmlm_cli.analysis.statistics import Interval

_DECIMALS = 5  # at most; nothing that is measured here means more
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
DASH = "–"


def cleaned(value: Any) -> Any:
    """A copy with string keys, without characters that XML or UTF-8 cannot hold (lone surrogates, too)."""
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {cleaned(str(key)): cleaned(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(part) for part in value]
    return value


# ---------------------------------------------------------------- numbers in words


def decimals(spread: float) -> int:
    """Decimals that a number deserves whose uncertainty is `spread`; below zero for tens, hundreds, ..."""
    if not math.isfinite(spread) or spread <= 0:
        return 3
    place = math.floor(math.log10(spread))
    return min(_DECIMALS, -place + (spread / 10**place < 2.95))


def spell(value: float | None, places: int = 3, *, sign: bool = False) -> str:
    """A number with `places` decimals, thousands separated, and a true minus sign; a dash for None."""
    if value is None:
        return DASH
    rounded = round(value, places) + 0.0  # no -0
    return f"{rounded:{'+' if sign else ''},.{max(0, places)}f}".replace("-", "−")


def percent(share: float | None) -> str:
    """A share as a percentage: 34 %, 0.4 %."""
    if share is None:
        return DASH
    value = 100 * share
    return f"{spell(value, 0 if value >= 10 or value == 0 else 1)} %"


def compact(count: float | None) -> str:
    """A large count with three digits: 1.23 M."""
    if count is None:
        return DASH
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(count) >= 0.9995 * size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def probability(p: float | None) -> str:
    """A p-value with two digits, `< 0.001` below that."""
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def p_is(p: float | None) -> str:
    """The same with its sign: `p = 0.031`, `p < 0.001`."""
    text = probability(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def rounded_up(value: float | None, digits: int = 2) -> str:
    """The smallest number of so many digits that is not below `value`: nothing less is promised."""
    if value is None:
        return DASH
    if value <= 0:
        return f"{value:g}"
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    number = math.ceil(value / unit - 1e-9) * unit
    return f"{number:,.0f}" if unit >= 1 else f"{number:.{digits}g}"


class Ends(Protocol):
    """An interval of results, or what may be one."""

    @property
    def value(self) -> float | None:
        """The estimate."""

    @property
    def low(self) -> float | None:
        """The lower end."""

    @property
    def high(self) -> float | None:
        """The upper end."""


@dataclass(frozen=True)
class Estimate(Interval):
    """An interval of results, whose ends are NaN where it has none, in words."""

    @classmethod
    def of(cls, ends: Ends) -> Self:
        """That of results; there has to be a value."""
        assert ends.value is not None, ends
        low, high = (math.nan if end is None else end for end in (ends.low, ends.high))
        return cls(ends.value, low, high)

    @property
    def bounded(self) -> bool:
        """Whether there is an interval at all."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def places(self) -> int:
        """As many as the interval warrants, and to see on which side of nought it ends."""
        places = decimals((self.high - self.low) / 2)
        while places < _DECIMALS and any(
            end and not round(end, places) for end in (self.low, self.high) if self.bounded
        ):
            places += 1
        return places

    def times(self, scale: float) -> "Estimate":
        """In another unit."""
        return Estimate(scale * self.value, scale * self.low, scale * self.high)

    def point(self, *, sign: bool = False) -> str:
        """The value alone."""
        return spell(self.value, self.places, sign=sign)

    def ends(self, *, sign: bool = False) -> str:
        """`0.45 to 0.47`."""
        if not self.bounded:
            return "no interval"
        return f"{spell(self.low, self.places, sign=sign)} to {spell(self.high, self.places, sign=sign)}"

    def text(self, *, sign: bool = False) -> str:
        """`0.46 (0.45 to 0.47)`."""
        return f"{self.point(sign=sign)} ({self.ends(sign=sign)})"


@dataclass(frozen=True)
class Ratio(Estimate):
    """A ratio of positive quantities: its lower end is never shown as nought."""

    @property
    def places(self) -> int:
        """Two digits at least of the lower end, three decimals at most."""
        if not self.bounded or self.low <= 0:
            return min(3, super().places)
        return min(3, max(super().places, 1 - math.floor(math.log10(self.low))))


# ---------------------------------------------------------------- arms and measurements


@dataclass(frozen=True)
class Arms:
    """The arms by name, in the order of the results."""

    by_name: Mapping[str, ArmResult]
    baseline: str

    @classmethod
    def of(cls, results: Measurements) -> "Arms":
        """Those of a comparison."""
        return cls({arm.name: arm for arm in results.arms}, results.baseline)

    def label(self, name: str) -> str:
        """How the report calls an arm."""
        return self.by_name[name].label

    @property
    def base(self) -> str:
        """How the report calls the baseline."""
        return self.label(self.baseline)

    @property
    def candidates(self) -> list[str]:
        """The arms to choose from beside the baseline."""
        return [name for name in self.by_name if name != self.baseline and not self.is_control(name)]

    @property
    def controls(self) -> list[str]:
        """The arms that are there for scale only."""
        return [name for name in self.by_name if self.is_control(name)]

    def passes(self, name: str) -> str:
        """Passes made over the data, in words."""
        return compact(self.by_name[name].passes)

    def is_control(self, name: str) -> bool:
        """Whether an arm is there for scale only."""
        return self.by_name[name].control

    def place(self, name: str) -> int:
        """0 for the baseline, 1, 2, ... for the others: chooses colour, dash and marker."""
        others = [arm for arm in self.by_name if arm != self.baseline]
        return 0 if name == self.baseline else 1 + others.index(name)

    def listed(self, names: Sequence[str]) -> str:
        """Some of them, one after another."""
        return ", ".join(self.label(name) for name in names)


def measurement(entry: VarianceResult) -> str:
    """Which checkpoint and corruption a measurement of gradient variance is of."""
    return f"{entry.name}, step {entry.step:,}, {entry.corruption}"

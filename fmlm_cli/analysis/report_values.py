"""What results.json holds, read with tolerance for what is missing, and its numbers in words.

No more digits are shown than an interval warrants: up to the first digit of its half-width, or the second where the first
is a 1 or a 2.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

Json = Mapping[str, Any]

_DECIMALS = 5  # at most; nothing that is measured here means more
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
DASH = "–"


def cleaned(value: Any) -> Any:
    """A copy with string keys and without characters that XML or UTF-8 cannot hold, lone surrogates among them."""
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {cleaned(str(key)): cleaned(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(own) for own in value]
    return value


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def numbers(values: Any) -> list[float]:
    """The finite numbers among a list's items, or a dictionary's values."""
    items: Iterable[Any] = values.values() if isinstance(values, Mapping) else values or ()
    return [own for own in map(number, items) if own is not None]


def part(tree: Any, *path: str) -> dict[str, Any]:
    """The dictionary at `path` in a tree of them; empty where there is none."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return dict(tree) if isinstance(tree, Mapping) else {}


# ---------------------------------------------------------------- numbers in words


def decimals(spread: float | None) -> int:
    """How many decimals a number deserves whose uncertainty is `spread`; below zero for tens, hundreds, ..."""
    if spread is None or not math.isfinite(spread) or spread <= 0:
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


def count(n: int, thing: str, plural: str = "") -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n:,} {thing if n == 1 else plural or thing + 's'}"


def listed(names: Sequence[str]) -> str:
    """Names one after another, parted by what none of them holds; only their number if they are many."""
    if len(names) > 5:
        return f"{len(names)} arms"
    return ("; " if any("," in name for name in names) else ", ").join(names)


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; `low` and `high` are None where there is none, or where it has no bound."""

    value: float
    low: float | None
    high: float | None
    level: float = 0.95

    @classmethod
    def of(cls, tree: Any, value: str = "value") -> "Estimate | None":
        """From {value, low, high}; None if there is no value."""
        own = part(tree)
        found = number(own.get(value))
        if found is None:
            return None
        return cls(found, number(own.get("low")), number(own.get("high")), number(own.get("level")) or 0.95)

    @property
    def spread(self) -> float | None:
        """Half the interval's width."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def times(self, scale: float) -> "Estimate":
        """In another unit."""
        low, high = (None if end is None else scale * end for end in (self.low, self.high))
        return Estimate(scale * self.value, low, high, self.level)

    def against(self, reference: float) -> str:
        """`below`, `above` or `undecided`, by the whole interval."""
        if self.low is None or self.high is None:
            return "undecided"
        return "below" if self.high < reference else "above" if self.low > reference else "undecided"

    def point(self, *, sign: bool = False, most: int = _DECIMALS) -> str:
        """The value alone, with as many digits as its interval warrants."""
        return spell(self.value, min(most, decimals(self.spread)), sign=sign)

    def ends(self, *, sign: bool = False, most: int = _DECIMALS) -> str:
        """`0.45 to 0.47`."""
        if self.low is None or self.high is None:
            return "no interval"
        places = min(most, decimals(self.spread))
        return f"{spell(self.low, places, sign=sign)} to {spell(self.high, places, sign=sign)}"

    def text(self, *, sign: bool = False, most: int = _DECIMALS) -> str:
        """`0.46 (0.45 to 0.47)`."""
        return f"{self.point(sign=sign, most=most)} ({self.ends(sign=sign, most=most)})"


def ratio_text(estimate: Estimate | None) -> str:
    """A ratio with its interval, to three decimals at most; a dash for None."""
    return DASH if estimate is None else estimate.text(most=3)


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student-t interval of values that are one for each seed; NaN ends for fewer than two."""
    own = np.asarray(values, np.float64)
    mean = float(own.mean()) if len(own) else math.nan
    if len(own) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.isf((1 - level) / 2, len(own) - 1) * own.std(ddof=1) / math.sqrt(len(own)))
    return mean, mean - half, mean + half


# ---------------------------------------------------------------- arms and measurements


@dataclass(frozen=True)
class Arms:
    """The arms by name, in the order of the report: as results.json lists them, then any it speaks of elsewhere."""

    own: Mapping[str, Json]
    baseline: str

    @classmethod
    def of(cls, results: Json) -> "Arms":
        """All arms that any part of the results names."""
        own = {str(arm.get("name")): dict(arm) for arm in results.get("arms") or [] if arm}
        named = [
            results.get("coverage"),
            *(part(results, "race", key) for key in ("curves", "final", "paired")),
            part(results, "race", "tokens_to_reach"),
            *part(results, "downstream").values(),
        ]
        for tree in named:
            for name in part(tree):
                own.setdefault(name, {})
        return cls(own, str(results.get("baseline") or next(iter(own), "")))

    def label(self, name: str) -> str:
        """How the report calls an arm."""
        return str(part(self.own.get(name)).get("label") or name)

    @property
    def base(self) -> str:
        """How the report calls the baseline."""
        return self.label(self.baseline)

    def passes(self, name: str) -> str:
        """Passes made over the data, in words."""
        return compact(number(part(self.own.get(name)).get("passes")))

    def is_control(self, name: str) -> bool:
        """Whether an arm is there for scale only."""
        return bool(part(self.own.get(name)).get("control"))

    def of_part(self, tree: Json) -> list[str]:
        """The arms that `tree` has something of, in order."""
        return [name for name in self.own if tree.get(name)]

    def place(self, name: str) -> int:
        """0 for the baseline, 1, 2, ... for the others: chooses colour, dash and marker."""
        others = [arm for arm in self.own if arm != self.baseline]
        return 0 if name == self.baseline else 1 + others.index(name)


def measurement(entry: Json) -> str:
    """Which checkpoint and corruption an item of results["variance"] is of."""
    step = number(entry.get("step"))
    begun = str(entry.get("name") or "checkpoint")
    named = f"{begun}, step {step:,.0f}" if step is not None else begun
    return f"{named}, {corruption}" if (corruption := corruption_text(entry.get("corruption"))) else named


def corruption_text(corruption: Any) -> str:
    """The corruption's shares: `80/10/10`; a text stays what it is."""
    if isinstance(corruption, Mapping):
        shares = [number(corruption.get(key)) for key in ("mask", "random", "keep")]
        if None not in shares:
            return "/".join(f"{100 * share:.3g}" for share in shares if share is not None)
        return ", ".join(f"{key} {value}" for key, value in corruption.items())
    return str(corruption) if corruption else ""

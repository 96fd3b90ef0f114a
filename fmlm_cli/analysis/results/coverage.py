"""What masks reach, as results."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MaskSizes:
    """Masked tokens of a mask."""

    least: int
    mean: float
    most: int


@dataclass(frozen=True)
class HammingResult:
    """Hamming distances between a row's masks, as shares of the largest possible one, |a| + |b|.

    `masks` of each row make `pairs` in all rows, of which `disjoint` is the share without a token in common.
    `shares`: of the pairs, in the bins between neighbouring `edges`.
    """

    masks: int
    pairs: int
    mean: float
    sd: float
    least: float
    disjoint: float
    edges: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class CoverageResult:
    """What an arm's masks reach of some `rows` in `epochs` passes; all shares are of the maskable tokens.

    `rate`: masked share of a mask. `times_masked[k]`: share masked k times, of which `never_masked` is the
    first; `expected`: the same as the strategy promises it, None where that is unknown. `covered[e]`: share
    masked in passes 0 to e.
    """

    rows: int
    epochs: int
    rate: float
    never_masked: float
    times_masked: tuple[float, ...]
    expected: tuple[float, ...] | None
    covered: tuple[float, ...]
    tokens_in_a_mask: MaskSizes
    hamming: HammingResult | None

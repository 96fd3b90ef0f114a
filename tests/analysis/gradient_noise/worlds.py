"""What the tests of gradient variance share: worlds small enough to know all their masks, and many sequences
of one.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fmlm_cli.analysis.gradient_noise.measuring import Draw, GradientPlan, RatioResiduals, Records, measure

TOKENS, K, SIZE, LENGTH = (
    6,
    3,
    2,
    5,
)  # tokens to a sequence, segments, tokens to a mask, entries of a gradient
MASKS = list(itertools.combinations(range(TOKENS), SIZE))
PARTITIONS = [
    parts for parts in itertools.permutations(range(len(MASKS)), K)
    if len({token for part in parts for token in MASKS[part]}) == TOKENS
]  # fmt: skip
DISTANCES = (0.0, 0.5, 1.0)
PAIRS = {
    h: [
        (a, b)
        for a in range(len(MASKS))
        for b in range(len(MASKS))
        if len(set(MASKS[a]) & set(MASKS[b])) == SIZE * (1 - h)
    ]
    for h in DISTANCES
}
PLAN = GradientPlan(random=3, segments=K, sets=2, distances=DISTANCES, pairs=2)


@dataclass
class World:
    """Kinds of sequences with a gradient for every mask; a sequence is of a kind drawn by its number."""

    table: np.ndarray  # float64[kinds, masks, LENGTH]
    noise: float = 0.0  # standard deviation of what corruption adds to each entry
    independent: bool = False  # segments that are none: independent masks

    @classmethod
    def of(cls, *, token: float = 1.0, pair: float = 0.7, mean: float = 30.0, kinds: int = 40) -> "World":
        """A mean, a part that adds up over tokens, and one that does not."""
        rng = np.random.default_rng(3)
        parts = rng.normal(0, token, (kinds, TOKENS, LENGTH)) * rng.uniform(0.5, 1.5, (kinds, 1, 1))
        whole = np.stack([parts[:, mask].sum(1) for mask in map(list, MASKS)], axis=1)
        whole += rng.normal(0, pair, (kinds, len(MASKS), LENGTH)) + rng.normal(0, 1, (kinds, 1, LENGTH))
        return cls(whole + mean)

    def __call__(self, sequence: int, draws: Sequence[Draw]) -> Tensor:
        rng = np.random.default_rng(
            [sequence, *map(ord, draws[0].family), draws[0].group, int(8 * draws[0].distance)]
        )
        if draws[0].family == "random" or (draws[0].family == "segments" and self.independent):
            chosen = rng.integers(0, len(MASKS), len(draws))
        elif draws[0].family == "segments":
            chosen = np.array(PARTITIONS[rng.integers(len(PARTITIONS))])
        else:
            pairs = PAIRS[draws[0].distance]
            chosen = np.array(pairs[rng.integers(len(pairs))])
        found = self.table[self.kind(sequence), chosen]
        return torch.from_numpy(found + rng.normal(0, self.noise, found.shape) if self.noise else found)

    def kind(self, sequence: int) -> int:
        return int(np.random.default_rng(sequence).integers(len(self.table)))

    # What is to be found, by going through all masks. Noise is new for every gradient.
    @property
    def sigma2(self) -> np.ndarray:
        return self.table.var(axis=1).sum(-1) + LENGTH * self.noise**2

    @property
    def full(self) -> np.ndarray:
        if self.independent:
            return self.sigma2 / K
        return self.table[:, PARTITIONS].mean(2).var(axis=1).sum(-1) + LENGTH * self.noise**2 / K

    @property
    def delta2(self) -> float:
        return float(self.table.mean(1).var(axis=0).sum())

    def covariance(self, h: float) -> np.ndarray:
        away = self.table - self.table.mean(1, keepdims=True)
        return np.mean([(away[:, a] * away[:, b]).sum(-1) for a, b in PAIRS[h]], axis=0)


@dataclass
class SpanWorld:
    """Rows of unequal length in blocks of some tokens, masked as wholes, each with probability 1/K.

    A block's gradient is a sum over its tokens, whose mean is long; `noise` for each token is what does not
    add up.
    """

    blocks: list[np.ndarray]  # for each kind of row float64[blocks, LENGTH]
    sizes: list[np.ndarray]  # int64[blocks]
    noise: float

    @classmethod
    def of(cls, *, noise: float, kinds: int = 40) -> "SpanWorld":
        rng = np.random.default_rng(5)
        sizes = [rng.integers(1, 6, number) for number in rng.integers(4, 30, kinds)]
        blocks = [
            (3 + rng.normal(0, 0.3, LENGTH)) * size[:, None]
            + rng.normal(0, 1, (len(size), LENGTH)) * np.sqrt(size)[:, None]
            for size in sizes
        ]
        return cls(blocks, sizes, noise)

    def masked(self, kind: int, rng: np.random.Generator, segments: bool) -> tuple[np.ndarray, np.ndarray]:
        """Of K masks or the K segments: gradients float64[K, LENGTH] of summed losses, counts int64[K]."""
        number = len(self.sizes[kind])
        masks = rng.random((K, number)) < 1 / K
        if segments:
            masks = rng.integers(0, K, number) == np.arange(K)[:, None]
        counts = masks @ self.sizes[kind]
        away = rng.normal(0, self.noise, (K, LENGTH)) * np.sqrt(counts)[:, None]
        return masks @ self.blocks[kind] + away, counts

    @property
    def residuals(self) -> RatioResiduals:
        """About the true mean gradient."""
        total = torch.from_numpy(sum(block.sum(0) for block in self.blocks))
        tokens = sum(int(size.sum()) for size in self.sizes)
        return RatioResiduals.of(total, tokens, tau=tokens / K / len(self.sizes))

    def gradients(self, sequence: int, draws: Sequence[Draw]) -> list[tuple[Tensor, int]]:
        """G and c of draws; random ones are the first of K each."""
        kind = int(np.random.default_rng(sequence).integers(len(self.sizes)))
        found = []
        for draw in draws:
            rng = np.random.default_rng([sequence, *map(ord, draw.family), draw.group])
            gradients, counts = self.masked(kind, rng, draw.family == "segments")
            found.append((torch.from_numpy(gradients[draw.member]), int(counts[draw.member])))
        return found

    def steps(self, number: int, rows: int, masks: int, segments: bool) -> np.ndarray:
        """Gradients of steps, sum G / sum c: float64[number, LENGTH]; of `rows` rows, `masks` masks each."""
        rng, several = np.random.default_rng(6), 200
        pool = [[self.masked(kind, rng, segments) for _ in range(several)] for kind in range(len(self.sizes))]
        gradients, counts = (np.array([[one[part] for one in of] for of in pool]) for part in (0, 1))
        chosen = (
            rng.integers(0, len(pool), (number, rows)),
            rng.integers(0, several, (number, rows)),
            slice(0, masks),
        )
        return gradients[chosen].sum((1, 2)) / counts[chosen].sum((1, 2))[:, None]


@functools.cache
def many(noise: float = 0.0, independent: bool = False) -> tuple[World, Records]:
    """A world and records of 1200 sequences, measured in 100 calls."""
    world = replace(World.of(), noise=noise, independent=independent)
    cells = [range(begin, begin + 12) for begin in range(0, 1200, 12)]
    return world, Records.joined([measure(world, cell, PLAN) for cell in cells])


def near(values: np.ndarray, truth: np.ndarray | float) -> bool:
    """Whether the mean of independent values is the truth's, within four standard errors."""
    off = values - truth
    return bool(abs(off.mean()) < 4 * off.std(ddof=1) / math.sqrt(len(off)))

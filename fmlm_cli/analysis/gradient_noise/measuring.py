"""Gradient variance: gradients of one sequence after another, reduced to a few numbers for each.

It knows neither models nor masks: it is handed a function that gives the gradients it names. Gradients that
belong together form a *group*; groups of a family are independent of each other, and each gradient by itself
has the law of a random mask's. A family is then a one-way random-effects layout, whose mean squares are
unbiased for

    between groups: E MSB = sigma^2 + (k - 1) c,        within groups: E MSW = sigma^2 - c,

with k members to a group, sigma^2 the trace of the covariance of one gradient over masks (given the sequence)
and c that of two of one group (Searle, Casella & McCulloch 1992, "Variance Components", chapter 3; that c may
be negative changes nothing in the derivation). All of them are invariant to the mean gradient, which is far
longer than what masks change in it. Families:

- *random*: R independent masks, groups of one: sigma^2.
- *segments*: S sets of the K segments of full exploration: c(2 tau), and the variance of a set's mean,
  MSB / K.
- *distance*: for each of some Hamming distances, P pairs of masks that far apart: c(h).

Across sequences n the means y_n of the R random gradients give the data variance. Their variance is delta^2
plus what the masks leave in them: E S_y^2 = delta^2 + mean of sigma_n^2 / R (the law of total variance).
S_y^2 is summed up from squared recursive residuals, w_n = (n - 1) / n |y_n - (mean of the first n - 1)|^2, n
>= 2, each of which has the expectation of S_y^2 and whose mean is S_y^2 exactly (Welford 1962; Brown, Durbin
& Evans 1975, equation 2). So one number for each sequence is kept here too: results of several processes are
joined without any gradient, and sequences can be left out.

Everything is summed as it comes. At most four vectors as long as a gradient are in memory, the gradient at
hand among them: 16 bytes a parameter in float32, 1.8 GB for BERT-base. Where that is too much, `CountSketch`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fmlm_cli import keys

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Family = Literal["random", "segments", "distance"]

_CHUNK = 1 << 20  # entries that are widened to float64 at a time


@dataclass(frozen=True)
class Draw:
    """Which gradient of a sequence is meant: a member of an independent group of a family.

    `distance`: how far apart the masks of a pair are, as a share of the largest Hamming distance 2 tau, from
    0 (the same mask) to 1 (no token in common); 0 in the other families.
    """

    family: Family
    group: int
    member: int = 0
    distance: float = 0.0


# The gradients of some draws of a sequence, in order: float32[parameters] each, or one
# float32[draws, parameters]. They are taken one at a time, so a generator may hand out the same memory again.
Gradients = Callable[[int, Sequence[Draw]], Iterable[Tensor]]


@dataclass(frozen=True)
class GradientPlan:
    """Gradients of each sequence: `random` R; `sets` S of `segments` K; `pairs` P at each of `distances`."""

    random: int = 8
    segments: int = 7
    sets: int = 2
    distances: tuple[float, ...] = ()
    pairs: int = 2

    def __post_init__(self) -> None:
        for name in ("random", "segments", "sets", "pairs"):
            if getattr(self, name) < 2:
                raise ValueError(f"gradient variance: {name} must be at least 2, not {getattr(self, name)}")
        if not all(0 <= h <= 1 for h in self.distances) or len(set(self.distances)) < len(self.distances):
            raise ValueError(f"distances are different shares from 0 to 1, not {self.distances}")

    @property
    def gradients(self) -> int:
        """Gradients computed for each sequence."""
        return self.random + self.sets * self.segments + 2 * self.pairs * len(self.distances)


@dataclass(frozen=True, eq=False)
class Records:
    """What was measured on each of N sequences; units are those of a squared gradient.

    `sequences`: int64[N]. `random`: float64[N], sample variance of the random gradients. `recursive`:
    float64[N], squared recursive residuals of the sequences' mean gradients, NaN for the first of each call
    of `measure`. `segments`, `distances`: float64[N, 2], float64[N, H, 2], mean squares between and within
    the groups. `parameters`: length of a gradient. `sketch`: dimension it was projected to, 0 if it was not.
    """

    plan: GradientPlan
    parameters: int
    sketch: int
    sequences: Int64s
    random: Floats
    recursive: Floats
    segments: Floats
    distances: Floats

    @property
    def relative_error(self) -> float:
        """Standard deviation, at most, that the sketch adds to any variance, relative to it; 0 if exact."""
        return math.sqrt(2 / self.sketch) if self.sketch else 0.0

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As named arrays, for .npz or safetensors."""
        plan = {
            f"plan.{field.name}": np.asarray(getattr(self.plan, field.name)) for field in fields(GradientPlan)
        }
        return plan | {
            field.name: np.asarray(getattr(self, field.name))
            for field in fields(self)
            if field.name != "plan"
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "Records":
        """The inverse of `to_arrays`."""
        plan = GradientPlan(
            **{name: int(arrays[f"plan.{name}"]) for name in ("random", "segments", "sets", "pairs")},
            distances=tuple(np.asarray(arrays["plan.distances"], np.float64).tolist()),
        )
        counts: Any = {name: int(arrays[name]) for name in ("parameters", "sketch")}
        names = ("sequences", "random", "recursive", "segments", "distances")
        columns: Any = {name: np.asarray(arrays[name]) for name in names}
        return cls(plan, **counts, **columns)

    @classmethod
    def joined(cls, parts: Sequence["Records"]) -> "Records":
        """The records of several calls of `measure`. ValueError if they do not go together."""
        if not parts:
            raise ValueError("no records to join")
        first = parts[0]
        for part in parts:
            if (part.plan, part.parameters, part.sketch) != (first.plan, first.parameters, first.sketch):
                raise ValueError("records of different plans, models or sketches cannot be joined")

        def stack(name: str) -> Any:
            return np.concatenate([getattr(part, name) for part in parts])

        sequences = stack("sequences")
        if len(np.unique(sequences)) < len(sequences):
            raise ValueError(
                "records to be joined hold a sequence twice: it would count as two independent ones"
            )
        names = ("random", "recursive", "segments", "distances")
        return cls(first.plan, first.parameters, first.sketch, sequences, *map(stack, names))


def measure(
    gradients: Gradients,
    sequences: Sequence[int],
    plan: GradientPlan,
    *,
    sketch: "CountSketch | None" = None,
    on_sequence: Callable[[int], None] | None = None,
) -> Records:
    """Measure different sequences, drawn at random, in one go.

    `gradients` is asked, in turn, for the R random masks of a sequence, each of its sets of segments, and
    each pair. Every call spends its first sequence on having something to compare means with: give it a dozen
    or more. What several sequences are weighted by is the caller's: for the exact loss, what is handed over
    for a gradient is its `RatioResiduals`. `on_sequence(n)` is called when a sequence is done.

    ValueError for gradients that are not finite, in less than float32, or not as many as were asked for.
    """
    across, rows, size = _Running(), [], 0
    for sequence in sequences:
        source = _Source(gradients, sequence, sketch)
        rows.append(_measure_one(source, plan, across))
        size = source.size
        if on_sequence is not None:
            on_sequence(sequence)
    numbers = np.array(rows, np.float64).reshape(len(rows), 4 + 2 * len(plan.distances))
    numbers[:1, 1] = np.nan  # there was nothing to compare the first mean with
    sketched = sketch.dimension if sketch is not None and size > sketch.dimension else 0
    return Records(
        plan,
        size,
        sketched,
        np.asarray(sequences, np.int64),
        random=numbers[:, 0],
        recursive=numbers[:, 1],
        segments=numbers[:, 2:4],
        distances=numbers[:, 4:].reshape(len(rows), len(plan.distances), 2),
    )


def _measure_one(source: "_Source", plan: GradientPlan, across: "_Running") -> list[float]:
    """A sequence's row of numbers; `across` takes up its mean."""
    masks = _Running.of(source(tuple(Draw("random", group) for group in range(plan.random))))
    row = [masks.squares / (plan.random - 1), across.add(masks.mean)]
    del masks  # a vector less while groups are measured
    sets = (tuple(Draw("segments", group, k) for k in range(plan.segments)) for group in range(plan.sets))
    row += mean_squares(source(draws) for draws in sets)
    for h in plan.distances:
        pairs = (tuple(Draw("distance", group, k, h) for k in range(2)) for group in range(plan.pairs))
        row += mean_squares(source(draws) for draws in pairs)
    if not all(map(math.isfinite, row)):
        raise ValueError(f"gradient variance: a gradient of sequence {source.sequence} is not finite")
    return row


def mean_squares(groups: Iterable[Iterable[Tensor]]) -> tuple[float, float]:
    """Mean squares between and within groups of as many vectors each, summed over coordinates: (MSB, MSW)."""
    across, within, members = _Running(), 0.0, 0
    for group in groups:
        squares, members = _take_up(group, across)
        within += squares
    return members * across.squares / (across.count - 1), within / (across.count * (members - 1))


def _take_up(group: Iterable[Tensor], across: "_Running") -> tuple[float, int]:
    """Add a group's mean to `across`; its sum of squares and its number. Nothing of it is kept beyond."""
    inside = _Running.of(group)
    across.add(inside.mean)
    return inside.squares, inside.count


@dataclass(frozen=True, eq=False)
class RatioResiduals:
    """What the gradient of one masked row adds to the deviation of a step's gradient from its mean.

    The exact loss makes a step's gradient a ratio, R = sum G_i / sum c_i, with G_i the gradient of row i's
    *summed* loss and c_i its number of masked tokens. To first order, R less gbar = E G / E c is the mean
    over rows of (G_i - c_i gbar) / tau, with one tau = E c (Taylor linearisation of a ratio: Woodruff 1971;
    Cochran 1977, "Sampling Techniques", chapter 6).

    G_i / tau alone has a variance that no step has, about |gbar|^2 Var(c) / tau^2, and G_i over a tau of its
    own row makes short rows count too much. Where all counts are equal, residuals are G_i / tau less a
    constant.
    """

    mean: Tensor  # gbar, float[parameters]: the mean gradient of a masked token
    tau: float  # masked tokens of a row, on average

    @classmethod
    def of(cls, gradients: Tensor, count: int, tau: float) -> "RatioResiduals":
        """From the sum of some rows' gradients G_i, which is copied, and of their counts."""
        return cls(gradients / max(count, 1), tau)  # no token, no gradient

    def __call__(self, gradient: Tensor, count: int) -> Tensor:
        """The residual of a gradient G_i of `count` tokens, in its memory."""
        return gradient.sub_(self.mean, alpha=count).div_(self.tau)


class _Running:
    """Mean of vectors, and sum of their squared distances from it (Welford 1962), without keeping any.

    The distances are what is squared, so a long mean does not cancel what varies: its own rounding, in the
    vectors' type, changes `squares` by about 1e-7 |mean| / (root mean squared distance) of itself in float32.
    """

    def __init__(self) -> None:
        self.count, self.squares = 0, 0.0
        self._mean: Tensor | None = None

    @classmethod
    def of(cls, vectors: Iterable[Tensor]) -> "_Running":
        running = cls()
        for vector in vectors:
            running.add(vector)
        return running

    @property
    def mean(self) -> Tensor:
        assert self._mean is not None
        return self._mean

    def add(self, vector: Tensor) -> float:
        """Take up a vector; what it adds to `squares`."""
        self.count += 1
        if self._mean is None:
            self._mean = vector.clone()
            return 0.0
        sums = []
        for part, mean in zip(vector.split(_CHUNK), self._mean.split(_CHUNK), strict=True):
            away = part - mean
            mean.add_(away, alpha=1 / self.count)
            away = away.to(_widest(away.device))
            sums.append(away.dot(away))
        added = math.fsum(torch.stack(sums).tolist()) * (self.count - 1) / self.count
        self.squares += added
        return added


def _widest(device: torch.device) -> torch.dtype:
    """What squares are summed in: float64, where a device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


class _Source:
    """Gradients of one sequence, checked and projected as they come."""

    def __init__(self, gradients: Gradients, sequence: int, sketch: "CountSketch | None") -> None:
        self.sequence, self.size = sequence, 0
        self._gradients, self._sketch = gradients, sketch

    def __call__(self, draws: Sequence[Draw]) -> Iterator[Tensor]:
        number = 0
        for gradient in self._gradients(self.sequence, draws):
            if gradient.ndim != 1 or gradient.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"a gradient is a vector of float32, not {gradient.dtype} of shape "
                    f"{tuple(gradient.shape)}"
                )
            self.size, number = len(gradient), number + 1
            yield gradient.detach() if self._sketch is None else self._sketch(gradient.detach())
        if number != len(draws):
            raise ValueError(
                f"{len(draws)} gradients of sequence {self.sequence} were asked for, {number} came"
            )


class CountSketch:
    """A linear projection of vectors to `dimension` entries that keeps inner products on average.

    Entry i of a vector is added, with a random sign, to a random entry of the projection (Charikar, Chen &
    Farach-Colton 2002; as a projection for inner products: Weinberger et al. 2009, "Feature Hashing for Large
    Scale Multitask Learning", lemma 2). Over signs and places, E |Sx|^2 = |x|^2 with a standard deviation of
    at most sqrt(2 / dimension) |x|^2: 1.1 % for 16384. A sum of many vectors' squared lengths errs less, as
    far as they point in different directions. It is linear and the same for all vectors, so every estimator
    applies to the projections.

    Whole stretches of `dimension` entries are placed by one random rotation each: entries of different
    stretches meet with probability 1 / dimension, as they should, and those of one never. Signs are kept, a
    byte an entry. A vector that is no longer than `dimension` stays as it is. The choices are a function of
    `seed`.
    """

    def __init__(self, dimension: int = 16384, seed: int = 0) -> None:
        if dimension < 1:
            raise ValueError(f"a sketch needs at least 1 dimension, not {dimension}")
        self.dimension, self.seed = dimension, seed
        self._signs = torch.zeros(0, dtype=torch.int8)

    def __call__(self, vector: Tensor) -> Tensor:
        """Project float[n] to float[dimension]."""
        size, width = len(vector), self.dimension
        if size <= width:
            return vector
        if len(self._signs) != size or self._signs.device != vector.device:
            self._signs = self._draw_signs(size).to(vector.device)
        place = torch.arange(width, device=vector.device)
        projected = vector.new_zeros(width)
        block = width * max(1, _CHUNK // width)
        for begin in range(0, size, block):
            part = vector[begin : begin + block] * self._signs[begin : begin + block]
            part = torch.nn.functional.pad(part, (0, -len(part) % width)).view(-1, width)
            first = begin // width
            turns = keys.bits(
                keys.derive(self.seed, keys.Stream.SKETCH_TURNS), np.arange(first, first + len(part))
            )
            turn = keys.below(turns, width)
            turned = (place - torch.from_numpy(turn).to(vector.device)[:, None]) % width
            projected += part.gather(1, turned).sum(0)
        return projected

    def _draw_signs(self, size: int) -> Tensor:
        """A random sign for every entry: int8[size]."""
        key = keys.derive(self.seed, keys.Stream.SKETCH_SIGNS)
        words = keys.bits(key, np.arange(-(-size // 64)))
        bits = np.unpackbits(words.astype("<u8").view(np.uint8), count=size)
        return torch.from_numpy(bits.view(np.int8)) * 2 - 1

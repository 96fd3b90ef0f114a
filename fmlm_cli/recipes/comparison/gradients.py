"""Gradient variance of a masked LM on rows of a store: masks, and gradients for `analysis.gradient_noise`.

What is measured is the noise of a step's gradient under the exact loss, R = sum G_i / sum c_i: G_i is the
gradient of the cross-entropy *summed* over the c_i masked tokens of row i. Numerator and denominator both
vary: rows differ in length, and the random masks of words or spans in how many tokens they have. To first
order (delta method)

    R - gbar = (sum G_i - gbar sum c_i) / sum c_i = about sum of (G_i - c_i gbar) / (B tau),
    gbar = E G / E c, tau = E c

for a step of B rows, as the numerator is near 0 and the denominator near its mean (Woodruff 1971, JASA 66;
Cochran 1977, "Sampling Techniques", chapter 6). So a gradient is taken as its residual (G_i - c_i gbar) /
tau, with one tau for all rows, the mean of n_i / K: `RatioResiduals`. Long rows count for more, as in a step.
The residuals of a set's K segments have the row's n tokens in their mean, each predicted once; a gradient
made of a part for each token has no variance there, whatever the segments' sizes.

gbar and tau come from the first 64 rows of the order (`_TYPICAL`), whichever rows are measured, so that cells
share them. gbar is estimated in a pass ahead, of 2 random masks a row, drawn by a seed of its own; a sketch
is linear and projects residuals. What is wrong in the estimate, e, adds |e|^2 Var(c) / tau^2 to a variance:
for spans (0.15) and 64 rows, 0.002 of the masks'. gbar is one more vector as long as a gradient: with those
of `measure` 20 bytes a parameter, beside the weights.

Masks by family (see `Family`), all of rate 1/K and of one unit, with independent draws of masks
and corruption:

- *random*: random masking, a pass each. *segments*: full exploration with scope batch, a pass each.
- *distance*: `masking.pairs`. At distance 0 both members have the same mask, and corruption each of its own.
  Where that is [MASK] alone they show the same tokens: their covariance is the variance exactly, a control of
  the measurement.

Every row is forwarded alone, in float32, without dropout. On a CPU that is as good as anything: for the 7
segments of a row of 64 tokens and a 6-layer model of 23 million parameters, one forward of all and a backward
for each took 2.3 times as long, and `torch.func.vmap` over their gradients saved a sixth, for 7 gradients in
memory instead of one.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fmlm_cli import keys
from fmlm_cli.analysis.gradient_noise.measuring import (
    CountSketch,
    Draw,
    Family,
    GradientPlan,
    RatioResiduals,
    Records,
    measure,
)
from fmlm_cli.corpus.rows.reading import RowReader, Rows
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.engine.batch import Batch
from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.masking import (
    Corruption,
    Spans,
    Strategy,
    StrategySettings,
    Tokens,
    Unit,
    Words,
    full_exploration,
    random_exploration,
)
from fmlm_cli.masking.pairs import MaskPairs, shift_of
from fmlm_cli.objectives.masked_lm import MaskedLanguageModelling
from fmlm_cli.recipes.shared.held_out import make_objective

UnitName = Literal["token", "word", "span"]
UNITS: Mapping[str, Unit] = {"token": Tokens(), "word": Words(), "span": Spans()}

_FAMILIES: Mapping[Family, keys.Stream] = {
    "random": keys.Stream.RANDOM_MASKS,
    "segments": keys.Stream.SEGMENT_MASKS,
    "distance": keys.Stream.DISTANCE_MASKS,
}
_TYPICAL, _MASKS = 64, 2  # rows that the mean gradient is estimated from, and masks of each
_BLOCK = 256  # rows looked through at a time


@dataclass(frozen=True)
class VarianceRequest:
    """What to measure. A sequence takes `random` + `sets` K + 2 `pairs` len(`distances`) gradients.

    `sequences` of the rows, from number `first` of a fixed random order on, so that cells share the work.
    `random` masks, `sets` of the K segments, `pairs` at each of `distances`, which are shares of the largest,
    2 tau, in quarters. `sketch`: entries that a gradient is projected to, to save memory; None keeps it
    whole. ValueError for what cannot be.
    """

    sequences: int
    random: int
    sets: int
    pairs: int
    distances: tuple[float, ...]
    sketch: int | None
    first: int

    def __post_init__(self) -> None:
        if self.sequences < 1 or self.first < 0:
            raise ValueError(
                f"gradient variance: {self.sequences} sequences from number {self.first} on are none"
            )
        if self.sketch is not None and self.sketch < 1:
            raise ValueError(f"a sketch needs at least 1 dimension, not {self.sketch}")
        for distance in self.distances:
            shift_of(distance)
        self.plan(2)

    def plan(self, segments: int) -> GradientPlan:
        """The gradients of each sequence, for K segments."""
        return GradientPlan(
            random=self.random,
            segments=segments,
            sets=self.sets,
            distances=self.distances,
            pairs=self.pairs,
        )

    def gradients(self, segments: int) -> int:
        """Gradients of single rows that a measurement takes, those of the mean gradient among them."""
        of_row = self.random + self.sets * segments + 2 * self.pairs * len(self.distances)
        return self.sequences * of_row + _TYPICAL * _MASKS


@dataclass(frozen=True)
class ChosenRows:
    """Rows to measure. `left_out`: of the rows `looked_at`, those with fewer than 2 K maskable tokens."""

    rows: Rows
    left_out: int
    looked_at: int

    def __len__(self) -> int:
        return len(self.rows.numbers)


def choose_rows(reader: RowReader, segments: int, request: VarianceRequest, *, seed: int) -> ChosenRows:
    """The sequences of a request: rows in an order drawn by `seed`, without those too short for K segments.

    A row with fewer than 2 K maskable tokens has segments of one token or none. Fewer than asked for, or
    none, where the rows do not suffice; `left_out` counts from the order's beginning, whatever `first` is.
    """
    parts, gathered, left_out, looked_at = [], 0, 0, 0
    end, key = request.first + request.sequences, keys.derive(seed, keys.Stream.MEASURED_ROWS)
    while gathered < end and looked_at < len(reader):
        place = np.arange(looked_at, min(looked_at + _BLOCK, len(reader)))
        rows = reader.read(keys.permute(place, len(reader), key))
        long_enough = np.flatnonzero(rows.maskable.sum(axis=1) >= 2 * segments)
        if gathered + len(long_enough) >= end:  # the order's later rows are not looked at
            long_enough = long_enough[: end - gathered]
            place = place[: long_enough[-1] + 1]
        parts.append(rows.take(long_enough))
        gathered += len(long_enough)
        left_out += len(place) - len(long_enough)
        looked_at += len(place)
    every = Rows.joined(parts) if parts else reader.read(np.arange(0))
    return ChosenRows(every.take(np.arange(request.first, max(gathered, request.first))), left_out, looked_at)


def measure_gradient_variance(
    model: nn.Module,
    reader: RowReader,
    store: TokenStore,
    *,
    unit: UnitName,
    segments: int,
    corruption: Corruption,
    request: VarianceRequest,
    seed: int,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> Records:
    """Measure gradients over all trainable parameters on rows of `reader`; `Estimates` makes the figures.

    `model`: a `MaskedLM`, or what is called like one, with float32 weights on `device`; it is left as it was,
    its gradients and its modes included. `segments` K. `progress(n)` is told how many sequences are done.
    Masks, and which rows, are a function of `seed`; the records' sequences are the rows' numbers. Those of
    several requests that differ in `first` and `sequences` alone can be joined, and are those of one request
    but for `recursive`, which starts anew in each.

    UserError for a unit the store cannot give, or where no row is long enough; ValueError for a model without
    trainable float32 weights, or gradients that are not finite.
    """
    if unit not in UNITS:
        raise unknown_name("unit", unit, UNITS)
    if segments < 2:
        raise ValueError(f"gradient variance: it takes at least 2 segments, not {segments}")
    measured_rows = choose_rows(reader, segments, request, seed=seed)
    if not len(measured_rows):
        raise UserError(
            f"gradient variance: no row is left from number {request.first} on: "
            f"{measured_rows.looked_at - measured_rows.left_out} rows have at least {2 * segments} maskable "
            f"tokens, two for each of {segments} segments, and {measured_rows.left_out} have fewer; ask for "
            "longer rows, fewer segments or fewer sequences"
        )
    typical = choose_rows(reader, segments, replace(request, sequences=_TYPICAL, first=0), seed=seed).rows
    done = itertools.count(1)
    with row_gradients(
        model, measured_rows.rows, typical, store, UNITS[unit], segments, corruption, request, seed, device
    ) as gradients:
        return measure(
            gradients,
            measured_rows.rows.numbers.tolist(),
            request.plan(segments),
            sketch=sketch_of(request, seed),
            on_sequence=None if progress is None else lambda _: progress(next(done)),
        )


def sketch_of(request: VarianceRequest, seed: int) -> CountSketch | None:
    """What gradients are projected by, if a request asks for that."""
    if request.sketch is None:
        return None
    return CountSketch(request.sketch, int(keys.derive(seed, keys.Stream.SKETCH)))


@contextmanager
def row_gradients(
    model: nn.Module,
    rows: Rows,
    typical: Rows,
    store: TokenStore,
    unit: Unit,
    segments: int,
    corruption: Corruption,
    request: VarianceRequest,
    seed: int,
    device: torch.device,
) -> Iterator["_RowGradients"]:
    """The gradients of these rows, less the mean one of the `typical` ones."""
    settings = StrategySettings("gradient variance", 1 / segments, corruption=corruption)
    objectives = _objectives(store, settings, unit, segments, request.distances, seed)
    of_mean = _objective(store, random_exploration(unit)(settings), seed, keys.Stream.MEAN_MASKS)
    with _gradient_buffer(model, device) as buffer:
        residuals = _residuals(model, typical, of_mean, segments, device, buffer)
        yield _RowGradients(model, rows, objectives, residuals, device, buffer)


def _objectives(
    store: TokenStore,
    settings: StrategySettings,
    unit: Unit,
    segments: int,
    distances: Sequence[float],
    seed: int,
) -> Mapping[tuple[Family, float], MaskedLanguageModelling]:
    """Masked LM by family and distance, the masks of each drawn by a seed of its own."""
    strategies: dict[tuple[Family, float], Strategy] = {
        ("random", 0.0): random_exploration(unit)(settings),
        ("segments", 0.0): full_exploration(unit)(replace(settings, scope="batch")),
    }
    for distance in distances:
        strategies["distance", distance] = MaskPairs.of(settings, unit, segments, distance)
    return {
        (family, distance): _objective(store, strategy, seed, _FAMILIES[family], shift_of(distance))
        for (family, distance), strategy in strategies.items()
    }


def _objective(store: TokenStore, strategy: Strategy, seed: int, *stream: int) -> MaskedLanguageModelling:
    return make_objective(store, strategy, int(keys.derive(seed, *stream)), static_shapes=False)


def _residuals(
    model: nn.Module,
    rows: Rows,
    objective: MaskedLanguageModelling,
    segments: int,
    device: torch.device,
    buffer: Tensor,
) -> RatioResiduals:
    """Residuals from the mean gradient of these rows' masked tokens; it is summed up in `buffer`."""
    buffer.zero_()
    count = 0
    for group in range(_MASKS):
        for batch in objective.prepare_singly(rows, group):
            count += _add_gradient(model, objective, batch, device)
    return RatioResiduals.of(buffer, count, tau=float(rows.maskable.sum(axis=1).mean()) / segments)


def _add_gradient(
    model: nn.Module, objective: MaskedLanguageModelling, batch: Batch, device: torch.device
) -> int:
    """Add the gradient of a batch's summed loss to that of the weights; its number of masked tokens."""
    if batch.count:  # the gradient of nothing is zero
        with torch.enable_grad():
            loss = objective.loss(model, batch.to(device))
        loss.backward()
    return batch.count


@dataclass(frozen=True, eq=False)
class _RowGradients:
    """`Gradients` of these rows: every residual in turn in the same memory, `buffer`."""

    model: nn.Module
    rows: Rows
    objectives: Mapping[tuple[Family, float], MaskedLanguageModelling]
    residuals: RatioResiduals
    device: torch.device
    buffer: Tensor  # float32[parameters], whose parts are the parameters' .grad

    def __call__(self, sequence: int, draws: Sequence[Draw]) -> Iterator[Tensor]:
        row = self.rows.take(np.flatnonzero(self.rows.numbers == sequence))
        for (family, distance, group), members in itertools.groupby(
            draws, lambda draw: (draw.family, draw.distance, draw.group)
        ):
            objective = self.objectives[family, distance]
            batches = objective.prepare_singly(row, group)
            for draw in members:
                self.buffer.zero_()
                count = _add_gradient(self.model, objective, batches[draw.member], self.device)
                yield self.residuals(self.buffer, count)


@contextmanager
def _gradient_buffer(model: nn.Module, device: torch.device) -> Iterator[Tensor]:
    """Zeros float32[parameters] that backward adds gradients to, those of each trainable parameter once.

    Dropout is off meanwhile. Afterwards the model has the gradients and modes that it had.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]  # tied ones once
    if not weights or any(weight.dtype != torch.float32 for weight in weights):
        raise ValueError(
            "gradient variance is measured on trainable weights in float32, and the model has others"
        )
    before = [weight.grad for weight in weights]
    training = [module for module in model.modules() if module.training]
    precision = torch.get_float32_matmul_precision()
    buffer = torch.zeros(sum(weight.numel() for weight in weights), device=device)
    try:
        for weight, part in zip(weights, buffer.split([w.numel() for w in weights]), strict=True):
            weight.grad = part.view_as(weight)
        model.eval()
        torch.set_float32_matmul_precision("highest")
        yield buffer
    finally:
        torch.set_float32_matmul_precision(precision)
        for weight, gradient in zip(weights, before, strict=True):
            weight.grad = gradient
        for module in training:
            module.training = True

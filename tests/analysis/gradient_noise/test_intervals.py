"""How often intervals over rows hold the truth, by simulation of the records of measured rows.

Gradients are normal and isotropic in D dimensions. Then mean squares are chi-squared variables, independent
of each other, and only the rows' mean gradients have to be drawn as vectors.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from fmlm_cli.analysis.gradient_noise.estimators import Estimates
from fmlm_cli.analysis.gradient_noise.measuring import Draw, GradientPlan, Records, measure
from fmlm_cli.analysis.statistics import ROWS_TO_TRUST, Floats, Interval

PLAN = GradientPlan(random=8, segments=7, sets=2, distances=(1.0,), pairs=2)
K, SIZE = PLAN.segments, 50  # D
RATIO = 0.34  # full / random, on average over rows
TRIALS = 4000


@dataclass(frozen=True)
class RowsWorld:
    """Rows with the mask noise sigma_n^2 = exp(spread z_n), z_n normal.

    The data's part of a row's gradient has delta^2 = `data` sigma_n^2 where it `grows`, else `data` times the
    mean of sigma_n^2.
    """

    spread: float
    grows: bool = False
    data: float = 0.2

    def rows(self, rng: np.random.Generator, *shape: int) -> tuple[Floats, Floats, Floats]:
        """sigma_n^2, the correlation of two segments, and delta_n^2, of each row."""
        sigma2 = np.exp(self.spread * rng.standard_normal(shape))
        ratio = RATIO + rng.uniform(-0.2, 0.2, shape)
        delta2 = self.data * (sigma2 if self.grows else np.full(shape, math.exp(self.spread**2 / 2)))
        return sigma2, (ratio - 1) / (K - 1), delta2

    def records(self, rng: np.random.Generator, rows: int) -> Iterator[Records]:
        """Those of one experiment after another."""
        while True:
            sigma2, correlation, delta2 = self.rows(rng, rows)

            def mean_square(freedom: int, expected: Floats) -> Floats:
                return expected * rng.chisquare(freedom * SIZE, rows) / (freedom * SIZE)

            means = rng.standard_normal((rows, SIZE))
            means *= np.sqrt((delta2 + sigma2 / PLAN.random) / SIZE)[:, None]
            number = np.arange(1, rows)
            away = means[1:] - means.cumsum(axis=0)[:-1] / number[:, None]
            recursive = number / (number + 1) * (away**2).sum(axis=1)
            groups = [
                mean_square(freedom, sigma2 * share)
                for sets, k in ((PLAN.sets, K), (PLAN.pairs, 2))
                for freedom, share in (
                    (sets - 1, 1 + (k - 1) * correlation),
                    (sets * (k - 1), 1 - correlation),
                )
            ]
            yield Records(
                PLAN,
                SIZE,
                0,
                np.arange(rows),
                random=mean_square(PLAN.random - 1, sigma2),
                recursive=np.append(np.nan, recursive),
                segments=np.stack(groups[:2], axis=1),
                distances=np.stack(groups[2:], axis=1)[:, None],
            )

    def __call__(self, sequence: int, draws: Sequence[Draw]) -> Tensor:
        """Gradients of a row, as `measure` asks for them."""
        (sigma2,), (correlation,), (delta2,) = self.rows(np.random.default_rng(sequence), 1)
        data = np.random.default_rng([sequence, 1]).normal(0, math.sqrt(delta2 / SIZE), SIZE)
        rng = np.random.default_rng([sequence, 2, *map(ord, draws[0].family), draws[0].group])
        masks = rng.normal(0, math.sqrt(sigma2 / SIZE), (len(draws), SIZE))
        if draws[0].family != "random":  # independent about their mean, which has the variance that is left
            mean = masks.mean(axis=0)
            masks = (masks - mean) * math.sqrt(1 - correlation)
            masks += mean * math.sqrt(1 + (len(draws) - 1) * correlation)
        return torch.from_numpy(data + masks)

    @property
    def truth(self) -> dict[str, float]:
        """What `figures` are to be held against."""
        return {
            "ratio": RATIO,
            "data / masks": self.data,
            "random masks": K * (self.data + 1 / K) / (1 + self.data),
            "segments": K * (self.data + RATIO / K) / (1 + self.data),
            "correlation": (RATIO - 1) / (K - 1),
        }


def figures(records: Records) -> dict[str, Interval]:
    """The intervals that are looked at."""
    estimates = Estimates(records)
    at_once = estimates.equal_compute()
    return {
        "ratio": estimates.variance_ratio(),
        "data / masks": estimates.components().ratio,
        "random masks": at_once.random_masks,
        "segments": at_once.segments,
        "correlation": estimates.correlations()[0].value,
    }


@pytest.mark.slow
def test_simulated_records_have_the_law_of_measured_ones() -> None:
    """Means, spreads and how much goes together, of 1200 simulated rows and as many with all their vectors."""
    world, rows = RowsWorld(0.6), 100
    rng = np.random.default_rng(0)
    simulated = world.records(rng, rows)

    def columns(records: Records) -> Floats:
        between, within = records.distances[1:, 0].T
        parts = (records.random[1:], records.recursive[1:], *records.segments[1:].T, between, within)
        return np.log(np.stack(parts))

    made = np.concatenate([columns(next(simulated)) for _ in range(12)], axis=1)
    cells = (range(first, first + rows) for first in range(0, 12 * rows, rows))
    measured = np.concatenate([columns(measure(world, cell, PLAN)) for cell in cells], axis=1)
    error = 4 * math.sqrt(2 / made.shape[1])
    assert np.abs(made.mean(axis=1) - measured.mean(axis=1)) == pytest.approx(0, abs=error * 0.65)
    assert made.std(axis=1) / measured.std(axis=1) == pytest.approx(1, abs=error)
    assert np.corrcoef(made) == pytest.approx(np.corrcoef(measured), abs=error)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [ROWS_TO_TRUST, 100])
@pytest.mark.parametrize("world", [RowsWorld(0.6), RowsWorld(0.6, grows=True), RowsWorld(1.2)])
def test_intervals_hold_the_truth_as_often_as_they_say(world: RowsWorld, rows: int) -> None:
    """Those of 95 % in 0.93 to 0.96 of experiments, within four standard errors of the simulation."""
    experiments = world.records(np.random.default_rng(rows), rows)
    held = dict.fromkeys(world.truth, 0)
    for _ in range(TRIALS):
        found = figures(next(experiments))
        for name, truth in world.truth.items():
            held[name] += found[name].low < truth < found[name].high
    error = 4 * math.sqrt(0.95 * 0.05 / TRIALS)
    for name, number in held.items():
        assert 0.93 - error < number / TRIALS < 0.96 + error, (name, number / TRIALS)


@pytest.mark.slow
def test_percentiles_of_resampled_rows_do_not() -> None:
    """What `Estimates` had before, in the same experiments: its shares are outside those bounds."""
    world, rng = RowsWorld(1.2), np.random.default_rng(ROWS_TO_TRUST)
    experiments, trials = world.records(rng, ROWS_TO_TRUST), 1000
    share = np.full(ROWS_TO_TRUST, 1 / ROWS_TO_TRUST)
    times = np.random.default_rng(0).multinomial(ROWS_TO_TRUST, share, size=1000)
    held = 0
    for _ in range(trials):
        records = next(experiments)
        recursive = times[:, 1:] @ records.recursive[1:] / times[:, 1:].sum(axis=1)
        resampled = recursive / (times @ records.random / ROWS_TO_TRUST) - 1 / PLAN.random
        low, high = np.quantile(resampled, [0.025, 0.975])
        held += low < world.truth["data / masks"] < high
    assert held / trials < 0.93 - 4 * math.sqrt(0.95 * 0.05 / TRIALS)

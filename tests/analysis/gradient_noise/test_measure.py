"""Gradient variance measured: against plain loops, in little memory, kept and joined, sketched."""

import gc
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fmlm_cli.analysis.gradient_noise import measuring as variance
from fmlm_cli.analysis.gradient_noise.estimators import Estimates
from fmlm_cli.analysis.gradient_noise.measuring import (
    CountSketch,
    Draw,
    GradientPlan,
    Records,
    mean_squares,
    measure,
)
from tests.analysis.gradient_noise.worlds import LENGTH, PLAN, World


@settings(max_examples=40)
@given(
    groups=st.integers(2, 4),
    members=st.integers(2, 4),
    shift=st.sampled_from([0.0, 1e3]),
    seed=st.integers(0, 999),
)
def test_mean_squares_are_pairwise_statistics(groups: int, members: int, shift: float, seed: int) -> None:
    """c = products within groups minus products across them; sigma^2 - c from differences within groups."""
    vectors = (
        np.random.default_rng(seed)
        .normal(shift, 1, (groups, members, 4))
        .astype(np.float32)
        .astype(np.float64)
    )
    between, within = mean_squares(torch.from_numpy(vectors).float())
    inside, across, apart = [], [], []
    for (s, k), (t, j) in itertools.permutations(itertools.product(range(groups), range(members)), 2):
        product = float((vectors[s, k] - shift) @ (vectors[t, j] - shift))
        (inside if s == t else across).append(product)
        if s == t:
            apart.append(float(((vectors[s, k] - vectors[t, j]) ** 2).sum()) / 2)
    rounding = 2e-3 if shift else 1e-5  # float32 at 1000: 6e-5 an entry
    assert (between - within) / members == pytest.approx(np.mean(inside) - np.mean(across), abs=rounding)
    assert within == pytest.approx(np.mean(apart), abs=rounding)


def test_residuals_sum_up_to_the_sample_variance_of_the_means() -> None:
    world = World.of()
    records = measure(world, range(20), PLAN)
    means = np.stack(
        [world(n, [Draw("random", g) for g in range(PLAN.random)]).mean(0).numpy() for n in range(20)]
    )
    assert np.isnan(records.recursive).nonzero()[0].tolist() == [0]
    assert np.nanmean(records.recursive) == pytest.approx(means.var(axis=0, ddof=1).sum())


def test_records_travel_and_join(tmp_path: Path) -> None:
    world = World.of()
    parts = [measure(world, cell, PLAN) for cell in (range(5), range(5, 12))]
    np.savez(tmp_path / "records.npz", **parts[0].to_arrays())
    with np.load(tmp_path / "records.npz") as arrays:
        again = Records.from_arrays(arrays)
    both = Records.joined([again, parts[1]])
    assert both.plan == PLAN
    assert (both.parameters, both.sketch, both.relative_error) == (LENGTH, 0, 0.0)
    whole = measure(world, range(12), PLAN)
    for name in ("sequences", "random", "segments", "distances"):
        assert np.array_equal(getattr(both, name), getattr(whole, name)), name
    assert np.isnan(both.recursive).nonzero()[0].tolist() == [0, 5]
    with pytest.raises(ValueError, match="a sequence twice"):
        Records.joined([parts[0], parts[0]])
    with pytest.raises(ValueError, match="different plans"):
        Records.joined([parts[0], measure(world, range(20, 22), replace(PLAN, random=2))])
    with pytest.raises(ValueError, match="no records"):
        Records.joined([])
    plain = GradientPlan(random=2, segments=2, sets=2)
    assert Records.from_arrays(measure(world_of_noise, [0], plain).to_arrays()).plan == plain


def world_of_noise(sequence: int, draws: Sequence[Draw]) -> Tensor:
    return torch.randn(len(draws), 4, generator=torch.Generator().manual_seed(sequence))


def test_what_cannot_be_measured_is_refused() -> None:
    plan = GradientPlan(random=2, segments=2, sets=2)

    def spoiled(change: Callable[[Tensor], Tensor]) -> Callable[[int, Sequence[Draw]], Tensor]:
        return lambda n, draws: change(world_of_noise(n, draws))

    for change, message in (
        (lambda g: g.where(g < 1.5, math.inf), "a gradient of sequence [0-9]+ is not finite"),
        (lambda g: g.half(), "not torch.float16 of shape"),
        (lambda g: g[:, None], "of shape"),
        (lambda g: g[1:], "2 gradients of sequence 0 were asked for, 1 came"),
    ):
        with pytest.raises(ValueError, match=message):
            measure(spoiled(change), range(20), plan)
    for bad in ({"random": 1}, {"sets": 1}, {"pairs": 1}, {"segments": 1}):
        with pytest.raises(ValueError, match="must be at least 2, not 1"):
            GradientPlan(**bad)
    for distances in ((1.5,), (0.5, 0.5)):
        with pytest.raises(ValueError, match="different shares"):
            GradientPlan(distances=distances)
    with pytest.raises(ValueError, match="at least 2 of them, not 1"):
        Estimates(measure(world_of_noise, [0], plan))


def test_gradients_are_asked_for_as_planned() -> None:
    asked: list[tuple[int, tuple[Draw, ...]]] = []
    done: list[int] = []

    def gradients(sequence: int, draws: Sequence[Draw]) -> Tensor:
        asked.append((sequence, tuple(draws)))
        return world_of_noise(sequence, draws)

    measure(gradients, [3, 8], PLAN, on_sequence=done.append)
    assert done == [3, 8]
    of_one = [draw for sequence, draws in asked if sequence == 8 for draw in draws]
    assert len(of_one) == len(set(of_one)) == PLAN.gradients == 3 + 2 * 3 + 3 * 2 * 2
    for _, draws in asked:
        if draws[0].family != "random":
            assert len({draw.group for draw in draws}) == 1
            assert [draw.member for draw in draws] == list(range(len(draws)))


def test_no_more_than_a_few_gradients_are_in_memory() -> None:
    size, most = 4321, 0
    memory = torch.empty(size)

    def gradients(sequence: int, draws: Sequence[Draw]) -> Iterator[Tensor]:
        nonlocal most
        for draw in draws:
            live = [x for x in gc.get_objects() if type(x) is Tensor and x.numel() == size]
            most = max(most, len({x.data_ptr() for x in live}))
            memory.normal_(generator=torch.Generator().manual_seed(hash((sequence, draw.group, draw.member))))
            yield memory  # the same memory for all: whoever kept it would see it change

    records = measure(gradients, range(2), PLAN)
    assert most <= 4
    assert records.random == pytest.approx(size, rel=0.2)


@settings(max_examples=25)
@given(size=st.integers(1, 200), dimension=st.sampled_from([1, 7, 16]), seed=st.integers(0, 99))
def test_sketch_is_linear_and_places_every_entry_once(size: int, dimension: int, seed: int) -> None:
    sketch = CountSketch(dimension, seed)
    matrix = torch.stack([sketch(row) for row in torch.eye(size)])
    assert torch.equal(matrix.abs().sum(1), torch.ones(size))
    assert torch.equal(matrix.abs().amax(1), torch.ones(size))
    vector = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(CountSketch(dimension, seed)(vector), vector @ matrix)
    if size <= dimension:
        assert torch.equal(sketch(vector), vector)


def test_sketch_does_not_depend_on_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vector = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    whole = CountSketch(16)(vector)
    monkeypatch.setattr(variance, "_CHUNK", 48)
    torch.testing.assert_close(CountSketch(16)(vector), whole)
    with pytest.raises(ValueError, match="at least 1 dimension"):
        CountSketch(0)


def test_sketch_errs_as_stated() -> None:
    """Over 1000 seeds: no bias, and a standard deviation of at most sqrt(2 / d), for spread and lumpy
    vectors.
    """
    rng, dimension = np.random.default_rng(0), 64
    for vector in (rng.normal(size=600), rng.standard_t(2, 600), np.repeat([1.0, 0.0], [5, 595])):
        one = torch.from_numpy(vector)
        lengths = np.array([float((CountSketch(dimension, seed)(one) ** 2).sum()) for seed in range(1000)])
        lengths /= float((one**2).sum())
        stated = math.sqrt(2 / dimension)
        assert abs(lengths.mean() - 1) < 4 * stated / math.sqrt(1000)
        assert lengths.std() < stated * 1.1
        assert Records(PLAN, 600, dimension, *np.zeros((5, 0))).relative_error == stated


def test_sketched_records_are_those_of_the_whole_gradients() -> None:
    rng = np.random.default_rng(1)
    directions = torch.from_numpy(rng.normal(size=(LENGTH, 3000)) * rng.gamma(1, 1, 3000))
    world = World.of()

    def gradients(sequence: int, draws: Sequence[Draw]) -> Tensor:
        return world(sequence, draws) @ directions

    exact, sketched = (
        measure(gradients, range(30), PLAN, sketch=sketch) for sketch in (None, CountSketch(512))
    )
    assert (exact.sketch, sketched.sketch, sketched.parameters) == (0, 512, 3000)
    error = 4 * sketched.relative_error
    for name in ("random", "segments", "distances"):
        np.testing.assert_allclose(getattr(sketched, name), getattr(exact, name), rtol=error, atol=1e-9)
    one, other = (Estimates(records) for records in (exact, sketched))
    assert other.variance_ratio().value == pytest.approx(one.variance_ratio().value, rel=error)
    assert other.components().data_share.value == pytest.approx(one.components().data_share.value, rel=error)
    assert (
        measure(world, range(2), PLAN, sketch=CountSketch(512)).sketch == 0
    )  # shorter than the sketch: exact

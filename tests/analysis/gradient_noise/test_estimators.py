"""Estimates of gradient variance, against all masks of a world, known controls, steps taken, and a real
model.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fmlm_cli.analysis.gradient_noise.estimators import Estimates, per_sequence
from fmlm_cli.analysis.gradient_noise.measuring import Draw, GradientPlan, measure
from fmlm_cli.analysis.statistics import Interval
from tests.analysis.gradient_noise.worlds import (
    DISTANCES,
    LENGTH,
    MASKS,
    PARTITIONS,
    PLAN,
    K,
    SpanWorld,
    World,
    many,
    near,
)

PLAN_OF_SPANS = GradientPlan(random=4, segments=K, sets=2)


@pytest.mark.parametrize(("noise", "independent"), [(0.0, False), (0.8, False), (0.0, True)])
def test_estimates_are_unbiased(noise: float, independent: bool) -> None:
    """Against all masks of the world, sequence by sequence."""
    world, records = many(noise, independent)
    kinds = np.array([world.kind(n) for n in records.sequences])
    found = per_sequence(records)
    assert near(found.mask_variance, world.sigma2[kinds])
    assert near(found.random_variance, world.sigma2[kinds] / K)
    assert near(found.full_variance, world.full[kinds])
    assert near(found.segment_covariance, 0.0 if independent else world.covariance(1.0)[kinds])
    for place, h in enumerate(DISTANCES):
        assert near(found.pair_covariance[:, place], world.covariance(h)[kinds])
    residuals = records.recursive[~np.isnan(records.recursive)]
    assert len(residuals) == 1100
    assert near(residuals - np.nanmean(records.random) / PLAN.random, world.delta2)


def test_pooled_figures_hold_the_truth() -> None:
    world, records = many(0.8)
    estimates = Estimates(records, level=0.999)
    sigma2, full, delta2 = world.sigma2.mean(), world.full.mean(), world.delta2

    def holds(interval: Interval, truth: float) -> bool:
        return interval.low < truth < interval.high

    assert holds(estimates.variance_ratio(), K * full / sigma2)
    parts = estimates.components()
    assert holds(parts.masks, sigma2)
    assert holds(parts.data, delta2)
    assert holds(parts.ratio, delta2 / sigma2)
    assert holds(parts.data_share, delta2 / (delta2 + sigma2))
    assert holds(estimates.repeated_ratio(), (delta2 + full) / (delta2 + sigma2 / K))
    for correlation in estimates.correlations():
        assert holds(correlation.value, world.covariance(correlation.distance).mean() / sigma2)


def test_identity_holds() -> None:
    for noise, independent in ((0.0, False), (0.8, False)):
        identity = Estimates(many(noise, independent)[1]).identity()
        assert identity.left.high < 1
        assert identity.difference.against(0) == "undecided"
        assert identity.difference_of_pairs is not None
        assert identity.difference_of_pairs.against(0) == "undecided"
        assert identity.difference.value == pytest.approx(identity.left.value - identity.right.value)


def test_independent_masks_have_ratio_one() -> None:
    estimates = Estimates(many(0.0, True)[1])
    assert estimates.variance_ratio().against(1) == "undecided"
    assert estimates.repeated_ratio().against(1) == "undecided"
    assert abs(estimates.variance_ratio().value - 1) < 0.1


def test_a_gradient_that_adds_up_over_tokens_leaves_full_exploration_no_variance() -> None:
    """A sum over tokens, divided by a fixed number: the K segments of any partition have the same mean."""
    world = World.of(pair=0.0)

    def as_float32(sequence: int, draws: Sequence[Draw]) -> Tensor:
        return world(sequence, draws).float()

    for gradients, rounding in ((world, 1e-20), (as_float32, 1e-10)):
        estimates = Estimates(measure(gradients, range(40), PLAN))
        ratio = estimates.variance_ratio()
        assert 0 <= ratio.value <= ratio.high < rounding
        assert np.all(per_sequence(estimates.records).full_variance < rounding)
        found = per_sequence(estimates.records).segment_covariance
        assert near(found, -world.sigma2[[world.kind(n) for n in range(40)]] / (K - 1))


def test_identical_masks_and_corruption_have_the_variance_for_covariance() -> None:
    """Distance 0 without corruption's noise, which is what [MASK] alone makes of it."""
    _, records = many(0.0)
    same = Estimates(records).correlations()[0]
    assert (same.distance, same.value.value, same.value.low, same.value.high) == (0.0, 1.0, 1.0, 1.0)
    assert np.array_equal(records.distances[:, 0, 1], np.zeros(len(records.sequences)))
    # With it, it is the limit of small distances: corruption of its own for each is noise that the pair does
    # not share.
    world, records = many(0.8)
    other = Estimates(records).correlations()[0].value
    assert other.high < 1
    assert other.value == pytest.approx(1 - LENGTH * 0.8**2 / world.sigma2.mean(), abs=0.05)


def test_equal_compute_against_steps_taken() -> None:
    """The two numbers against the spread of 20,000 steps of each kind, and the other schemes against 1."""
    world, records = many(0.0)
    rows, trials, rng = 6, 20_000, np.random.default_rng(0)

    def spread(sequences: int, masks: int, segments: bool) -> float:
        """The variance of the mean gradient of this many sequences with this many masks each."""
        kinds = rng.integers(0, len(world.table), (trials, sequences, 1))
        if segments:
            chosen = np.array(PARTITIONS)[rng.integers(0, len(PARTITIONS), (trials, sequences))][..., :masks]
        else:
            chosen = rng.integers(0, len(MASKS), (trials, sequences, masks))
        return float(world.table[kinds, chosen].mean((1, 2)).var(axis=0).sum())

    estimates = Estimates(records, level=0.999)
    found = estimates.equal_compute()
    yardstick = spread(rows, 1, False)
    assert spread(rows, 1, True) == pytest.approx(yardstick, rel=0.05)  # one segment: a random mask
    for number, segments in ((found.random_masks, False), (found.segments, True)):
        in_one_step = spread(rows // K, K, segments) / yardstick
        over_a_window = spread(rows, K, segments) / spread(K * rows, 1, False)
        assert number.value == pytest.approx(in_one_step, rel=0.1)
        assert number.value == pytest.approx(over_a_window, rel=0.1)
        assert number.low < in_one_step < number.high
    assert 1 < found.segments.high < found.random_masks.low
    ratio = found.segments.value / found.random_masks.value
    assert ratio == pytest.approx(estimates.repeated_ratio().value)


def test_residuals_have_the_variance_of_steps() -> None:
    """Rows of unequal length and masks of varying size: against 20,000 gradients of steps, sum G / sum c."""
    world, rows = SpanWorld.of(noise=0.7), 60

    def estimates(scale: Callable[[Tensor, int], Tensor]) -> Estimates:
        def gradients(sequence: int, draws: Sequence[Draw]) -> list[Tensor]:
            return [scale(*each) for each in world.gradients(sequence, draws)]

        return Estimates(measure(gradients, range(1500), PLAN_OF_SPANS))

    def variance(found: Estimates) -> float:
        parts = found.components()
        return (parts.masks.value + parts.data.value) / rows

    def spread(*kind: int) -> float:
        return float(world.steps(20_000, *kind, segments=False).var(axis=0).sum())

    residuals = world.residuals
    found = estimates(residuals)
    yardstick = spread(rows, 1)
    assert variance(found) == pytest.approx(yardstick, rel=0.06)
    of_segments = float(world.steps(20_000, rows // K, K, segments=True).var(axis=0).sum())
    assert found.equal_compute().segments.value == pytest.approx(of_segments / yardstick, rel=0.1)
    assert found.equal_compute().random_masks.value == pytest.approx(
        spread(rows // K, K) / yardstick, rel=0.1
    )
    # Without the counts' part, the mean gradient's length counts as noise.
    assert variance(estimates(lambda gradient, count: gradient / residuals.tau)) > 3 * yardstick


def test_residuals_that_add_up_over_tokens_leave_full_exploration_no_variance() -> None:
    world = SpanWorld.of(noise=0.0)
    residuals = world.residuals

    def gradients(sequence: int, draws: Sequence[Draw]) -> list[Tensor]:
        return [residuals(*each) for each in world.gradients(sequence, draws)]

    ratio = Estimates(measure(gradients, range(40), PLAN_OF_SPANS)).variance_ratio()
    assert 0 <= ratio.value <= ratio.high < 1e-20


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say() -> None:
    """200 experiments of 30 sequences: about 95 % of the intervals hold the truth."""
    world, plan = World.of(), GradientPlan(random=3, segments=K, sets=2)
    ratio = K * world.full.mean() / world.sigma2.mean()
    share = world.delta2 / (world.delta2 + world.sigma2.mean())
    held = np.zeros(2)
    for trial in range(200):
        records = measure(world, range(10_000 + 30 * trial, 10_030 + 30 * trial), plan)
        estimates = Estimates(records)
        found = estimates.variance_ratio(), estimates.components().data_share
        held += [one.low < truth < one.high for one, truth in zip(found, (ratio, share), strict=True)]
    assert np.all((held / 200 > 0.88) & (held / 200 < 0.99)), held / 200


def test_a_model_at_initialisation_has_hardly_any_variance_left(tiny_store: Path) -> None:
    """[MASK] only, no dropout: its gradient is nearly a sum over tokens (METHOD.md, "First measurements")."""
    from fmlm_cli.corpus.rows.reading import RowReader
    from fmlm_cli.corpus.store.reading import TokenStore
    from fmlm_cli.masking import get_strategy
    from fmlm_cli.masking.corruption import Corruption
    from fmlm_cli.model.build import VocabularyFacts, build_model
    from fmlm_cli.model.masked_lm import MaskedLM
    from fmlm_cli.objectives.masked_lm import MaskedLanguageModelling

    store, segments = TokenStore.open(tiny_store), 4
    reader = RowReader(store, "train", packing="concat", sequence_length=32)
    facts = VocabularyFacts(
        store.vocabulary, store.special.pad, store.tokenizer.cls_token_id, store.special.separator
    )
    model = MaskedLM(build_model("bert-tiny", facts, dropout=0.0, seed=0)).eval()
    weights = list(model.parameters())
    only_mask = Corruption(mask=1.0, random=0.0, keep=0.0)
    strategies = {
        "random": get_strategy("random", segments=segments, corruption=only_mask),
        "segments": get_strategy("fully-explored", segments=segments, scope="batch", corruption=only_mask),
    }
    ordinary = np.arange(5, store.vocabulary)

    def gradients(sequence: int, draws: Sequence[Draw]) -> Iterator[Tensor]:
        rows = reader.read(np.array([sequence]))
        for draw in draws:
            mlm = MaskedLanguageModelling(
                strategies[draw.family],
                1,
                store.tokenizer.mask_token_id,
                ordinary,
                torch.zeros(store.vocabulary),
            )
            batch = mlm.prepare_singly(rows, draw.group)[draw.member]
            loss = mlm.loss(model, batch) / (rows.maskable.sum() / segments)
            yield torch.cat([part.ravel() for part in torch.autograd.grad(loss, weights)])

    records = measure(gradients, range(8), GradientPlan(random=8, segments=segments, sets=2))
    assert records.parameters == sum(part.numel() for part in weights)
    found = Estimates(records).summary()
    assert 0 <= found.variance_ratio.value <= found.variance_ratio.high < 0.01
    assert found.identity.difference.against(0) == "undecided"
    assert (found.sequences, found.gradients, found.correlations) == (8, 16, ())
    assert found.identity.right_of_pairs is None
    # In one step, at equal compute, even no mask noise at all does not make up for fewer sequences.
    assert 1 < found.equal_compute.segments.value < found.equal_compute.random_masks.value

"""Gradient variance: worlds small enough to know all their masks, known controls, plain loops, and a real model."""

import functools
import gc
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fmlm_cli.analysis import variance
from fmlm_cli.analysis.estimators import Estimates, per_sequence
from fmlm_cli.analysis.statistics import Interval
from fmlm_cli.analysis.variance import CountSketch, Draw, Plan, Records, mean_squares, measure

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
PLAN = Plan(random=3, segments=K, sets=2, distances=DISTANCES, pairs=2)


@dataclass
class World:
    """Kinds of sequences, each with a gradient for every mask; a sequence is of a kind drawn by its number."""

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
    estimates = Estimates(records, level=0.999, resamples=2000)
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
        identity = Estimates(many(noise, independent)[1], resamples=2000).identity()
        assert identity.left.high < 1
        assert identity.difference.against(0) == "undecided"
        assert identity.difference_of_pairs is not None
        assert identity.difference_of_pairs.against(0) == "undecided"
        assert identity.difference.value == pytest.approx(identity.left.value - identity.right.value)


def test_independent_masks_have_ratio_one() -> None:
    estimates = Estimates(many(0.0, True)[1], resamples=2000)
    assert estimates.variance_ratio().against(1) == "undecided"
    assert estimates.repeated_ratio().against(1) == "undecided"
    assert abs(estimates.variance_ratio().value - 1) < 0.1


def test_a_gradient_that_adds_up_over_tokens_leaves_full_exploration_no_variance() -> None:
    """A sum over tokens, divided by a fixed number: the K segments of any partition have the same mean."""
    world = World.of(pair=0.0)

    def as_float32(sequence: int, draws: Sequence[Draw]) -> Tensor:
        return world(sequence, draws).float()

    for gradients, rounding in ((world, 1e-20), (as_float32, 1e-10)):
        estimates = Estimates(measure(gradients, range(40), PLAN), resamples=500)
        ratio = estimates.variance_ratio()
        assert 0 <= ratio.value <= ratio.high < rounding
        assert np.all(per_sequence(estimates.records).full_variance < rounding)
        found = per_sequence(estimates.records).segment_covariance
        assert near(found, -world.sigma2[[world.kind(n) for n in range(40)]] / (K - 1))


def test_identical_masks_and_corruption_have_the_variance_for_covariance() -> None:
    _, records = many(0.0)
    same = Estimates(records, resamples=500).correlations()[0]
    assert (same.distance, same.value.value, same.value.low, same.value.high) == (0.0, 1.0, 1.0, 1.0)
    assert np.array_equal(records.distances[:, 0, 1], np.zeros(len(records.sequences)))
    # Corruption of its own for each is noise that the pair does not share.
    world, records = many(0.8)
    other = Estimates(records, resamples=500).correlations()[0].value
    assert other.high < 1
    assert other.value == pytest.approx(1 - LENGTH * 0.8**2 / world.sigma2.mean(), abs=0.05)


def test_step_variances_against_steps_taken() -> None:
    """The formulas against the spread of 20,000 steps of each kind."""
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

    found = Estimates(records, resamples=200).step_variances(rows)
    wanted = [
        spread(rows, 1, False), spread(rows // K, K, False), spread(rows // K, K, True), spread(rows, 1, True),
        spread(K * rows, 1, False), spread(rows, K, False), spread(rows, K, True),
    ]  # fmt: skip
    for scheme, variance_of_steps in zip(found, wanted, strict=True):
        assert scheme.variance == pytest.approx(variance_of_steps, rel=0.1)
        assert scheme.sequences * scheme.masks == scheme.steps * scheme.rows
        baseline = found[0 if scheme.steps == 1 else 4]
        assert scheme.relative.value == pytest.approx(scheme.variance / baseline.variance)
    assert [scheme.relative.value for scheme in (found[0], found[3], found[4])] == pytest.approx([1, 1, 1])
    assert found[2].relative.value < found[1].relative.value
    assert found[6].relative.value == pytest.approx(found[2].relative.value)
    with pytest.raises(ValueError, match="2 rows does not hold 3 masks"):
        Estimates(records, resamples=10).step_variances(2)


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


def test_intervals_cover_as_often_as_they_say() -> None:
    """200 experiments of 30 sequences: about 95 % of the intervals hold the truth."""
    world, plan = World.of(), Plan(random=3, segments=K, sets=2)
    ratio = K * world.full.mean() / world.sigma2.mean()
    share = world.delta2 / (world.delta2 + world.sigma2.mean())
    held = np.zeros(2)
    for trial in range(200):
        records = measure(world, range(10_000 + 30 * trial, 10_030 + 30 * trial), plan)
        estimates = Estimates(records, resamples=400, seed=trial)
        found = estimates.variance_ratio(), estimates.components().data_share
        held += [one.low < truth < one.high for one, truth in zip(found, (ratio, share), strict=True)]
    assert np.all((held / 200 > 0.88) & (held / 200 < 0.99)), held / 200


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
    plain = Plan(random=2, segments=2, sets=2)
    assert Records.from_arrays(measure(world_of_noise, [0], plain).to_arrays()).plan == plain


def world_of_noise(sequence: int, draws: Sequence[Draw]) -> Tensor:
    return torch.randn(len(draws), 4, generator=torch.Generator().manual_seed(sequence))


def test_what_cannot_be_measured_is_refused() -> None:
    plan = Plan(random=2, segments=2, sets=2)

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
            Plan(**bad)
    for distances in ((1.5,), (0.5, 0.5)):
        with pytest.raises(ValueError, match="different shares"):
            Plan(distances=distances)
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
    """Over 1000 seeds: no bias, and a standard deviation of at most sqrt(2 / d), for spread and lumpy vectors."""
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
    one, other = (Estimates(records, resamples=200) for records in (exact, sketched))
    assert other.variance_ratio().value == pytest.approx(one.variance_ratio().value, rel=error)
    assert other.components().data_share.value == pytest.approx(one.components().data_share.value, rel=error)
    assert (
        measure(world, range(2), PLAN, sketch=CountSketch(512)).sketch == 0
    )  # shorter than the sketch: exact


def test_a_model_at_initialisation_has_hardly_any_variance_left(tiny_store: Path) -> None:
    """[MASK] only, no dropout: its gradient is nearly a sum over tokens (METHOD.md, "First measurements")."""
    from fmlm_cli.corpus.rows import RowReader
    from fmlm_cli.corpus.store import TokenStore
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
            batch = mlm.prepare(rows, draw.group, 1)[draw.member]
            loss = mlm.loss(model, batch) / (rows.maskable.sum() / segments)
            yield torch.cat([part.ravel() for part in torch.autograd.grad(loss, weights)])

    records = measure(gradients, range(8), Plan(random=8, segments=segments, sets=2))
    assert records.parameters == sum(part.numel() for part in weights)
    found = Estimates(records, resamples=1000).summary(rows=8)
    assert 0 <= found.variance_ratio.value <= found.variance_ratio.high < 0.01
    assert found.identity.difference.against(0) == "undecided"
    assert (found.sequences, found.gradients, found.correlations) == (8, 16, ())
    assert found.identity.right_of_pairs is None
    # In one step, at equal compute, even no mask noise at all does not make up for fewer sequences.
    relative = [scheme.relative.value for scheme in found.steps]
    assert 1 < relative[2] < relative[1]

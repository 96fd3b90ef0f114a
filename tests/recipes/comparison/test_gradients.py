"""Gradient variance of models on rows of a store: right gradients, known controls, and a model left as it
was.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fmlm_cli.analysis.gradient_noise.estimators import Estimates, per_sequence
from fmlm_cli.analysis.gradient_noise.measuring import Draw, GradientPlan, Gradients, RatioResiduals, Records
from fmlm_cli.config import VarianceSettings
from fmlm_cli.corpus.rows.reading import RowReader, Rows
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.engine.batch import Batch
from fmlm_cli.errors import UserError
from fmlm_cli.masking import Corruption, Strategy, StrategySettings, Unit, random_exploration
from fmlm_cli.model.build import VocabularyFacts, build_model
from fmlm_cli.model.masked_lm import HeadOutput, MaskedLM
from fmlm_cli.objectives.masked_lm import MaskedLanguageModelling
from fmlm_cli.recipes.comparison import gradients as gradient_variance
from fmlm_cli.recipes.comparison.gradients import (
    UNITS,
    VarianceRequest,
    choose_rows,
    measure_gradient_variance,
)
from fmlm_cli.recipes.shared.held_out import make_objective

K, LENGTH = 4, 32
MASK_ONLY, BERT = Corruption(1.0, 0.0, 0.0), Corruption()


def variance_request(**given: Any) -> VarianceRequest:
    """What the settings' defaults ask for, but for what is given; fewer rows may be, than settings take."""
    asked = VarianceSettings().model_dump(exclude={"checkpoints", "corruptions", "unit"})
    return VarianceRequest(**(asked | given))


SMALL = variance_request(sequences=3, random=2, sets=2, pairs=2, distances=(0.0, 0.5, 1.0))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tiny_store: Path) -> TokenStore:
    return TokenStore.open(tiny_store)


@pytest.fixture(scope="module")
def reader(store: TokenStore) -> RowReader:
    return RowReader(store, "train", packing="concat", sequence_length=LENGTH)


@pytest.fixture
def model(store: TokenStore) -> MaskedLM:
    facts = VocabularyFacts(
        store.vocabulary, store.special.pad, store.tokenizer.cls_token_id, store.special.separator
    )
    return MaskedLM(build_model("bert-tiny", facts, dropout=0.1, seed=0))


class Bag(nn.Module):
    """Logits that depend on a token's position alone: the gradient is a sum over the masked tokens."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(LENGTH, vocabulary, generator=generator))

    def forward(self, position_ids: Tensor, masked_index: Tensor, **others: Any) -> HeadOutput:
        return HeadOutput(self.table[position_ids.ravel()[masked_index]], nn.Identity())


@pytest.fixture
def bag(store: TokenStore) -> Bag:
    return Bag(store.vocabulary)


def measured(
    model: nn.Module, reader: RowReader, store: TokenStore, request: VarianceRequest = SMALL, **given: Any
) -> Records:
    chosen = {"unit": "token", "segments": K, "corruption": BERT, "seed": 5, "device": CPU} | given
    return measure_gradient_variance(model, reader, store, request=request, **chosen)


@pytest.fixture
def gradients_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Mapping[tuple[int, Draw], Tensor]]:
    """`gradients_of(model, reader, store, ...)`: every gradient that would be measured."""

    def keep(gradients: Gradients, sequences: list[int], plan: GradientPlan, **others: Any) -> Any:
        draws = [Draw("random", group) for group in range(plan.random)]
        draws += [Draw("segments", s, k) for s in range(plan.sets) for k in range(plan.segments)]
        draws += [
            Draw("distance", p, k, d) for d in plan.distances for p in range(plan.pairs) for k in (0, 1)
        ]
        return {
            (sequence, draw): gradient.clone()
            for sequence in sequences
            for draw, gradient in zip(draws, gradients(sequence, draws), strict=True)
        }

    def run(*args: Any, **given: Any) -> Mapping[tuple[int, Draw], Tensor]:
        monkeypatch.setattr(gradient_variance, "measure", keep)
        return measured(*args, **given)  # type: ignore[return-value]

    return run


def stock_gradients(
    model: MaskedLM, rows: Iterable[Rows], shown: Iterable[dict[str, Any] | None]
) -> Iterator[tuple[Tensor, int]]:
    """For each row and what was shown of it, if anything was masked: the gradient of transformers' loss,
    times its count.
    """
    weights = list(model.parameters())
    for row, inputs in zip(rows, shown, strict=True):
        if inputs is None:
            yield torch.zeros(sum(weight.numel() for weight in weights), dtype=torch.float64), 0
            continue
        ids, present = torch.from_numpy(row.input_ids), torch.from_numpy(row.segments > 0).long()
        labels, masked = torch.full_like(ids, -100), inputs["masked_index"]
        labels[0, masked] = ids[0, masked]
        loss = model.pretrained(input_ids=inputs["input_ids"], attention_mask=present, labels=labels).loss
        parts = torch.autograd.grad(loss * len(masked), weights, allow_unused=True)
        flat = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, parts, strict=True)]
        yield torch.cat([part.ravel() for part in flat]).double(), len(masked)


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_gradients_are_those_of_the_stock_forward(
    unit: str, store: TokenStore, model: MaskedLM, gradients_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each against transformers' own loss of what the model was shown: (G - c gbar) / tau, gbar from 64 rows
    ahead.
    """
    reader = RowReader(
        store, "train", packing="none", sequence_length=2 * LENGTH
    )  # longer than some documents
    shown: list[dict[str, Any] | None] = []
    add_gradient = gradient_variance._add_gradient

    def keep(model: MaskedLM, objective: Any, batch: Batch, device: torch.device) -> int:
        shown.append(dict(batch.inputs) if batch.count else None)
        return add_gradient(model, objective, batch, device)

    monkeypatch.setattr(gradient_variance, "_add_gradient", keep)
    found = gradients_of(model, reader, store, SMALL, unit=unit)
    model.eval()
    assert len(found) == 3 * SMALL.plan(K).gradients
    typical = choose_rows(reader, K, replace(SMALL, sequences=64), seed=5).rows
    assert not (typical.segments > 0).all()
    rows = [typical.take(np.array([n])) for n in range(64)] * 2
    rows += [reader.read(np.array([sequence])) for sequence, _ in found]
    each = stock_gradients(model, rows, shown)
    mean, tokens = (sum(parts) for parts in zip(*itertools.islice(each, 2 * 64), strict=True))
    tau = typical.maskable.sum() / 64 / K
    for ((sequence, draw), gradient), (whole, count) in zip(found.items(), each, strict=True):
        assert count or unit == "span"
        wanted = ((whole - count * mean / tokens) / tau).float()
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=2e-6, msg=f"{draw} of row {sequence}")


def masked_gradients(
    model: MaskedLM, rows: Rows, objective: MaskedLanguageModelling, masks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Plain loops in float64: gradients of summed losses [rows * masks, weights], and counts [rows * masks]."""
    weights = [weight for weight in model.double().eval().parameters() if weight.requires_grad]
    gradients, counts = [], []
    for row, epoch in itertools.product(range(len(rows.numbers)), range(masks)):
        (batch,) = objective.prepare(rows.take(np.array([row])), epoch, 1)
        inputs = dict(batch.inputs)
        targets = inputs.pop("targets")
        loss = nn.functional.cross_entropy(model(**inputs).logits(), targets, reduction="sum")
        parts = torch.autograd.grad(loss, weights) if len(targets) else map(torch.zeros_like, weights)
        gradients.append(torch.cat([part.ravel() for part in parts]).numpy())
        counts.append(len(targets))
    return np.stack(gradients), np.array(counts)


@pytest.mark.parametrize("unit", ["token", "span"])
def test_residuals_have_the_variance_of_steps(unit: str, store: TokenStore, model: MaskedLM) -> None:
    """Rows of unequal length: against the gradients of 4000 steps of 64 rows, sum G / sum c."""
    reader = RowReader(store, "train", packing="none", sequence_length=2 * LENGTH)
    for weight in model.parameters():
        weight.requires_grad_(weight.dim() == 1)  # few, as all gradients are kept
    number, masks, request = 64, 12, variance_request(sequences=64, random=6, distances=())
    parts = Estimates(measured(model, reader, store, request, unit=unit)).components()
    measured_variance = (
        parts.masks.value + parts.data.value * (number - 1) / number
    )  # rows drawn with replacement

    rows = choose_rows(reader, K, request, seed=5).rows
    strategy = random_exploration(UNITS[unit])(StrategySettings("random", 1 / K))
    objective = make_objective(store, strategy, 1, static_shapes=False)
    gradients, counts = masked_gradients(model, rows, objective, masks)
    drawn = np.random.default_rng(0).multinomial(number, np.full(len(counts), 1 / len(counts)), 4000)
    own_tau = np.repeat(rows.maskable.sum(1) / K, masks)

    def spread(of_steps: np.ndarray) -> float:
        return float(number * of_steps.var(axis=0).sum())

    truth = spread(drawn @ gradients / (drawn @ counts)[:, None])
    without = spread(drawn @ gradients / number / own_tau.mean())  # the mean gradient's length is noise there
    by_row = spread(drawn @ (gradients / own_tau[:, None]) / number)  # short rows count too much
    assert measured_variance == pytest.approx(truth, rel=0.06)  # 1.03 and 0.96 times
    assert without > 1.06 * truth  # 1.09 and 1.12
    assert by_row > 1.3 * truth  # 1.45 and 1.47


def test_rows_and_masks_of_one_size_have_the_variances_of_plain_gradients(
    reader: RowReader, store: TokenStore, model: MaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(SMALL, sequences=12, random=4)
    found = Estimates(measured(model, reader, store, request, segments=5)).summary()
    monkeypatch.setattr(
        RatioResiduals, "__call__", lambda residuals, gradient, count: gradient.div_(residuals.tau)
    )
    plain = Estimates(measured(model, reader, store, request, segments=5)).summary()
    for one, other in (
        (found.components.masks, plain.components.masks),
        (found.components.data, plain.components.data),
        *((a.value, b.value) for a, b in zip(found.correlations, plain.correlations, strict=True)),
        (found.equal_compute.segments, plain.equal_compute.segments),
    ):
        assert one.value == pytest.approx(other.value, rel=1e-2)


def test_masks_and_corruption_are_drawn_for_each_gradient(
    reader: RowReader, store: TokenStore, model: MaskedLM, gradients_of: Any
) -> None:
    """Nothing is the same, but with [MASK] alone the two of a pair at distance 0."""
    for corruption in (MASK_ONLY, BERT):
        found = gradients_of(model, reader, store, SMALL, corruption=corruption)
        for one, other in itertools.combinations(found, 2):
            same = one[1].family == "distance" and one[1].distance == 0 and corruption is MASK_ONLY
            same = same and one[0] == other[0] and replace(one[1], member=1) == other[1]
            assert torch.equal(found[one], found[other]) == same, (one, other)


def test_the_same_masks_and_corruption_have_correlation_one(
    reader: RowReader, store: TokenStore, model: MaskedLM
) -> None:
    request = replace(SMALL, sequences=6, pairs=4, distances=(0.0, 0.25, 0.5, 1.0))
    for corruption in (MASK_ONLY, BERT):
        records = measured(model, reader, store, request, corruption=corruption)
        values = [each.value for each in Estimates(records).correlations()]
        assert values[3].value < values[2].value < values[1].value < values[0].value
        first = values[0]
        if corruption is MASK_ONLY:
            assert (first.low, first.value, first.high) == (1.0, 1.0, 1.0)
        else:
            assert first.high < 1


def test_full_exploration_leaves_a_bag_of_tokens_no_variance(
    reader: RowReader, store: TokenStore, bag: Bag
) -> None:
    for corruption in (MASK_ONLY, BERT):
        found = Estimates(measured(bag, reader, store, corruption=corruption))
        assert 0 <= found.variance_ratio().high < 1e-9
        assert per_sequence(found.records).mask_variance.min() > 0.01


def test_full_exploration_leaves_a_new_model_hardly_any_variance(
    reader: RowReader, store: TokenStore, model: MaskedLM
) -> None:
    records = measured(model, reader, store, replace(SMALL, sequences=8), corruption=MASK_ONLY)
    found = Estimates(records)
    assert 0 <= found.variance_ratio().high < 0.01


def test_independent_masks_for_segments_have_ratio_one(
    reader: RowReader, store: TokenStore, bag: Bag, monkeypatch: pytest.MonkeyPatch
) -> None:
    def independent(unit: Unit) -> Callable[[StrategySettings], Strategy]:
        return lambda settings: random_exploration(unit)(replace(settings, masks_per_sequence=K))

    monkeypatch.setattr(gradient_variance, "full_exploration", independent)
    request = variance_request(sequences=60, random=6, sets=4, distances=())
    found = Estimates(measured(bag, reader, store, request)).variance_ratio()
    assert found.against(1) == "undecided"
    assert 0.9 < found.value < 1.1


def test_the_identity_holds(reader: RowReader, store: TokenStore, model: MaskedLM) -> None:
    """For a model that looks at the context: its attention is sharpened."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(8 if ".attention." in name and weight.dim() == 2 else 1)
    records = measured(
        model, reader, store, variance_request(sequences=16, distances=(1.0,), sets=3, pairs=4)
    )
    identity = Estimates(records).identity()
    assert 0.02 < identity.left.value < 1
    assert identity.difference.against(0) == "undecided"
    assert identity.difference_of_pairs is not None
    assert identity.difference_of_pairs.against(0) == "undecided"


@pytest.mark.parametrize("sketch", [None, 500])
def test_records_do_not_depend_on_how_sequences_are_cut_into_calls(
    reader: RowReader, store: TokenStore, model: MaskedLM, sketch: int | None
) -> None:
    request = replace(SMALL, sequences=5, distances=(0.5,), sketch=sketch)
    done: list[int] = []
    whole = measured(model, reader, store, request, progress=done.append)
    parts = [replace(request, sequences=2), replace(request, sequences=3, first=2)]
    joined = Records.joined([measured(model, reader, store, part) for part in parts])
    for name in ("sequences", "random", "segments", "distances"):
        assert np.array_equal(getattr(joined, name), getattr(whole, name)), name
    assert np.isnan(joined.recursive).nonzero()[0].tolist() == [0, 2]
    assert done == [1, 2, 3, 4, 5]
    assert whole.sketch == (sketch or 0)
    assert whole.parameters == sum(weight.numel() for weight in model.parameters())  # tied ones once
    other = measured(model, reader, store, request, seed=6)
    assert not np.array_equal(other.random, whole.random)


def test_the_model_is_left_as_it_was(reader: RowReader, store: TokenStore, model: MaskedLM) -> None:
    model.train()
    model.pretrained.base_model.embeddings.eval()
    weights = dict(model.named_parameters())
    some = next(iter(weights.values()))
    some.grad = torch.full_like(some, 3.0)
    frozen = weights["pretrained.cls.predictions.bias"].requires_grad_(False)

    def state() -> Iterator[Any]:
        yield from (weight.detach().clone() for weight in weights.values())
        yield torch.get_rng_state()
        yield torch.tensor(np.random.get_state()[1].astype(np.int64))  # type: ignore[union-attr]
        yield torch.tensor([module.training for module in model.modules()])

    before, gradient = list(state()), some.grad
    records = measured(model, reader, store, replace(SMALL, sequences=2, distances=()))
    assert records.parameters == sum(weight.numel() for weight in weights.values()) - frozen.numel()
    with pytest.raises(RuntimeError, match="stopped"):
        measured(model, reader, store, replace(SMALL, distances=()), progress=stop)
    assert all(torch.equal(one, other) for one, other in zip(before, state(), strict=True))
    assert some.grad is gradient
    assert bool((gradient == 3).all())
    assert [name for name, weight in weights.items() if weight.grad is not None] == [next(iter(weights))]


def stop(done: int) -> None:
    raise RuntimeError(f"stopped after {done}")


def test_an_empty_mask_has_no_gradient(
    reader: RowReader, store: TokenStore, bag: Bag, gradients_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = measured(bag, reader, store, unit="span", segments=10)
    assert np.isfinite(records.random).all()
    assert np.isfinite(records.distances).all()
    found = gradients_of(bag, reader, store, unit="span", segments=10)
    assert any(not gradient.any() for gradient in found.values())


def test_rows_are_a_fixed_part_of_those_that_are_long_enough(store: TokenStore) -> None:
    reader = RowReader(store, "train", packing="none", sequence_length=LENGTH)
    rows = reader.read(np.arange(len(reader)))
    enough = set(rows.numbers[rows.maskable.sum(1) >= 2 * K].tolist())
    assert len(enough) < len(reader)
    all_of_them = choose_rows(reader, K, variance_request(sequences=10_000), seed=1)
    numbers = all_of_them.rows.numbers.tolist()
    assert len(numbers) == len(all_of_them) == len(enough)
    assert set(numbers) == enough
    assert (all_of_them.left_out, all_of_them.looked_at) == (len(reader) - len(enough), len(reader))
    for first, number in ((0, 7), (7, 20), (len(enough) - 2, 5)):
        part = choose_rows(reader, K, variance_request(sequences=number, first=first), seed=1)
        assert part.rows.numbers.tolist() == numbers[first : first + number]
        assert part.looked_at - part.left_out == min(first + number, len(enough))
    assert choose_rows(reader, K, variance_request(sequences=7), seed=2).rows.numbers.tolist() != numbers[:7]
    few = RowReader(store, "train", packing="none", sequence_length=LENGTH, max_rows=20)
    assert set(choose_rows(few, K, variance_request(), seed=1).rows.numbers) < set(range(len(reader)))
    assert not len(choose_rows(reader, K, variance_request(first=10_000), seed=1))


def test_what_cannot_be_measured_is_refused(
    reader: RowReader, store: TokenStore, model: MaskedLM, bag: Bag
) -> None:
    with pytest.raises(
        UserError, match=r"at least 40 maskable tokens, two for each of 20 segments, and [0-9]+ have"
    ):
        measured(bag, RowReader(store, "train", packing="none", sequence_length=20), store, segments=20)
    with pytest.raises(UserError, match="unknown unit 'words': did you mean 'word'"):
        measured(bag, reader, store, unit="words")
    with pytest.raises(ValueError, match="at least 2 segments, not 1"):
        measured(bag, reader, store, segments=1)
    for other in (model.bfloat16(), bag.requires_grad_(False)):
        with pytest.raises(ValueError, match="trainable weights in float32"):
            measured(other, reader, store)
    bad: tuple[dict[str, Any], ...] = (
        {"sequences": 0}, {"first": -1}, {"random": 1}, {"pairs": 1}, {"sets": 1}, {"sketch": 0},
        {"distances": (0.3,)}, {"distances": (0.5, 0.5)},
    )  # fmt: skip
    for given in bad:
        with pytest.raises(ValueError, match=r"gradient variance|sketch|largest distance|different shares"):
            variance_request(**given)

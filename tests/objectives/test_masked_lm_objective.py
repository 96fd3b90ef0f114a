"""The masked-LM objective against plain loops."""

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, BertConfig

from fmlm_cli.engine.batch import Batch
from fmlm_cli.masking import get_strategy
from fmlm_cli.masking.registry import BUILT_IN
from fmlm_cli.model.masked_lm import HeadOutput, MaskedLM
from fmlm_cli.objectives.masked_lm import MaskedLanguageModelling, unigram_losses, view_of
from tests.objectives.made_rows import MASK, ORDINARY, VOCABULARY, make_rows

NAMES = [name for name in BUILT_IN if not name.endswith("pmi")]  # their unit is tested where it is made
STRATEGIES = [
    (name, scope) for name in NAMES for scope in (["epoch", "batch"] if name.startswith("fully") else [None])
]


@functools.cache
def tiny_model() -> MaskedLM:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return MaskedLM(AutoModelForMaskedLM.from_config(config)).eval()


def objective(
    name: str = "random", scope: str | None = None, *, segments: int = 4, static: bool = False, masks: int = 1
) -> MaskedLanguageModelling:
    chosen = {"masks_per_sequence": masks} if name == "random" else {}
    strategy = get_strategy(name, segments=segments, scope=scope, **chosen)  # type: ignore[arg-type]
    counts = np.arange(VOCABULARY, dtype=np.uint64) ** np.uint64(2)
    return MaskedLanguageModelling(strategy, 7, MASK, ORDINARY, unigram_losses(counts), static)


rows_strategy = st.one_of(  # a document of 2 holds nothing maskable
    st.lists(st.lists(st.integers(2, 5), max_size=3), min_size=1, max_size=5),
    st.lists(st.lists(st.integers(2, 16), max_size=1), min_size=1, max_size=5),
)


def looped_loss(model: nn.Module, batch: Batch) -> tuple[float, float, int]:
    """Summed loss, summed unigram loss and right predictions, in float64, target by target."""
    inputs = {k: v for k, v in batch.inputs.items() if k != "targets"}
    with torch.no_grad():
        logits = model(**inputs).logits().double().tolist()
    losses = unigram_losses(np.arange(VOCABULARY, dtype=np.uint64) ** np.uint64(2)).tolist()
    total = unigram = 0.0
    right = 0
    for scores, target in zip(logits, batch.inputs["targets"].tolist(), strict=True):
        if target == -100:
            continue
        highest = max(scores)
        total += highest + math.log(sum(math.exp(s - highest) for s in scores)) - scores[target]
        unigram += losses[target]
        right += scores.index(highest) == target
    return total, unigram, right


@settings(max_examples=40)
@given(
    lengths=rows_strategy,
    strategy=st.sampled_from(STRATEGIES),
    static=st.booleans(),
    epoch=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_loss_and_scores_are_those_of_a_loop(
    lengths: list[list[int]], strategy: tuple[str, str | None], static: bool, epoch: int, seed: int
) -> None:
    mlm = objective(*strategy, static=static)
    for batch in mlm.prepare(make_rows(lengths, seed=seed), epoch, 3):
        total, unigram, right = looped_loss(tiny_model(), batch)
        with torch.no_grad():
            loss = mlm.loss(tiny_model(), batch)
            scores = mlm.score(tiny_model(), batch)
        assert loss.shape == ()
        assert float(loss) == pytest.approx(total, rel=1e-5, abs=1e-5)
        assert float(scores["eval_loss"]) == pytest.approx(total, rel=1e-5, abs=1e-5)
        assert float(scores["unigram_loss"]) == pytest.approx(unigram, rel=1e-5)
        assert int(scores["eval_accuracy"]) == right


@settings(max_examples=60)
@given(
    lengths=rows_strategy,
    strategy=st.sampled_from(STRATEGIES),
    micro=st.integers(1, 9),
    static=st.booleans(),
    epochs=st.lists(st.integers(0, 9), min_size=5, max_size=5),
)
def test_batches_hold_what_the_masks_say(
    lengths: list[list[int]],
    strategy: tuple[str, str | None],
    micro: int,
    static: bool,
    epochs: list[int],
) -> None:
    """Every masked position, and no other, is in `masked_index`, with its original token as target."""
    rows = make_rows(lengths)
    mlm = objective(*strategy, static=static)
    epoch = np.array(epochs[: len(lengths)])
    masks = mlm.strategy.masks(view_of(rows), epoch, mlm.seed)
    each, wanted = masks.shape[1], masks.reshape(-1, masks.shape[2])
    batches = mlm.prepare(rows, epoch, micro)

    alone = all(len(documents) <= 1 for documents in lengths)
    order, begin = np.arange(len(wanted)), 0
    if alone:  # those that need all columns first
        order = np.array(sorted(order, key=lambda r: sum(lengths[r // each]) <= 8))
    for batch in batches:
        inputs = batch.inputs
        size, width = inputs["input_ids"].shape
        here = order[begin : begin + size]
        row = here // each
        last = begin + size == len(order)
        if alone:
            longest = sum(lengths[row[0]])
            assert width == min(length for length in (8, 16) if length >= longest)
            assert size * width <= micro * 16
            assert last or (size + 1) * width > micro * 16
        else:
            assert width == 16 and (last or size == micro)
        original = rows.input_ids[row, :width].ravel()
        index, targets = inputs["masked_index"].numpy(), inputs["targets"].numpy()
        real = targets != -100
        assert not wanted[here, width:].any()
        assert index[real].tolist() == np.flatnonzero(wanted[here, :width]).tolist()
        assert targets[real].tolist() == original[index[real]].tolist()
        unmasked = np.setdiff1d(np.arange(original.size), index[real])
        assert (inputs["input_ids"].numpy().ravel()[unmasked] == original[unmasked]).all()
        assert np.isin(
            inputs["input_ids"].numpy().ravel()[index[real]], [MASK, *ORDINARY]
        ).all()  # no special token but [MASK]
        segments = rows.segments[row, :width]
        assert (inputs["segments"] is None) == (alone and segments.all())
        assert inputs["segments"] is None or (inputs["segments"].numpy() == segments).all()
        assert (inputs["position_ids"].numpy() == rows.position_ids[row, :width]).all()
        assert inputs["alone"] == all(len(lengths[r]) <= 1 for r in row)
        assert batch.count == real.sum()
        assert batch.tokens == sum(sum(lengths[r]) for r in row)
        assert batch.rows == tuple(dict.fromkeys(100 + int(r) for r in row))
        if static:
            whole = size * math.ceil(width / 4)
            assert len(index) in (whole, math.ceil(len(index[real]) / whole) * whole)
        begin += size
    assert begin == len(lengths) * each


@settings(max_examples=25)
@given(lengths=rows_strategy, strategy=st.sampled_from(STRATEGIES), seed=st.integers(0, 99))
def test_static_shapes_change_neither_loss_nor_gradients(
    lengths: list[list[int]], strategy: tuple[str, str | None], seed: int
) -> None:
    model, mlm = tiny_model(), objective(*strategy)
    static = replace(mlm, static_shapes=True)

    def run(which: MaskedLanguageModelling, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        model.zero_grad()
        loss = which.loss(model, batch)
        loss.backward()
        return loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    rows = make_rows(lengths, seed=seed)
    for dynamic_batch, static_batch in zip(mlm.prepare(rows, 1, 4), static.prepare(rows, 1, 4), strict=True):
        loss, gradients = run(mlm, dynamic_batch)
        static_loss, static_gradients = run(static, static_batch)
        torch.testing.assert_close(static_loss, loss, rtol=1e-6, atol=1e-6)
        for mine, theirs in zip(static_gradients, gradients, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
        assert static_batch.count == dynamic_batch.count
        scores, static_scores = mlm.score(model, dynamic_batch), static.score(model, static_batch)
        for name in scores:
            torch.testing.assert_close(static_scores[name], scores[name], rtol=1e-6, atol=1e-6)


def test_static_shapes_are_the_same_in_every_step() -> None:
    mlm = objective("fully-explored", "epoch", static=True)
    shapes = {
        tuple(value.shape)
        for seed in range(20)
        for batch in mlm.prepare(make_rows([[5, 5, 5], [16], [2]], seed=seed), seed, 3)
        for name, value in batch.inputs.items()
        if name == "masked_index"
    }
    assert shapes == {(12,)}


def test_there_is_room_for_all_targets_at_every_rate() -> None:
    """And with single tokens, one size of it is enough: the ceiling of the rate."""
    rows = make_rows([[16]] * 50)
    whole = replace(rows, maskable=np.ones_like(rows.maskable))
    for segments in range(2, 20):
        for name, scope in STRATEGIES:
            mlm = objective(name, scope, segments=segments, static=True)
            for batch in mlm.prepare(whole, 0, 7):
                size = len(batch.inputs["input_ids"]) * math.ceil(16 / segments)
                assert len(batch.inputs["masked_index"]) == len(batch.inputs["targets"])
                assert batch.count <= len(batch.inputs["targets"])
                assert (batch.inputs["targets"] != -100).sum() == batch.count
                assert name not in ("random", "fully-explored") or len(batch.inputs["targets"]) == size


@pytest.mark.parametrize("static", [False, True])
def test_a_batch_without_a_masked_token(static: bool) -> None:
    model, mlm = tiny_model(), objective(static=static)
    (batch,) = mlm.prepare(make_rows([[2], [2, 2], []]), 0, 8)
    assert batch.count == 0
    model.zero_grad()
    loss = mlm.loss(model, batch)
    loss.backward()
    assert loss.item() == 0
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        assert all(not value.any() for value in mlm.score(model, batch).values())


def test_several_masks_of_a_row_lie_next_to_each_other() -> None:
    mlm = objective(masks=3)
    (batch,) = mlm.prepare(make_rows([[5, 5, 6], [16]]), 0, 8)
    segments = batch.inputs["segments"]
    assert len(segments) == 6
    assert segments.max(dim=1).values.tolist() == [3, 3, 3, 1, 1, 1]
    assert batch.rows == (100, 101)
    assert batch.tokens == 6 * 16


def test_full_exploration_in_one_step_predicts_every_token_once() -> None:
    rows = make_rows([[5, 5, 6], [16], [2, 9]])
    mlm = objective("fully-explored", "batch")
    predicted = np.zeros(rows.input_ids.shape, int)
    for batch in mlm.prepare(rows, 3, 4):  # four masks a row: one row a batch
        (number,) = batch.rows
        for index in batch.inputs["masked_index"].tolist():
            predicted[number - 100, index % 16] += 1
    assert (predicted == rows.maskable).all()


def test_batches_do_not_depend_on_their_cut() -> None:
    rows = make_rows([[5, 5, 6], [16], [2, 9], [4], [7, 7]])
    mlm = objective("fully-explored", "batch")
    whole = mlm.prepare(rows, 2, 100)
    for micro in (1, 3, 8):
        parts = mlm.prepare(rows, 2, micro)
        assert torch.equal(
            torch.cat([part.inputs["input_ids"] for part in parts]), whole[0].inputs["input_ids"]
        )
        assert torch.equal(torch.cat([part.inputs["targets"] for part in parts]), whole[0].inputs["targets"])
        assert sum(part.count for part in parts) == whole[0].count


def test_unigram_losses_are_smoothed_shares() -> None:
    counts = np.array([0, 9, 0, 87], np.uint64)
    wanted = [-math.log(c / 100) for c in (1, 10, 1, 88)]
    assert unigram_losses(counts).tolist() == pytest.approx(wanted)
    assert unigram_losses(np.zeros(4, np.uint64)).tolist() == pytest.approx([math.log(4)] * 4)
    assert unigram_losses(np.array([2**40, 1], np.uint64)).isfinite().all()


def test_bfloat16_logits_are_scored_in_float32() -> None:
    class Half(nn.Module):
        def forward(self, **inputs: Tensor) -> HeadOutput:
            return HeadOutput(tiny_model()(**inputs).logits().bfloat16(), nn.Identity())

    mlm = objective()
    (batch,) = mlm.prepare(make_rows([[16], [16]]), 0, 8)
    with torch.no_grad():
        loss = mlm.loss(Half(), batch)
        assert loss.dtype == torch.float32
        assert float(loss) == pytest.approx(float(mlm.loss(tiny_model(), batch)), rel=0.02)

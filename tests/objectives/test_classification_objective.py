"""Classification and regression against the stock forward with labels, however the step is cut."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from fmlm_cli.corpus.rows.sequences import Sequences
from fmlm_cli.engine.evaluation import outputs_of
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.step import compute_gradient
from fmlm_cli.objectives.classification import SequenceClassification

CPU = Runtime.resolve("cpu")


@functools.cache
def model(labels: int) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.3,
        num_labels=labels,
    )
    return BertForSequenceClassification(config).eval()


def sequences(lengths: list[int]) -> Sequences:
    random = np.random.default_rng(sum(lengths))
    total = sum(lengths)
    types = np.concatenate([np.arange(n) >= n // 2 for n in lengths]).astype(np.uint8)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Sequences(random.integers(1, 40, total, dtype=np.int32), types, offsets, 0)


many = st.lists(st.integers(2, 20), min_size=1, max_size=9)


@settings(max_examples=30)
@given(lengths=many, micro=st.integers(1, 9), regression=st.booleans(), multiple=st.sampled_from([1, 8]))
def test_loss_and_gradient_are_those_of_the_stock_forward(
    lengths: list[int], micro: int, regression: bool, multiple: int
) -> None:
    own, net = sequences(lengths), model(1 if regression else 3)
    index = np.random.default_rng(1).permutation(len(lengths))
    labels = np.random.default_rng(2).random(len(lengths)) * 5 if regression else np.arange(len(lengths)) % 3
    objective = SequenceClassification(regression, pad=0, multiple=multiple)
    net.zero_grad()
    total, count = compute_gradient(net, objective, objective.prepare(own, index, labels, micro), runtime=CPU)
    got = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    ids, types, present = (torch.from_numpy(a) for a in own.padded(np.arange(len(own)), 0))
    targets = torch.from_numpy(labels).float() if regression else torch.from_numpy(labels)
    net.zero_grad()
    stock = net(input_ids=ids, token_type_ids=types, attention_mask=present, labels=targets).loss
    stock.backward()
    assert count == len(lengths)
    assert total.item() / count == pytest.approx(stock.item(), rel=1e-5)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, atol=2e-5, rtol=1e-4, msg=name)


@settings(max_examples=20)
@given(lengths=many, micro=st.integers(1, 4))
def test_outputs_are_in_the_order_of_the_sequences(lengths: list[int], micro: int) -> None:
    own, net = sequences(lengths), model(3)
    order = np.random.default_rng(3).permutation(len(lengths))
    objective = SequenceClassification(False, pad=0)
    got = outputs_of(net, objective, objective.prepare(own, order, None, micro), CPU)
    for i in range(len(lengths)):
        ids, types, _ = own.padded(np.array([i]), 0)
        with torch.no_grad():
            alone = net(input_ids=torch.from_numpy(ids), token_type_ids=torch.from_numpy(types)).logits
        np.testing.assert_allclose(got[i], alone[0], atol=2e-5)


def test_padding_is_masked_only_where_there_is_some() -> None:
    own = sequences([5, 5, 9])
    objective = SequenceClassification(False, pad=0)
    even, uneven = objective.prepare(own, np.array([0, 1, 2]), np.array([0, 1, 2]), 2)[0], None
    assert "attention_mask" not in even.inputs
    [uneven] = objective.prepare(own, np.array([0, 2]), np.array([0, 1, 2]), 2)
    assert uneven.inputs["attention_mask"].sum() == uneven.tokens == 14
    assert uneven.inputs["targets"].tolist() == [0, 2]

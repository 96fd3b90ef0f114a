"""Classification and regression against the stock forward with labels, however the step is cut."""

import copy
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
from fmlm_cli.model.attention import AttentionBackend, DocumentByDocument, MaskOnRows
from fmlm_cli.model.classification.sequence_classifier import SequenceClassifier
from fmlm_cli.objectives.classification import SequenceClassification

CPU = Runtime.resolve("cpu")
LONGEST = 20


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


def running(net: BertForSequenceClassification, backend: type[AttentionBackend]) -> SequenceClassifier:
    return SequenceClassifier(copy.deepcopy(net), backend).eval()


def objective_of(classifier: SequenceClassifier, *, regression: bool = False) -> SequenceClassification:
    return SequenceClassification.of_model(classifier, LONGEST, pad=0, regression=regression)


BACKENDS = st.sampled_from([MaskOnRows, DocumentByDocument])
many = st.lists(st.integers(2, LONGEST), min_size=1, max_size=9)


@settings(max_examples=30)
@given(lengths=many, micro=st.integers(1, 9), regression=st.booleans(), backend=BACKENDS)
def test_loss_and_gradient_are_those_of_the_stock_forward(
    lengths: list[int], micro: int, regression: bool, backend: type[AttentionBackend]
) -> None:
    own, net = sequences(lengths), model(1 if regression else 3)
    index = np.random.default_rng(1).permutation(len(lengths))
    labels = np.random.default_rng(2).random(len(lengths)) * 5 if regression else np.arange(len(lengths)) % 3
    classifier = running(net, backend)
    objective = objective_of(classifier, regression=regression)
    batches = objective.prepare(own, index, labels, micro)
    total, count, _ = compute_gradient(classifier, objective, batches, runtime=CPU)
    got = dict(classifier.pretrained.named_parameters())
    ids, types, present = (torch.from_numpy(a) for a in own.padded(np.arange(len(own)), 0))
    targets = torch.from_numpy(labels).float() if regression else torch.from_numpy(labels)
    net.zero_grad()
    stock = net(input_ids=ids, token_type_ids=types, attention_mask=present, labels=targets).loss
    stock.backward()
    assert count == len(lengths)
    assert total.item() / count == pytest.approx(stock.item(), rel=1e-5)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(got[name].grad, parameter.grad, atol=2e-5, rtol=1e-4, msg=name)


@settings(max_examples=20)
@given(lengths=many, micro=st.integers(1, 4), backend=BACKENDS)
def test_outputs_are_in_the_order_of_the_sequences(
    lengths: list[int], micro: int, backend: type[AttentionBackend]
) -> None:
    own, net = sequences(lengths), model(3)
    order = np.random.default_rng(3).permutation(len(lengths))
    classifier = running(net, backend)
    objective = objective_of(classifier)
    got = outputs_of(classifier, objective, objective.prepare(own, order, None, micro), CPU)
    for i in range(len(lengths)):
        ids, types, _ = own.padded(np.array([i]), 0)
        with torch.no_grad():
            alone = net(input_ids=torch.from_numpy(ids), token_type_ids=torch.from_numpy(types)).logits
        np.testing.assert_allclose(got[i], alone[0], atol=2e-5)


def test_padding_is_masked_only_where_there_is_some() -> None:
    own = sequences([5, 5, 9])
    objective = SequenceClassification(False, pad=0)
    even, uneven = objective.prepare(own, np.array([0, 1, 2]), np.array([0, 1, 2]), 2)[0], None
    assert even.inputs["segments"] is None
    [uneven] = objective.prepare(own, np.array([0, 2]), np.array([0, 1, 2]), 2)
    assert uneven.inputs["segments"].sum() == uneven.tokens == 14
    assert uneven.inputs["targets"].tolist() == [0, 2]


def test_on_a_flat_row_as_many_sequences_share_a_batch_as_there_is_room_for() -> None:
    own = sequences([20, 3, 3, 3, 3, 3, 5])
    objective = SequenceClassification(False, pad=0, multiple=LONGEST, layout="flat")
    first, second = objective.prepare(own, np.arange(7), np.arange(7) % 3, 1)
    assert (first.rows, second.rows) == ((0,), (1, 2, 3, 4, 5, 6))
    assert first.inputs["input_ids"].shape == second.inputs["input_ids"].shape == (1, LONGEST)
